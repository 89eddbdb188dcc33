"""Teachers, against `transformers serve` with the embedded student, behind a proxy that fails on purpose."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack

import pytest
import torch
from faulty_proxy import Proxy
from serving import serving

from negdistill.__main__ import main
from negdistill.data import arithmetic
from negdistill.data.answers import grade
from negdistill.data.formats import read_records
from negdistill.data.prompts import chat_messages, completion_text
from negdistill.data.records import Problem, Reply
from negdistill.data.tasks import load_task
from negdistill.inference.sample import sample
from negdistill.teachers.generate import EmbeddedTeacher, LocalTeacher, generate, plan
from negdistill.teachers.ledger import BudgetReached
from negdistill.teachers.openai_server import OpenAITeacher
from negdistill.training.students import load_student

PROBLEMS = arithmetic.generate("train", 4, seed=0)
KEY = "sk-never-to-be-seen"
TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def student_folder(tmp_path_factory) -> str:
    """The embedded student with a chat template, drawing instead of taking the most probable token."""
    folder = tmp_path_factory.mktemp("student")
    student = load_student("embedded", device="cpu")
    student.tokenizer.chat_template = TEMPLATE
    student.model.generation_config.do_sample = True
    student.model.save_pretrained(folder)
    student.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def server(student_folder):
    with serving(student_folder) as address:
        yield address


@pytest.fixture
def faulty(server, monkeypatch):
    """Start a proxy with these faults before the server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("negdistill.teachers.openai_server.FIRST_WAIT", 0.02)
    with ExitStack() as running:

        def start(*faults) -> Proxy:
            return running.enter_context(Proxy(server, faults))

        yield start


@pytest.fixture
def ask(student_folder, tmp_path):
    """generate against a proxy, with few tokens, into one store."""

    def generated(proxy, problems=PROBLEMS, n=2, max_cost=None, **settings):
        settings = {"max_tokens": 6, "concurrency": 4, **settings}
        teacher = OpenAITeacher(student_folder, proxy.url, **settings)
        return generate(problems, teacher, n, 0.5, tmp_path / "store.jsonl", max_cost, progress=False)

    generated.store = tmp_path / "store.jsonl"
    return generated


def slots(n, problems=PROBLEMS):
    return [(problem.id, index) for problem in problems for index in range(n)]


def places(replies):
    return [(one.problem_id, one.index) for one in replies]


# --- a server -----------------------------------------------------------------------------------------


def test_answers_are_in_order_and_come_from_the_model(faulty, ask, student_folder):
    proxy = faulty()
    got = ask(proxy, n=3)
    assert places(got) == slots(3) and {one.teacher for one in got} == {student_folder}
    assert {one.finish for one in got} == {"length"} and {one.completion_tokens for one in got} == {6}
    student = load_student(student_folder, device="cpu")
    by_id = {problem.id: chat_messages(problem)[0]["content"] + "\n" for problem in PROBLEMS}
    lengths = {key: len(student.tokenizer(text)["input_ids"]) for key, text in by_id.items()}
    assert all(one.prompt_tokens == lengths[one.problem_id] for one in got)
    assert len({one.text for one in got}) > len(PROBLEMS)  # drawn, each by its own request
    assert proxy.most_under_way == 4
    asked = [entry["body"] for entry in proxy.journal]
    assert not any("n" in body or "stream" in body for body in asked)
    assert Counter(body["messages"][0]["content"] for body in asked) == {
        chat_messages(problem)[0]["content"]: 3 for problem in PROBLEMS
    }
    assert grade(PROBLEMS, got)


def test_completions_too(faulty, ask):
    proxy = faulty()
    got = ask(proxy, n=1, chat=False, shots=1, options={"top_p": 0.9, "max_tokens": 4})
    assert places(got) == slots(1) and {one.completion_tokens for one in got} <= {1, 2, 3, 4}
    for entry in proxy.journal:
        assert entry["path"] == "/v1/completions"
        body = {name: value for name, value in entry["body"].items() if name not in ("model", "prompt")}
        assert body == {"stop": ["\nProblem:"], "temperature": 0.5, "top_p": 0.9, "max_tokens": 4}
    assert {entry["body"]["prompt"] for entry in proxy.journal} == {
        completion_text(problem, 1) for problem in PROBLEMS
    }


FAILING = ("limited", "broken", "dropped", "slow", "half", "malformed", "html", "hollow")


def test_faults_lose_nothing_and_buy_nothing_twice(faulty, ask):
    proxy = faulty(*FAILING)
    got = ask(proxy, n=3, timeout=1.0)
    assert places(got) == slots(3)
    assert not proxy.faults and len(proxy.journal) == len(FAILING) + len(got)
    assert len(proxy.answered()) == len(got)
    assert sorted(places(read_records(ask.store, Reply))) == sorted(slots(3))
    assert ask(proxy, n=3) == got and len(proxy.journal) == len(FAILING) + len(got)


@pytest.mark.parametrize(("fault", "least"), [("limited", 1.0), ("limited by date", 0.9)])
def test_a_server_that_says_when_is_asked_then_and_by_nobody_before(faulty, ask, fault, least):
    proxy = faulty(fault)
    got = ask(proxy, PROBLEMS[:1], n=3, concurrency=1)
    first, *later = [entry["at"] for entry in proxy.journal]
    assert len(got) == len(later) == 3 and min(later) - first >= least


def test_waits_grow_and_end(faulty, ask, monkeypatch):
    monkeypatch.setattr("negdistill.teachers.openai_server.FIRST_WAIT", 0.1)
    proxy = faulty(*["broken"] * 4)
    message = r"gave no answer 0 to .* in 4 requests: status 500: .* What came before is stored; run again"
    with pytest.raises(ConnectionError, match=message):
        ask(proxy, PROBLEMS[:1], n=1, retries=3)
    at = [entry["at"] for entry in proxy.journal]
    waits = [after - before for before, after in zip(at, at[1:], strict=False)]
    assert len(at) == 4 and all(wait >= 0.05 * 2**turn for turn, wait in enumerate(waits))
    assert len(ask(proxy, PROBLEMS[:1], n=1)) == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("locked", "in 1 requests: the server does not accept the key .status 401"),
        ("poor", "in 1 requests: status 429: .*no money left"),
        ("patient", "in 1 requests: status 429: .*tomorrow"),
    ],
)
def test_what_cannot_get_better_ends_the_run(faulty, ask, fault, message):
    proxy = faulty(None, None, fault)
    with pytest.raises(ConnectionError, match=message):
        ask(proxy, concurrency=1)
    assert len(proxy.journal) == 3 and len(read_records(ask.store, Reply)) == 2
    assert places(ask(proxy)) == slots(2) and len(proxy.answered()) == len(slots(2))


def test_one_thread_that_gives_up_stops_the_others(faulty, ask):
    proxy = faulty("locked")
    with pytest.raises(ConnectionError, match="does not accept the key"):
        ask(proxy, n=8, concurrency=2)
    assert len(proxy.journal) < 6 and len(read_records(ask.store, Reply)) == len(proxy.answered())


def test_nobody_there(student_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        teacher = OpenAITeacher("m", url, retries=0, prices=(1.0, 1.0))
        with pytest.raises(ConnectionError, match=r"Connection error.*ConnectError"):
            generate(PROBLEMS, teacher, 1, store=tmp_path / "s", max_cost=1.0, progress=False)


def test_refused_empty_and_uncounted_answers_are_recorded(faulty, ask):
    proxy = faulty("refused", "filtered", "censored", "empty", "uncounted")
    got = ask(proxy, PROBLEMS[:1], n=6, concurrency=1)
    assert [one.finish for one in got] == ["refused", "refused", "refused", "empty", "length", "length"]
    assert got[0].text == "I would rather not." and got[2].text == got[3].text == "" != got[4].text
    assert (got[2].prompt_tokens, got[2].completion_tokens) == (0, 0)
    asked = chat_messages(PROBLEMS[0])[0]["content"]
    assert (got[4].prompt_tokens, got[4].completion_tokens) == (len(asked) + 32, 6)
    assert read_records(ask.store, Reply) == got
    assert ask(proxy, PROBLEMS[:1], n=6) == got and len(proxy.journal) == 6


def test_another_request_is_another_answer(faulty, ask):
    proxy = faulty()
    first = ask(proxy, n=1)
    more = ask(proxy, n=2)
    assert more[::2] == first and len(proxy.journal) == 8
    ask(proxy, n=1, max_tokens=5)
    ask(proxy, n=1, shots=1)
    changed = [Problem(PROBLEMS[0].id, "How much is 1 + 1?", "2", "", "", 1, "arithmetic")]
    assert ask(proxy, changed, n=1)[0] not in more
    assert len(proxy.journal) == 8 + 4 + 4 + 1
    assert ask(proxy, n=2) == more and len(proxy.journal) == 17


# --- killed -------------------------------------------------------------------------------------------

RUN = """
import sys
from negdistill.data.arithmetic import generate as problems
from negdistill.teachers.generate import generate
from negdistill.teachers.openai_server import OpenAITeacher
teacher = OpenAITeacher(sys.argv[1], sys.argv[2], 4, max_tokens=6)
generate(problems("train", 4, seed=0), teacher, 8, store=sys.argv[3], progress=False)
"""


def test_killed_and_run_again_buys_nothing_twice(faulty, ask, student_folder):
    proxy = faulty("broken", "half")
    process = subprocess.Popen([sys.executable, "-c", RUN, student_folder, proxy.url, str(ask.store)])
    while not ask.store.exists() or ask.store.read_bytes().count(b"\n") < 6:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -9
    before, sent = ask.store.read_bytes(), len(proxy.answered())
    stored = before.count(b"\n")
    assert 6 <= stored < 32 and sent - stored <= 4
    while proxy.under_way:
        time.sleep(0.01)
    asked = len(proxy.journal)
    got = ask(proxy, n=8)
    assert len(proxy.journal) - asked == 32 - stored  # what was stored is not asked for again
    assert ask.store.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    assert places(got) == slots(8) and len(read_records(ask.store, Reply)) == 32


# --- money --------------------------------------------------------------------------------------------

PRICES = (1000.0, 50_000.0)  # of a million tokens: 6 completion tokens cost 0.3


def test_a_plan_sends_nothing(faulty, ask, student_folder):
    proxy = faulty()
    teacher = OpenAITeacher(student_folder, proxy.url, max_tokens=6, prices=PRICES)
    planned = plan(PROBLEMS, teacher, 2, store=ask.store)
    most = [len(chat_messages(problem)[0]["content"]) + 32 for problem in PROBLEMS]
    assert (planned.requests, planned.stored) == (8, 0) and planned.tokens == (2 * sum(most), 48)
    assert planned.cost == planned.most == pytest.approx((2 * sum(most) * 1000 + 48 * 50_000) / 1e6)
    assert not ask.store.exists() and not proxy.journal
    got = ask(proxy, n=1, prices=PRICES)
    planned = plan(PROBLEMS, teacher, 2, store=ask.store)
    assert (planned.requests, planned.stored) == (4, 4) and len(proxy.journal) == 4
    assert planned.tokens == (sum(one.prompt_tokens for one in got), 24) and planned.cost < planned.most
    assert "4 requests, 4 of 8 answers in the store; about" in str(planned)
    assert "no prices given" in str(plan(PROBLEMS, OpenAITeacher("m", proxy.url), store=ask.store))


def test_the_budget_is_hard_over_all_runs(faulty, ask):
    proxy = faulty("broken", "dropped")
    settings = {"n": 4, "prices": PRICES, "max_cost": 3.0}
    message = r"max_cost=3.0 reached: .* spent, the next request may cost .* of 16 answers are in .*; raise"
    with pytest.raises(BudgetReached, match=message):
        ask(proxy, **settings)
    first = read_records(ask.store, Reply)
    with pytest.raises(BudgetReached):
        ask(proxy, **settings)
    kept = read_records(ask.store, Reply)
    spent = sum(PRICES[0] * one.prompt_tokens + PRICES[1] * one.completion_tokens for one in kept) / 1e6
    assert 2 <= len(first) <= len(kept) < 10 and spent <= 3.0
    assert len(proxy.answered()) == len(kept)
    assert places(ask(proxy, **settings | {"max_cost": 100.0})) == slots(4)


@pytest.mark.parametrize("fault", ["broken", "dropped", "half", "malformed", "hollow"])
def test_a_request_that_may_have_been_billed_counts_in_full(faulty, ask, fault):
    most = (1000 * (len(chat_messages(PROBLEMS[0])[0]["content"]) + 32) + 6 * 50_000) / 1e6
    settings = {"n": 1, "prices": PRICES, "max_cost": 1.5 * most}
    proxy = faulty(fault)
    with pytest.raises(BudgetReached, match="0 of 1 answers"):
        ask(proxy, PROBLEMS[:1], **settings)
    assert len(proxy.journal) == 1
    if fault == "broken":  # once is enough: a request that was turned away does not count
        with pytest.raises(BudgetReached, match="0 of 1 answers"):  # what it may have cost is remembered
            ask(faulty(), PROBLEMS[:1], **settings)
        ask.store.with_name("store.jsonl.charges").unlink()
        assert len(ask(faulty("limited"), PROBLEMS[:1], **settings)) == 1
        assert not ask.store.with_name("store.jsonl.charges").exists()


def test_progress_tells_the_cost(faulty, student_folder, tmp_path, capsys):
    teacher = OpenAITeacher(student_folder, faulty().url, max_tokens=6, prices=PRICES)
    generate(PROBLEMS[:2], teacher, 1, store=tmp_path / "s")
    shown = capsys.readouterr().err
    assert "2 requests, 0 of 2 answers in the store; about" in shown and "cost 0.7" in shown


# --- the key ------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_appears_nowhere(faulty, ask, monkeypatch, caplog, capsys, student_folder):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-another-server")
    errors = []
    with pytest.raises(ConnectionError) as caught:
        ask(faulty("locked"), n=1, key_env="MY_KEY")
    errors.append(caught.value)
    with pytest.raises(ConnectionError) as caught:
        ask(faulty("broken"), n=1, key_env="MY_KEY", retries=0)
    errors.append(caught.value)
    proxy = faulty("broken")
    ask(proxy, n=1, key_env="MY_KEY")
    with pytest.warns(UserWarning, match=r"turned away.*\*\*\*"):
        ask(faulty("bad"), n=2, key_env="MY_KEY")
    assert {entry["key"] for entry in proxy.journal} == {f"Bearer {KEY}"}
    teacher = OpenAITeacher(student_folder, proxy.url, key_env="MY_KEY")
    places = [repr(teacher), str(vars(teacher)), caplog.text, *capsys.readouterr(), ask.store.read_text()]
    for error in errors:
        assert error.__cause__ is None and error.__context__ is None
        places.append(repr(error))
    assert "***" in str(errors[1]) and not [place for place in places if KEY in place]
    assert [path.name for path in ask.store.parent.iterdir() if KEY in path.read_text()] == []


def test_a_key_goes_to_nobody_it_is_not_meant_for(faulty, ask, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    proxy = faulty()
    ask(proxy, n=1)
    assert KEY not in json.dumps(proxy.journal)
    monkeypatch.delenv("OPENAI_API_KEY")
    for teacher, name in (
        (OpenAITeacher("m"), "OPENAI_API_KEY"),
        (OpenAITeacher("m", proxy.url, key_env="NO_SUCH_KEY"), "NO_SUCH_KEY"),
    ):
        assert plan(PROBLEMS, teacher, store=tmp_path / "s").requests == 32
        with pytest.raises(ValueError, match=f"key_env must name an environment .* {name} is not set"):
            generate(PROBLEMS, teacher, store=tmp_path / "s", progress=False)


# --- without a server ---------------------------------------------------------------------------------


def test_the_command_line_asks_and_a_dry_run_sends_nothing(faulty, tmp_path, capsys, student_folder):
    store, proxy = tmp_path / "said.jsonl", faulty()
    line = ["ask", student_folder, "--task", "arithmetic", "--questions", "2", "-n", "2", "--max-tokens", "8"]
    line += ["--base-url", proxy.url, "--store", str(store), "--prices", "1", "2", "--completions"]
    assert main([*line, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("4 requests, 0 of 4 answers in the store") and "cost" in told
    assert not store.exists() and not proxy.journal
    assert main(line) == 0
    assert "4 rationales of 2 questions" in capsys.readouterr().out and len(proxy.journal) == 4
    asked = load_task().questions("train", 2)
    assert read_records(store, Reply) and load_task().rationales(asked, str(store), 2)
    assert main([*line, "--max-cost", "-1"]) == 1
    assert "max_cost must be at least 0" in capsys.readouterr().err
    assert main([*line, "--local"]) == 1
    assert "--local asks no server; leave out --base-url" in capsys.readouterr().err


@pytest.mark.parametrize("strength", ["weak", "strong"])
def test_the_embedded_teacher_is_teach(tmp_path, strength):
    teacher, taught = EmbeddedTeacher(strength, seed=3), arithmetic.teach(PROBLEMS, strength, 8, 3)
    for n in (3, 8, 8):
        got = generate(PROBLEMS, teacher, n, store=tmp_path / "s", max_cost=0.0, progress=False)
        same = [(one.problem_id, one.index, one.text, one.teacher) for one in got]
        wanted = [one for one in taught if one.index < n]
        assert same == [(one.problem_id, one.index, one.text, one.teacher) for one in wanted]
    assert len(read_records(tmp_path / "s", Reply)) == 32


@pytest.mark.parametrize("chat", [False, True])
def test_a_local_teacher_is_sample(tmp_path, student_folder, chat, monkeypatch):
    monkeypatch.setattr("negdistill.teachers.generate.ROWS", 4)  # a write for every problem or two
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    teacher = LocalTeacher(student_folder if chat else "embedded", max_tokens=12, seed=5)
    student = load_student(teacher.model)
    if chat:
        prompts = {problem.id: chat_messages(problem)[0]["content"] + "\n" for problem in PROBLEMS}
    else:
        prompts = {problem.id: completion_text(problem) for problem in PROBLEMS}
    drawn = sample(student, prompts, 3, 0.7, max_new_tokens=12, seed=5, progress=False)
    for n in (2, 3):
        got = generate(PROBLEMS, teacher, n, 0.7, tmp_path / "s", progress=False)
        wanted = [one for one in drawn if one.index < n]
        assert places(got) == places(wanted)
        assert [one.text for one in got] == [one.text.partition("\nProblem:")[0].strip() for one in wanted]
        assert [one.completion_tokens for one in got] == [one.tokens for one in wanted]
        assert all(one.finish in ("length", "stop", "empty") for one in got)
    torch.set_num_threads(before)
    assert len(read_records(tmp_path / "s", Reply)) == 12 and len({one.request for one in got}) == 4


def test_a_local_model_ends_its_turn_with_any_end_of_its_settings(tmp_path):
    """generation_config.eos_token_id of a chat model is a list, and its turns end with what texts do not.

    Kind: a chat model that runs on past the end of its turn; as in huggingface/lighteval#1279,
    huggingface/lighteval#115.
    """
    student = load_student("embedded", device="cpu")
    rules = {"n": 1, "temperature": 0.0, "max_new_tokens": 12}
    prompts = {problem.id: completion_text(problem) for problem in PROBLEMS}
    free = sample(student, prompts, **rules, progress=False)
    turn = free[0].ids[4]
    student.model.generation_config.eos_token_id = [student.tokenizer.eos_token_id, turn]
    student.model.save_pretrained(tmp_path / "chat")
    student.tokenizer.save_pretrained(tmp_path / "chat")
    teacher = LocalTeacher(str(tmp_path / "chat"), max_tokens=12)
    first = generate(PROBLEMS[:1], teacher, 1, 0.0, tmp_path / "s", progress=False)[0]
    said = free[0].ids[: free[0].ids.index(turn)]
    assert first.text == student.tokenizer.decode(said, skip_special_tokens=True).strip()
    assert first.completion_tokens == len(said) + 1 < free[0].tokens and first.finish == "stop"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n": 0}, "n must be at least 1; got 0"),
        ({"temperature": -0.1}, "temperature must be at least 0; got -0.1"),
        ({"problems": []}, "problems must not be empty; there is nothing to ask"),
        ({"problems": PROBLEMS[:1] * 2}, "problems must have distinct ids; got .* twice; ask set by set"),
        (
            {"max_cost": 1.0, "teacher": OpenAITeacher("m", "http://x")},
            "max_cost needs a teacher with prices",
        ),
        ({"max_cost": -1.0}, "max_cost must be at least 0; got -1.0"),
    ],
)
def test_bad_input_is_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        generate(**{"problems": PROBLEMS, "teacher": EmbeddedTeacher(), "store": tmp_path / "s", **wrong})
    assert not (tmp_path / "s").exists()


def test_an_unknown_strength_is_refused():
    with pytest.raises(ValueError, match="strength must be one of 'weak', 'strong'; got 'best'"):
        EmbeddedTeacher("best")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "weak"}, "teacher must be a teacher, such as OpenAITeacher.*; got 'weak', a str"),
        (
            {"teacher": EmbeddedTeacher},
            r"teacher must be a teacher, EmbeddedTeacher\(\.\.\.\); got the class",
        ),
        ({"problems": ["a"]}, "problems must be a list of Problem, .*; got 'a', a str"),
        ({"store": 3}, "store must be a path, as a text or a Path; got 3, a int"),
        ({"n": "8"}, "n must be a whole number; got '8', a str"),
        ({"max_cost": "5"}, "max_cost must be a number; got '5', a str"),
        ({"progress": "no"}, "progress must be True or False; got 'no', a str"),
        ({"retry_rejected": 1}, "retry_rejected must be True or False; got 1, a int"),
    ],
)
def test_arguments_of_another_kind_are_refused(changes, message, tmp_path):
    given = {"problems": PROBLEMS, "teacher": EmbeddedTeacher(), "store": tmp_path / "said.jsonl"}
    with pytest.raises(TypeError, match=message):
        generate(**given | changes)
    assert not [*tmp_path.iterdir()]
    if not changes.keys() - {"teacher", "problems", "store", "retry_rejected", "max_cost"}:
        with pytest.raises(TypeError, match=message):
            plan(**given | changes)


def test_a_plan_refuses_what_would_be_refused_later(tmp_path):
    given = {"problems": PROBLEMS, "teacher": OpenAITeacher("m", "http://127.0.0.1:1"), "max_cost": 5.0}
    for call in (plan, generate):
        with pytest.raises(ValueError, match="max_cost needs a teacher with prices; set prices of 'm'"):
            call(**given, store=tmp_path / "said.jsonl")
        for value in (-1, float("nan")):
            with pytest.raises(ValueError, match=f"max_cost must be at least 0; got {value}"):
                call(
                    **given | {"teacher": EmbeddedTeacher(), "max_cost": value}, store=tmp_path / "said.jsonl"
                )
        with pytest.raises(ValueError, match="store must be plain text, .*said.jsonl.gz: leave out .gz"):
            call(PROBLEMS, EmbeddedTeacher(), store=tmp_path / "said.jsonl.gz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["max_tokens", "shots", "seed"])
def test_a_local_teacher_checks_its_numbers_before_it_is_loaded(name):
    with pytest.raises(ValueError, match=f"{name} must be at least [01]; got -1"):
        LocalTeacher("nowhere", **{name: -1})
