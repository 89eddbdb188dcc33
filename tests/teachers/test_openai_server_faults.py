"""What servers say, as users reported it, over HTTP: recorded as said, at the price of one question."""

import base64
import gzip
import html
import json
import socket
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack

import numpy as np
import pytest
from faulty_proxy import DRIP, DRIPS, Proxy, Says, refused, said

from negdistill.__main__ import main
from negdistill.data.formats import read_records
from negdistill.data.records import Problem, Reply
from negdistill.data.tasks import load_task
from negdistill.teachers.generate import LocalTeacher, generate, plan
from negdistill.teachers.ledger import Budget, BudgetReached, Slot, Store
from negdistill.teachers.openai_server import OpenAITeacher, _Asking
from negdistill.teachers.replies import Failure
from negdistill.teachers.transport import Response
from negdistill.teachers.wanted import wanted_slots

PROBLEMS = [Problem(f"p{i}", f"What is {i} + 1? [{i}]", str(i + 1), "", "", None, "mine") for i in range(6)]
KEY = "sk-Never/to+be&seen~42"
GOOD = said("The answer is 1.")
PRICES = (1000.0, 50_000.0)  # of a million tokens


@pytest.fixture
def server(monkeypatch):
    """Start a server with these faults, and "The answer is 1." for the rest."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("negdistill.teachers.openai_server.FIRST_WAIT", 0.01)
    with ExitStack() as running:

        def start(*faults, always=None, rest=GOOD) -> Proxy:
            return running.enter_context(Proxy("", faults, {**(always or {}), "": rest}))

        yield start


@pytest.fixture
def ask(tmp_path):
    def asked(proxy, problems=PROBLEMS, n=1, store="store.jsonl", temperature=0.5, model="m", **settings):
        more = {name: settings.pop(name) for name in ("max_cost", "retry_rejected") if name in settings}
        teacher = OpenAITeacher(model, proxy.url, **{"concurrency": 2, "max_tokens": 20, **settings})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return generate(problems, teacher, n, temperature, tmp_path / store, progress=False, **more)

    asked.store = tmp_path / "store.jsonl"
    return asked


def one(ask, proxy, **settings) -> Reply:
    """The reply to one question, the same in the store."""
    (got,) = ask(proxy, PROBLEMS[:1], **settings)
    assert read_records(ask.store, Reply)[-1] == got
    return got


# --- a bad question costs one question ----------------------------------------------------------------

BAD = {
    "too long": refused(400, "This model's maximum context length is 4096 tokens. You requested 9000"),
    "llama.cpp": refused(400, "request (3051 tokens) exceeds the available context size (512 tokens)"),
    "filtered": refused(400, "The prompt triggered the content management policy", code="content_filter"),
    "moderated": refused(403, "Your input was flagged", metadata={"reasons": ["violence"]}),
    "too large": Says(b"<html>413 Request Entity Too Large</html>", 413, kind="text/html"),
    "fastapi": Says({"detail": [{"loc": ["body"], "msg": "bad", "type": "value_error"}]}, 422),
    "vllm": Says({"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}, 400),
    "ollama": Says({"error": "input is too long"}, 400),
    "in a 200": Says({"error": {"code": 400, "message": "too long"}}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_question_costs_one_question(server, ask, name):
    """Kind: one question that is always turned away; as in ray-project/ray#59194."""
    proxy = server(always={"[2]": BAD[name]})
    got = ask(proxy, n=2)
    bad = [reply for reply in got if reply.problem_id == "p2"]
    assert len(got) == 12 and [reply.text for reply in got if reply not in bad] == ["The answer is 1."] * 10
    assert {reply.finish for reply in bad} == {"refused" if name == "filtered" else "rejected"}
    assert all(reply.error.startswith("status 4") and not reply.text for reply in bad)
    said = json.dumps(BAD[name].body if name != "too large" else "413 Request Entity Too Large")
    assert bad[0].error.split(": ", 1)[1].split('"')[0].strip("'")[:12].replace("<html>", "") in said
    asked = len(proxy.journal)
    assert asked == 12 and ask(proxy, n=2) == got and len(proxy.journal) == asked
    better = server()
    teacher = OpenAITeacher("m", better.url, max_tokens=20, prices=PRICES)
    planned = [plan(PROBLEMS, teacher, 2, store=ask.store, retry_rejected=again) for again in (False, True)]
    assert [(one.requests, one.stored) for one in planned] == [(0, 12), (2, 10)]
    assert planned[0].cost == planned[0].most == 0 < planned[1].cost < planned[1].most
    got = ask(better, n=2, retry_rejected=True)
    assert len(better.journal) == 2 and {reply.text for reply in got} == {"The answer is 1."}
    assert ask(better, n=2) == got and len(better.journal) == 2


def test_the_command_ends_with_a_summary_and_a_code(server, tmp_path, capsys):
    """Kind: one question that is always turned away; as in ray-project/ray#59194."""
    rows = [{"question": f"Add 1 to {i} [{i}]", "answer": str(i + 1), "split": "train"} for i in range(4)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    proxy = server(always={"[2]": BAD["too long"]})
    line = ["ask", "m", "--task", str(tmp_path / "mine.jsonl"), "--base-url", proxy.url, "-n", "2"]
    line += ["--store", str(tmp_path / "said.jsonl")]
    for _ in range(2):
        assert main(line) == 1
        told = capsys.readouterr()
        assert "6 rationales of 4 questions" in told.out
        assert "warning: 1 questions were turned away, 2 answers" in told.err
        assert "maximum context length is 4096" in told.err
    assert len(proxy.journal) == 8
    proxy.always = {"": GOOD}
    assert main([*line, "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("0 requests, 8 of 8 answers in the store")
    assert main([*line, "--retry-rejected", "--dry-run"]) == 0 and len(proxy.journal) == 8
    assert capsys.readouterr().out.startswith("2 requests, 6 of 8 answers in the store")
    assert main([*line, "--retry-rejected"]) == 0 and len(proxy.journal) == 10


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (refused(401, "no"), "does not accept the key .status 401"),
        (refused(403, "Country not supported"), "does not accept the key .status 403.: Country"),
        (refused(400, "API key not valid. Please pass a valid API key."), "does not accept the key"),
        (refused(404, "The model `m` does not exist", code="model_not_found"), "status 404: The model `m`"),
        (Says({"detail": "Not Found"}, 404), "status 404: Not Found"),
        (refused(400, "m is not a valid model ID: model m unknown"), "status 400: m is not a valid"),
        (refused(402, "Insufficient credits"), "status 402: Insufficient credits"),
        (
            refused(429, "You exceeded your current quota", type="insufficient_quota"),
            "status 429: You exceeded",
        ),
        (refused(400, "Use 'max_completion_tokens'", code="unsupported_parameter"), "status 400: Use"),
        (Says({"error": {"code": 401, "message": "no"}}), "does not accept the key .status 401"),
        (Says(b"", 301, {"Location": "https://other.example/v1"}), "redirects to https://other.example/v1"),
    ],
)
def test_what_is_wrong_for_all_stops_at_once(server, ask, fault, words):
    proxy = server(rest=fault)
    with pytest.raises(
        ConnectionError, match=f"'m' at {proxy.url} gave no answer 0 .* in 1 requests: .*{words}"
    ):
        ask(proxy, concurrency=1)
    assert len(proxy.journal) == 1 and read_records(ask.store, Reply) == []


def test_many_questions_turned_away_and_none_answered_is_no_question_s_fault(server, ask):
    problems = [Problem(f"q{i}", f"Q {i}", "1", "", "", None, "mine") for i in range(40)]
    proxy = server(rest=refused(400, "temperature must be 1"))
    with pytest.raises(ConnectionError, match="temperature must be 1.*none was answered: .* retry_rejected"):
        ask(proxy, problems, concurrency=1)
    assert len(proxy.journal) == 10


@pytest.mark.parametrize("fault", [refused(500, "boom"), refused(403, "no luck"), refused(418, "teapot")])
def test_a_question_without_an_answer_is_left_for_the_next_run(server, ask, fault):
    proxy = server(always={"[2]": fault})
    with pytest.raises(ConnectionError, match="gave no answer 0 to 'p2'.*run again to go on"):
        ask(proxy, concurrency=1, retries=2)
    assert len(read_records(ask.store, Reply)) == 5
    proxy.always = {"": GOOD}
    assert len(ask(proxy)) == 6


def test_a_server_that_is_down_is_not_asked_for_every_question(server, ask):
    proxy = server(rest=refused(500, "boom"))
    with pytest.raises(ConnectionError, match="boom"):
        ask(proxy, concurrency=1, retries=4)
    assert len(proxy.journal) == 5 + 3 + 3


# --- as it was said -----------------------------------------------------------------------------------

THINKS = {"type": "thinking", "thinking": [{"type": "text", "text": "2, "}, {"type": "text", "text": "no 1"}]}


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": None, "reasoning_content": "hm"}, "", "hm"),
        ({"content": "", "reasoning": "hm"}, "", "hm"),
        ({"content": "1", "reasoning": "hm", "reasoning_content": "hm"}, "1", "hm"),
        ({"content": "1", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}, "1", "hm"),
        (
            {"content": [{"type": "text", "text": "The "}, {"type": "text", "text": "answer"}]},
            "The answer",
            "",
        ),
        ({"content": ["The ", "answer"]}, "The answer", ""),
        ({"content": [THINKS, {"type": "text", "text": "1"}]}, "1", "2, no 1"),
        ({"content": [{"type": "text", "text": {"value": "1"}}]}, "1", ""),
        ({"content": {"type": "text", "text": "1"}}, "1", ""),
        ({"content": []}, "", ""),
        ({"role": "assistant"}, "", ""),
        ({"content": "a\ud800b \ud83d\ude00"}, "a\ufffdb \U0001f600", ""),
        ({"content": "<think>2</think>1"}, "<think>2</think>1", ""),
    ],
)
def test_text_and_reasoning_are_kept_apart(server, ask, message, text, reasoning):
    """Kind: no content beside reasoning, and content as a list of parts; as in vllm-project/vllm#17609,
    vllm-project/vllm#52640, NousResearch/hermes-agent#4748, microsoft/agent-framework#6978.
    """
    got = one(ask, server(rest=said(message)))
    assert (got.text, got.reasoning, got.finish) == (text, reasoning, "stop" if text else "empty")


@pytest.mark.parametrize(
    "finish", ["error", "abort", "MAX_TOKENS", "tool_calls", "STOP", "eos", "", None, "length"]
)
@pytest.mark.parametrize("text", ["The answer is", None])
def test_why_it_ended_is_kept_as_it_is(server, ask, finish, text):
    """Kind: an unknown finish reason that is taken for stop; as in BerriAI/litellm#33968,
    BerriAI/litellm#23800.
    """
    got = one(ask, server(rest=said(text, finish)))
    assert got.finish == finish and got.text == (text or "")


@pytest.mark.parametrize(
    "message",
    [{"content": None, "refusal": "No."}, {"content": [{"type": "refusal", "refusal": "No."}]}],
)
def test_a_refusal_is_one(server, ask, message):
    got = one(ask, server(rest=said(message)))
    assert (got.text, got.finish) == ("No.", "refused")


def test_of_several_choices_the_first_is_taken(server, ask):
    choices = [{"index": i, "message": {"content": f"{i}"}, "finish_reason": "stop"} for i in (1, 0)]
    assert one(ask, server(rest=Says({"choices": choices}))).text == "0"


def test_completions_hold_texts(server, ask):
    body = {"choices": [{"index": 0, "text": "1\nProblem:\n2", "finish_reason": "abort"}]}
    got = one(ask, server(rest=Says(body)), chat=False)
    assert (got.text, got.finish) == ("1", "stop")


IN_CHOICE = Says({"choices": [{"error": {"code": 503, "message": "overloaded"}, "message": {"content": ""}}]})
UNUSABLE = {
    "an error": (Says({"error": {"message": "Provider returned error"}}), 2, "Provider returned error"),
    "with a code": (Says({"error": {"message": "Bad gateway", "code": 502}}), 2, "status 502: Bad gateway"),
    "in a choice": (IN_CHOICE, 2, "status 503: overloaded"),
    "instead of a message": (Says({"choices": [{"error": {"message": "boom"}}]}), 2, "boom"),
    "text": (Says({"error": "out of memory"}), 2, "out of memory"),
    "no JSON": (Says(b"<html>back soon</html>", kind="text/html"), 3, "text/html.*back soon"),
    "a list": (Says([1]), 3, "no JSON of an answer"),
    "null": (Says(None), 3, "no JSON of an answer"),
    "nothing": (Says(b""), 3, "no JSON of an answer"),
    "no choices": (Says({"choices": []}), 3, "without choices"),
    "empty choice": (Says({"choices": [{}]}), 3, "without choices"),
    "deep": (Says(b"[" * 100_000), 3, "no JSON of an answer"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_is_no_answer_is_asked_for_once_or_twice_more(server, ask, name):
    """Kind: an error inside a 200, and bodies without an answer; as in BerriAI/litellm#21755,
    SWE-agent/mini-swe-agent#902, nodetool-ai/nodetool#5755.
    """
    fault, requests, words = UNUSABLE[name]
    proxy = server(always={"[2]": fault})
    with pytest.raises(ConnectionError, match=f"'p2' in {requests} requests: .*{words}"):
        ask(proxy)
    assert len(proxy.journal) == 5 + requests and len(read_records(ask.store, Reply)) == 5


def test_what_has_no_text_is_warned_about_and_not_trained_on(server, tmp_path):
    """Kind: answers that end before their text begins; as in vllm-project/vllm#52640."""
    from negdistill.training.dataset import training_set

    thought = said({"content": None, "reasoning_content": "hm"}, "length")
    proxy = server(always={"[1]": thought, "[2]": BAD["too long"], "[3]": said(" ")})
    teacher = OpenAITeacher("m", proxy.url, max_tokens=20)
    with pytest.warns(UserWarning) as told:
        got = generate(PROBLEMS, teacher, 1, store=tmp_path / "s.jsonl", progress=False)
    words = " ".join(str(warning.message) for warning in told)
    assert "2 of 6 answers have no text (1 ended with 'length', 1 ended with 'empty')" in words
    assert (
        "1 of them have reasoning only: raise max_tokens" in words and "1 questions were turned away" in words
    )
    data = training_set(PROBLEMS, got, "lenient", "number")
    trained = [*data.examples("positives"), *data.examples("negatives")]
    assert sorted(example.question for example in trained) == ["p0", "p4", "p5"]


# --- by request ---------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path):
    def written(name, *questions):
        rows = [
            {"id": f"p{i}", "question": q, "answer": "1", "split": "train"} for i, q in enumerate(questions)
        ]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = load_task(str(tmp_path / name))
        return task, task.questions("train")

    return written


@pytest.mark.parametrize(
    "other", [{"model": "n"}, {"temperature": 0.9}, {"max_tokens": 30}, {"shots": 0, "task": False}]
)
@pytest.mark.parametrize("half", [False, True])
def test_requests_are_not_mixed(server, ask, mine, other, half):
    """Kind: answers of one model or setting that are taken for those of another; as in
    EleutherAI/lm-evaluation-harness#4063, qcri/LLMeBench#12.
    """
    task, problems = mine("mine.jsonl", "One?", "Two?")
    first = ask(server(), problems[:1] if half else problems)
    ask(server(rest=said("other")), problems[1:] if half else problems, **other)
    with pytest.raises(
        ValueError, match=r"answers to one request; .* are by 'm' .* and by '[mn]' .*a store of"
    ):
        task.rationales(problems, str(ask.store), 1)
    got = ask(server(), problems[:1] if half else problems)
    assert got == first and {reply.text for reply in got} == {"The answer is 1."}


def test_questions_of_one_id_are_not_mixed(server, ask, mine):
    task, problems = mine("mine.jsonl", "One?", "Two?")
    other, others = mine("other.jsonl", "Three?", "Four?")
    ask(server(), problems)
    lines = sorted(ask.store.read_text().splitlines(keepends=True))
    for arrived in (lines, lines[::-1]):
        ask.store.write_text("".join(arrived))
        with pytest.raises(ValueError, match="those under 'p0' and the others answer other questions"):
            other.rationales(others, str(ask.store), 1)
    ask(server(rest=said("other")), others)
    assert [r.text for r in task.rationales(problems, str(ask.store), 1)] == ["The answer is 1."] * 2
    assert [r.text for r in other.rationales(others, str(ask.store), 1)] == ["other"] * 2


# --- where nobody answers -----------------------------------------------------------------------------


def test_a_closed_port_is_said_at_once(tmp_path, monkeypatch):
    """Kind: a port where nobody listens, and silence; as in anomalyco/opencode#40330."""
    monkeypatch.setattr("negdistill.teachers.transport.CONNECT", 60)  # whoever waits says something else
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        with pytest.raises(ConnectionError, match=f"^'m' at {url} .* in 1 requests: Connection .*refused"):
            generate(PROBLEMS, OpenAITeacher("m", url), store=tmp_path / "s", progress=False)


def test_a_host_that_takes_long_is_said_before_it_is_found(tmp_path, monkeypatch):
    end, found = threading.Event(), []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found.append(end.wait(60)))
    monkeypatch.setattr("negdistill.teachers.transport.CONNECT", 0.3)
    with pytest.raises(ConnectionError, match="in 1 requests: .*no connection within 0.3 seconds"):
        generate(PROBLEMS, OpenAITeacher("m", "http://far/v1"), store=tmp_path / "s", progress=False)
    assert not found
    end.set()


def test_no_such_host(tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConnectionError, match="at http://far/v1 .* there is no such host"):
        generate(PROBLEMS, OpenAITeacher("m", "http://far/v1"), store=tmp_path / "s", progress=False)


@pytest.mark.parametrize(
    "fault", [Says({"detail": "Not Found"}, 404), Says(b"<html>hi</html>", kind="text/html")]
)
def test_a_base_url_without_v1_is_named(server, tmp_path, fault):
    """Kind: a base URL without its /v1; as in microsoft/TaskWeaver#11, tsundereraws/aisub-translator#2."""
    base = server(rest=fault).url.removesuffix("/v1")
    with pytest.raises(ConnectionError, match=f"at {base} .*a base_url often ends in /v1: {base}/v1"):
        generate(PROBLEMS, OpenAITeacher("m", base), 1, store=tmp_path / "s", progress=False)


def test_a_proxy_of_the_environment_is_asked(server, ask, monkeypatch):
    proxy = server()
    root = proxy.url.removesuffix("/v1").removeprefix("http://")
    monkeypatch.setenv("http_proxy", f"http://me:secret@{root}")
    far = OpenAITeacher("m", "http://far.example/v1")
    got = generate(PROBLEMS[:1], far, 1, store=ask.store, progress=False)
    assert got[0].text == "The answer is 1."
    assert [entry["path"] for entry in proxy.journal] == ["http://far.example/v1/chat/completions"]
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:1")
    with pytest.raises(ConnectionError, match="far.example by the proxy of the environment") as caught:
        generate(PROBLEMS, far, store=ask.store, progress=False)
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("http_proxy", "http://me:se/cret@127.0.0.1:1")  # its slash ends the address
    with pytest.raises(ConnectionError, match="no address that can be read") as caught:
        generate(PROBLEMS, far, store=ask.store, progress=False)
    assert "se" not in str(caught.value).replace("cannot", "").split()


@pytest.mark.parametrize(
    "address",
    [
        "http://:8080", "http://", "http://[::1", "http://me:secret@", "me:secret@:1", "http://me:secret@[::1",
        "http://me:secret@h:99999", "http://me:se/cret@h:1", "http://me:secret@a b", "http://me:secret@h\u2100x",
        "http://me:secret\udce9@127.0.0.1:1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_without_an_address_is_named_and_not_shown(tmp_path, monkeypatch, scheme, address):
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv(f"{scheme}_proxy", address)
    far = OpenAITeacher("m", f"{scheme}://far.example/v1")
    words = f"no address that can be read; {scheme}_proxy must be like http://host:port"
    with pytest.raises(ConnectionError, match=f"in 1 requests: .*{words}") as caught:
        generate(PROBLEMS, far, store=tmp_path / "s", progress=False)
    assert "cret" not in str(caught.value) and caught.value.__context__ is None


def test_what_can_be_no_name_of_a_host_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ConnectionError, match="Connection error: far..example: that is no name of a host"):
        generate(PROBLEMS, OpenAITeacher("m", "http://far..example/v1"), store=tmp_path / "s", progress=False)


def test_a_packed_answer_is_unpacked(server, ask):
    packed = gzip.compress(json.dumps(GOOD.body).encode())
    got = one(ask, server(rest=Says(packed, headers={"Content-Encoding": "gzip"})))
    assert got.text == "The answer is 1."
    with pytest.raises(ConnectionError, match="connection broke"):
        ask(server(rest=Says(b"x" * 99, headers={"Content-Encoding": "gzip"})), retries=0)


def test_a_wait_is_not_silent(server, ask, caplog):
    ask(server(refused(500, "boom"), refused(500, "boom")), concurrency=1)
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        "status 500: boom; asking again"
    ]


@pytest.mark.parametrize("where", ["head", "body"])
def test_the_limit_of_time_is_for_the_whole_request(server, ask, where):
    """Kind: a server that sends a byte at a time; as in encode/httpx#1450."""
    proxy = server(Says(b"{", drip=where))
    began = time.monotonic()
    got = ask(proxy, PROBLEMS[:1], timeout=0.5)
    assert len(got) == 1 and len(proxy.journal) > 1 and time.monotonic() - began < DRIPS * DRIP / 4


# --- money --------------------------------------------------------------------------------------------

STRANGE = [-5, -(10**12), 10**18, 1e300, "many", "12", True, 1.5, None, [], {}, 0]


@pytest.mark.parametrize("value", [*STRANGE, float("nan"), float("inf")])
def test_usage_that_cannot_be_is_unknown(server, ask, value):
    """Kind: usage that is zero, negative or no number; as in seangalliher/ProbOS#1078,
    synthetic-sciences/openscience#121.
    """
    proxy = server(rest=said("1", usage={"prompt_tokens": value, "completion_tokens": value}))
    got = one(ask, proxy)
    unknown = one(ask, server(rest=Says({"choices": said("1").body["choices"], "usage": value})), model="n")
    most = OpenAITeacher("m", proxy.url, max_tokens=20).most_tokens(PROBLEMS[0])
    assert (got.prompt_tokens, got.completion_tokens) == most
    assert (unknown.prompt_tokens, unknown.completion_tokens) == most


@pytest.mark.parametrize("value", [-(10**12), 10**18, float("nan"), float("inf")])
def test_no_usage_stretches_the_budget_or_hangs(server, ask, value):
    """Kind: usage that leaves a budget without effect; as in seangalliher/ProbOS#1078,
    SocialGouv/iterion#473.
    """
    proxy = server(rest=said("1", usage={"prompt_tokens": value, "completion_tokens": value}))
    most = OpenAITeacher("m", proxy.url, max_tokens=20).most_tokens(PROBLEMS[0])
    price = (PRICES[0] * most[0] + PRICES[1] * most[1]) / 1e6
    with pytest.raises(BudgetReached, match="3 of 6 answers"):
        ask(proxy, prices=PRICES, max_cost=3.1 * price)
    assert len(proxy.journal) == 3


@pytest.mark.parametrize("fault", ["dropped", Says(b"{", drip="body"), refused(500, "boom")])
def test_what_half_an_answer_may_have_cost_is_remembered_over_runs(server, ask, fault):
    """Kind: requests that are paid for and counted by nobody; as in tya5/reyn#3047, BerriAI/litellm#37365."""
    proxy = server(rest=fault)
    most = OpenAITeacher("m", proxy.url, max_tokens=20).most_tokens(PROBLEMS[0])
    price = (PRICES[0] * most[0] + PRICES[1] * most[1]) / 1e6
    settings = {"prices": PRICES, "max_cost": 4.5 * price, "timeout": 0.5, "retries": 1}
    for _ in range(3):
        with pytest.raises((BudgetReached, ConnectionError)):
            ask(proxy, PROBLEMS[:1], **settings)
    assert len(proxy.journal) == 4
    settings["timeout"] = 60
    got = ask(server(), PROBLEMS[:1], **settings | {"max_cost": 5.5 * price})
    with pytest.raises(BudgetReached, match="1 of 2 answers"):
        ask(server(), PROBLEMS[:2], **settings | {"max_cost": 5 * price})
    assert len(got) == 1


def test_what_a_killed_run_may_have_cost_is_remembered(server, ask, mine, tmp_path):
    """Kind: requests that are paid for and counted by nobody; as in tya5/reyn#3047."""
    proxy = server(rest=Says(b"{", drip="body"))
    task, problems = mine("mine.jsonl", *(f"{i}?" for i in range(4)))
    line = ["ask", "m", "--task", task.name, "--base-url", proxy.url, "--store", str(ask.store), "-n", "1"]
    line += ["--max-tokens", "20", "--concurrency", "2", "--prices", *map(str, PRICES)]
    process = subprocess.Popen([sys.executable, "-m", "negdistill", *line], stderr=subprocess.DEVNULL)
    while len(proxy.journal) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    most = OpenAITeacher("m", proxy.url, max_tokens=20).most_tokens(problems[0])
    price = (PRICES[0] * most[0] + PRICES[1] * most[1]) / 1e6
    with pytest.raises(BudgetReached, match="0 of 4 answers"):
        ask(server(), problems, prices=PRICES, max_cost=2.9 * price)
    with pytest.raises(BudgetReached, match="[1-3] of 4 answers"):
        ask(server(), problems, prices=PRICES, max_cost=3.1 * price, concurrency=1)


def test_prices_that_are_no_numbers_are_refused():
    for prices in ((1.0, float("nan")), (float("inf"), 1.0), ("1", "2"), (True, 1)):
        with pytest.raises(ValueError, match="prices must be two numbers, each at least 0"):
            OpenAITeacher("m", "http://x/v1", prices=prices)


# --- the key ------------------------------------------------------------------------------------------


def quoted():
    yield KEY
    yield from (
        "sk-Never%2Fto%2Bbe%26seen~42",
        "sk-Never%2fto%2bbe%26seen%7e42",
        "sk-Never%252Fto%252Bbe%2526seen~42",
    )
    yield KEY.replace("/", "\\/")  # so PHP writes JSON
    yield html.escape(KEY)
    yield html.escape(KEY).replace("&", "\\u0026").replace("/", "\\\\\\/")
    yield "".join(f"%{byte:02X}" for byte in KEY.encode())
    yield "".join(f"\\u{ord(one):04x}" for one in KEY)
    yield "".join(f"&#{ord(one)};" for one in KEY)
    yield KEY.encode().hex()
    for before in ("", "B", "Be", "Bearer "):
        yield base64.b64encode(f"{before}{KEY}".encode()).decode()
        yield base64.urlsafe_b64encode(f"{before}{KEY}:x".encode()).decode()


@pytest.mark.parametrize("spelled", [*quoted()])
def test_a_key_that_the_server_quotes_reaches_nothing(server, ask, spelled, monkeypatch, caplog):
    """Kind: a key that a server quotes, also URL-encoded; as in langwatch/langwatch#6252,
    langgenius/dify#39888.
    """
    caplog.set_level("DEBUG")
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    settings = {"key_env": "MY_KEY", "concurrency": 1}
    proxy = server(
        said({"content": f"a {spelled} b", "reasoning": f"c {spelled}"}, f"d {spelled}"),
        refused(400, f"e {spelled}", code=f"f {spelled}", metadata={"raw": json.dumps([spelled])}),
        refused(500, f"g {spelled}"),
        Says(f"h {spelled}".encode(), headers={"X-Key": spelled.replace("\n", "")}),
    )
    got = ask(proxy, PROBLEMS[:3], **settings)
    assert proxy.journal[0]["key"] == f"Bearer {KEY}"
    assert "***" in got[0].text and got[0].text.startswith("a ") and got[0].text.endswith(" b")
    with pytest.raises(ConnectionError) as stopped:
        ask(server(rest=refused(404, f"i {spelled}")), **settings)
    shown = " ".join([ask.store.read_text(), caplog.text, str(stopped.value), repr(got)])
    core = spelled[4:-6]
    assert core not in shown and json.dumps(core)[1:-1] not in shown and KEY not in shown and "***" in shown


def test_a_placeholder_is_no_key(server, ask, monkeypatch):
    monkeypatch.setenv("MY_KEY", "EMPTY")
    assert one(ask, server(rest=said("The set is EMPTY.")), key_env="MY_KEY").text == "The set is EMPTY."


@pytest.mark.parametrize("key", ["sk-\u00e4bcdefg", "sk-abc\ndef"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(server, ask, monkeypatch, key):
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(ValueError, match="the key in MY_KEY must be one line of ASCII") as caught:
        ask(server(), key_env="MY_KEY")
    assert "abc" not in str(caught.value) and "bcd" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://me:secret@host/v1", "me:secret@host/v1", "https://me:sec/secret@host", "http:/me:secret@host",
        "//me:secret@host/v1", "http://secret@host/v1", "http://host/v1?key=secret", "http://host:secret/v1",
        "http://me:secret@[bad/v1", "http://me%3Asecret%40host/v1", "http://host/v1#secret",
    ],
)  # fmt: skip
def test_a_password_in_a_base_url_is_refused_and_not_shown(url, monkeypatch, tmp_path, capsys):
    """Kind: a password in a URL that an error shows; as in av1155/houndarr#803,
    NorthlandPositronics/Cogtrix#903.
    """
    with pytest.raises(ValueError, match="base_url must") as caught:
        OpenAITeacher("m", url)
    assert "secret" not in str(caught.value) and caught.value.__cause__ is None
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(ValueError, match="base_url must") as caught:
        generate(PROBLEMS, OpenAITeacher("m"), store=tmp_path / "s", progress=False)
    assert "secret" not in str(caught.value)
    assert main(["ask", "m", "--task", "arithmetic", "--questions", "1", "--base-url", url]) == 1
    told = capsys.readouterr()
    assert "base_url must" in told.err and "secret" not in told.out + told.err


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "127.0.0.1:8000/v1",
            "must begin with http:// or https://; got '127.0.0.1:8000/v1'; write 'http://127",
        ),
        ("localhost:8000", "must begin with http:// or https://"),
        ("ftp://host/v1", "must begin with http:// or https://"),
        ("http:///v1", "must name a host"),
        ("http://host:99999/v1", "must name a host and, after a colon, a port"),
        ("http://host/v1/chat/completions", "must end before /completions and /chat/completions"),
        ("http://host/v1 ", "must hold neither spaces"),
        ("", "must begin with http"),
    ],
)
def test_an_address_that_is_none_is_refused_when_the_teacher_is_made(url, words):
    with pytest.raises(ValueError, match=f"base_url {words}"):
        OpenAITeacher("m", url)


def test_a_dry_run_touches_nothing(server, ask, tmp_path):
    ask(server())
    ask.store.write_bytes(ask.store.read_bytes()[:-40])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert plan(PROBLEMS, OpenAITeacher("m", "http://x/v1", max_tokens=20), 1, store=ask.store).requests == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_interrupt_while_threads_are_started_ends_the_asking(ask, monkeypatch):
    free, sent = threading.Event(), []

    def held(*_):
        sent.append(free.wait(60))
        return Response(200, {}, json.dumps(GOOD.body).encode())

    class Pool(ThreadPoolExecutor):
        def submit(self, function):
            if self._threads:
                raise KeyboardInterrupt
            return super().submit(function)

        def shutdown(self, wait=True):
            free.set()
            super().shutdown(wait)

    monkeypatch.setattr("negdistill.teachers.openai_server.post", held)
    monkeypatch.setattr("negdistill.teachers.openai_server.ThreadPoolExecutor", Pool)
    with pytest.raises(KeyboardInterrupt):
        generate(PROBLEMS, OpenAITeacher("m", "http://x/v1"), 1, store=ask.store, progress=False)
    assert sent == [True] and len(read_records(ask.store, Reply)) == 1


def test_answers_after_a_second_interrupt_are_written_into_no_other_file(tmp_path, monkeypatch):
    """The threads are not waited for then: the store is closed, and the number of its file soon another's."""
    sent, free, late = threading.Semaphore(0), threading.Event(), []

    def held(*_):
        sent.release()
        return free.wait(60) and Response(200, {}, json.dumps(GOOD.body).encode())

    def interrupted(futures):
        late.extend(futures)
        for _ in futures:
            sent.acquire()
        raise KeyboardInterrupt

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait=True):
            super().shutdown(wait=False)
            raise KeyboardInterrupt

    for name, other in (("post", held), ("wait", interrupted), ("ThreadPoolExecutor", Pool)):
        monkeypatch.setattr(f"negdistill.teachers.openai_server.{name}", other)
    teacher = OpenAITeacher("m", "http://x/v1", concurrency=2, max_tokens=20)
    with pytest.raises(KeyboardInterrupt):
        generate(PROBLEMS, teacher, 1, store=tmp_path / "s", progress=False)
    with ExitStack() as files:
        for name in "abcdefghijkl":
            files.enter_context(open(tmp_path / name, "wb"))
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        free.set()
        wait(late, 60)
    assert [type(one.exception()) for one in late] == [OSError, OSError]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with Store(tmp_path / "s") as store:  # what was bought and is lost still counts
        assert store.charges.completion["m"] == 2 * 20


def test_a_question_past_its_turns_is_given_up_at_once_where_others_were_meanwhile():
    """Two more requests are left to a question once another was given up; one at its fourth has none."""
    slot = Slot(PROBLEMS[0], 0, 0.5, "r")
    asking = _Asking(OpenAITeacher("m", "http://127.0.0.1:1/v1", retries=6), [slot], None, Budget(None, None))
    asked = []

    def send(*_):
        asked.append(1)
        if len(asked) == 4:
            asking.fruitless.add("p1")
        return Failure("busy", "skip", 99)

    asking._send, asking._sleep = send, lambda seconds: None
    asking._ask(slot)
    assert len(asked) == 4 and "in 4 requests: busy" in asking.skipped[0]


def test_a_plan_refuses_what_no_request_could_use(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_BASE_URL", "foo")
    for call in (plan, generate):
        with pytest.raises(ValueError, match="http"):
            call(PROBLEMS, OpenAITeacher("m"), store=tmp_path / "s")
        with pytest.raises(ValueError, match="n must be 1 at temperature 0, where all answers are the same"):
            call(PROBLEMS, LocalTeacher("embedded"), 2, 0, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    for wrong, message in (
        ({"prices": 5}, "prices"),
        ({"options": [1]}, "options"),
        ({"shots": "1"}, "shots"),
    ):
        with pytest.raises(TypeError, match=f"{message} must be"):
            OpenAITeacher("m", "http://x/v1", **wrong)


def test_one_and_one_point_zero_are_one_request():
    teacher = OpenAITeacher("m", "http://x/v1")
    one, other = (wanted_slots(PROBLEMS, teacher, 2, temperature) for temperature in (1, 1.0))
    assert [slot.key for slot in one] == [slot.key for slot in other] and one == other


def test_numbers_of_numpy_are_settings_of_a_teacher(server, ask):
    proxy = server()
    settings = {"max_tokens": np.int64(6), "options": {"top_p": np.float32(0.5)}, "timeout": np.int64(9)}
    said = ask(proxy, temperature=np.float32(0.5), **settings)
    assert len(said) == len(proxy.answered()) == len(PROBLEMS)
    plain = {"max_tokens": 6, "options": {"top_p": 0.5}, "timeout": 9}
    assert ask(proxy, temperature=0.5, **plain) == said and len(proxy.journal) == len(PROBLEMS)
