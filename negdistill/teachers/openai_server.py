"""Served: a teacher behind an OpenAI-compatible server, asked by several threads at once.

    slot --hold the most it can cost--> request --whole answer--> settle, store     one request per sample
                                           '----429, 5xx, no or half an answer--> wait, ask again

A wait doubles from FIRST_WAIT to LONGEST_WAIT seconds, less a random half; where the server says Retry-After,
all threads wait that long. The key is read from the environment when the asking begins and kept nowhere: what
goes into messages is the package's own wording and the server's, with the key cut out.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from negdistill.data.prompts import STOP, chat_messages, completion_text, most_prompt_tokens
from negdistill.data.records import Problem, Reply
from negdistill.teachers.ledger import Budget, Keep, Slot, cost

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

NO_KEY = "no-key"  # the openai package wants some text
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds
LONGEST_RETRY_AFTER = 600.0  # seconds; a server that asks for more has given up for today
LIMITS = ("max_tokens", "max_completion_tokens")  # names under which servers take the longest answer
FIXED = ("model", "prompt", "messages", "n", "stream")


class Failure(NamedTuple):
    """A request without an answer.

    why    in words, without the key     again  whether to ask again     after  seconds to wait before that
    spent  whether the tokens may count all the same
    """

    why: str
    again: bool
    after: float = 0.0
    spent: bool = False


@dataclass(frozen=True)
class OpenAITeacher:
    """A model of any OpenAI-compatible server; needs the extra `teachers`.

    base_url     such as http://127.0.0.1:8000/v1; None is what the openai package takes
    concurrency  requests at once     timeout  seconds of silence after which a request is given up
    chat         whether to ask for chat completions; False: completions, for base models
    shots        worked examples, as in `prompts`     max_tokens  longest answer
    task         whether it is told what to do; False: the bare question, for a student that `export` wrote
    prices       of a million prompt tokens and of a million completion tokens, in any currency
    options      further fields of the request, such as {"top_p": 0.9}; None leaves a field out, for example
                 {"max_tokens": None, "max_completion_tokens": 4096, "temperature": None}
    retries      how often to ask again for one answer
    key_env      name of the environment variable with the key. None: OPENAI_API_KEY for a server without
                 base_url; with one, no key is sent
    """

    model: str
    base_url: str | None = None
    concurrency: int = 8
    timeout: float = 60.0
    _: KW_ONLY
    chat: bool = True
    shots: int = 0
    task: bool = True
    max_tokens: int = 1024
    prices: tuple[float, float] | None = None
    options: Mapping[str, object] | None = None
    retries: int = 8
    key_env: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("concurrency", 1), ("max_tokens", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")
        if not self.timeout > 0:
            raise ValueError(f"timeout must be more than 0 seconds; got {self.timeout}")
        if self.prices is not None and not (len(self.prices) == 2 and min(self.prices) >= 0):
            raise ValueError(f"prices must be two numbers, each at least 0; got {self.prices}")
        if taken := sorted(set(self.options or ()) & set(FIXED)):
            raise ValueError(
                f"options must not set {taken[0]!r}, which the teacher itself does; leave it out"
            )
        if self._limit is None:
            raise ValueError(f"options must leave a limit of the answer; set one of {', '.join(LIMITS)}")
        if self.base_url and "@" in urlsplit(self.base_url).netloc:
            raise ValueError("base_url must not hold a name or password; put the key into the environment")

    @property
    def name(self) -> str:
        return self.model

    @property
    def _limit(self) -> int | None:
        fields = {"max_tokens": self.max_tokens, **(self.options or {})}
        return max((fields[name] for name in LIMITS if fields.get(name) is not None), default=None)

    def _body(self, problem: Problem, temperature: float) -> dict[str, object]:
        if self.chat:
            asked: dict[str, object] = {"messages": chat_messages(problem, self.shots, self.task)}
        else:
            asked = {"prompt": completion_text(problem, self.shots, self.task), "stop": [STOP]}
        settings = {"temperature": temperature, "max_tokens": self.max_tokens, **(self.options or {})}
        return {"model": self.model} | asked | {name: v for name, v in settings.items() if v is not None}

    def request(self, problem: Problem, temperature: float) -> object:
        return self._body(problem, temperature)

    def most_tokens(self, problem: Problem) -> tuple[int, int]:
        if not self.chat:
            return most_prompt_tokens([completion_text(problem, self.shots, self.task)]), self._limit
        turns = chat_messages(problem, self.shots, self.task)
        return most_prompt_tokens([turn["content"] for turn in turns]), self._limit

    def answer(self, slots: Sequence[Slot], keep: Keep, budget: Budget) -> None:
        if slots:
            _Asking(self, slots, keep, budget).run()


class _Asking:
    """One run over slots: the threads, and what they share."""

    def __init__(self, teacher: OpenAITeacher, slots: Sequence[Slot], keep: Keep, budget: Budget) -> None:
        self.teacher, self.keep, self.budget = teacher, keep, budget
        self.count, self.slots = min(teacher.concurrency, len(slots)), iter(slots)
        self.next, self.stop, self.closed_until = threading.Lock(), threading.Event(), 0.0

    def run(self) -> None:
        with _client(self.teacher) as client, ThreadPoolExecutor(self.count) as pool:
            futures = [pool.submit(self._work, client) for _ in range(self.count)]
            try:
                wait(futures)
            finally:
                self.stop.set()  # interrupted: what is under way is still stored
        for future in futures:
            future.result()

    def _work(self, client: OpenAI) -> None:
        try:
            while not self.stop.is_set():
                with self.next:
                    slot = next(self.slots, None)
                if slot is None:
                    return
                if reply := self._ask(client, slot):
                    self.keep(reply)
        except BaseException:
            self.stop.set()
            raise

    def _ask(self, client: OpenAI, slot: Slot) -> Reply | None:
        """The answer for a slot; None where the run is stopped before it came."""
        teacher, tokens = self.teacher, self.teacher.most_tokens(slot.problem)
        most = cost(teacher.prices, *tokens) or 0.0
        for turn in range(teacher.retries + 1):
            self._sleep(self.closed_until - time.monotonic())
            self.budget.hold(most)
            if self.stop.is_set():
                self.budget.settle(most, 0.0)
                return None
            answer = _send(client, teacher, slot, tokens)
            if isinstance(answer, Reply):
                paid = cost(teacher.prices, answer.prompt_tokens, answer.completion_tokens)
                self.budget.settle(most, paid or 0.0)
                return answer
            self.budget.settle(most, most if answer.spent else 0.0)
            if not answer.again or turn == teacher.retries:
                break
            if answer.after:
                self.closed_until = max(self.closed_until, time.monotonic() + answer.after)
            self._sleep(min(LONGEST_WAIT, FIRST_WAIT * 2**turn) * random.uniform(0.5, 1))
        raise ConnectionError(
            f"{teacher.model!r} gave no answer {slot.index} to {slot.problem.id!r} in {turn + 1} requests: "
            f"{answer.why}. What came before is stored; run again to go on"
        )

    def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.stop.wait(seconds)


# --- one request --------------------------------------------------------------------------------------


def _key(teacher: OpenAITeacher) -> str:
    """The key from the environment, NO_KEY for a server that wants none."""
    name = teacher.key_env or (None if teacher.base_url else "OPENAI_API_KEY")
    if name and not os.environ.get(name):
        raise ValueError(f"key_env must name an environment variable with the key; {name} is not set")
    return os.environ[name] if name else NO_KEY


def _client(teacher: OpenAITeacher) -> OpenAI:
    try:
        from openai import OpenAI
    except ImportError as error:
        raise ImportError(
            "OpenAITeacher needs the openai package: pip install 'negdistill[teachers]'"
        ) from error
    # one try per call: the budget has to see every request
    return OpenAI(api_key=_key(teacher), base_url=teacher.base_url, timeout=teacher.timeout, max_retries=0)


def _send(client: OpenAI, teacher: OpenAITeacher, slot: Slot, most: tuple[int, int]) -> Reply | Failure:
    """One request. Errors of the package end here, since they carry the headers that were sent."""
    import openai

    body = teacher._body(slot.problem, slot.temperature)
    path = "/chat/completions" if teacher.chat else "/completions"
    try:
        row = client.post(path, body=body, cast_to=object)
    except openai.APIStatusError as error:
        return _refusal(error, client.api_key, teacher, slot)
    except openai.APIConnectionError as error:
        cause = type(error.__cause__ or error).__name__
        return Failure(f"{error.message} ({cause})", True, spent=not cause.startswith("Connect"))
    except (openai.OpenAIError, ValueError) as error:
        return Failure(f"the answer cannot be read ({type(error).__name__})", True, spent=True)
    try:
        return _read(row, slot, teacher, most)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        return Failure(f"the answer lacks what it must have ({type(error).__name__})", True, spent=True)


def _read(row: dict, slot: Slot, teacher: OpenAITeacher, most: tuple[int, int]) -> Reply:
    choice, usage = row["choices"][0], row.get("usage") or {}
    text, refusal = choice.get("text"), None
    if teacher.chat:
        text, refusal = choice["message"].get("content"), choice["message"].get("refusal")
    reason = choice.get("finish_reason")
    finish = "length" if reason == "length" else "stop"
    if refusal or reason == "content_filter":
        finish = "refused"
    elif not teacher.chat:
        text, end, _ = (text or "").partition(STOP)  # of servers that do not stop there
        finish = "stop" if end else finish
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    counts = (most[0] if prompt is None else int(prompt), most[1] if completion is None else int(completion))
    return slot.reply(str(text or refusal or ""), teacher.name, finish, *counts)


def _refusal(error: APIStatusError, key: str, teacher: OpenAITeacher, slot: Slot) -> Reply | Failure:
    """What a status of 400 or more means; only where the server broke down may the request count."""
    status, code = error.status_code, error.code
    if status == 400 and code == "content_filter":
        return slot.reply("", teacher.name, "refused", 0, 0)
    if status in (401, 403):  # what servers say here may quote the key
        return Failure(f"the server does not accept the key (status {status})", False)
    said = " ".join(str(error.message).replace(key, "***").split())[:300]
    after = retry_after(error.response.headers)
    again = (status in (408, 409, 429) or status >= 500) and code != "insufficient_quota"
    again = again and after <= LONGEST_RETRY_AFTER
    return Failure(f"status {status}: {said}", again, after, spent=status >= 500)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait, as seconds, milliseconds or a date; 0 where it does not say."""
    if headers.get("retry-after-ms", "").isdecimal():
        return int(headers["retry-after-ms"]) / 1000
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
