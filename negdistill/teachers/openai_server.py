"""Served: a teacher behind an OpenAI-compatible server, asked by several threads at once.

    slot --hold the most it can cost--> request --answer, or the question is turned away--> store, settle
                                           |----429, 5xx, half an answer--> wait, ask again, at last skip
                                           '----key, money, model or address are wrong--> nobody asks any more

A wait doubles from FIRST_WAIT to LONGEST_WAIT seconds, less a random half; where the server says Retry-After,
all threads wait that long. The key is read from the environment when the asking begins and kept nowhere; what
the server says is stored and shown with the key cut out.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from types import NoneType

from negdistill.checks import check_each, check_type, check_whole, json_number
from negdistill.data.prompts import STOP, chat_messages, completion_text, most_prompt_tokens
from negdistill.data.records import Problem
from negdistill.teachers import replies
from negdistill.teachers.ledger import REJECTED, Budget, Keep, Slot, cost
from negdistill.teachers.masking import masker
from negdistill.teachers.replies import ALWAYS, Answer, Failure
from negdistill.teachers.transport import BrokenError, ConnectError, check_url, post

OPENAI = "https://api.openai.com/v1"
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds
LIMITS = ("max_tokens", "max_completion_tokens")  # names under which servers take the longest answer
FIXED = ("model", "prompt", "messages", "n", "stream")
HOPELESS = 10  # questions turned away before any was answered: then it is not the questions
FRUITLESS = 3  # questions given up one after the other, none answered in between: then it is the server
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenAITeacher:
    """A model of any OpenAI-compatible server.

    base_url     such as http://127.0.0.1:8000/v1; None: OPENAI_BASE_URL, else OpenAI's own
    concurrency  requests at once     timeout  seconds until the whole answer must be there
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
        if not isinstance(self.model, str) or not self.model:
            raise ValueError(f"model must be the name of a model at the server; got {self.model!r}")
        for name, least in (("concurrency", 1), ("max_tokens", 1), ("retries", 0), ("shots", 0)):
            check_whole(name, getattr(self, name), least)
        if not _number(self.timeout) or not 0 < self.timeout <= threading.TIMEOUT_MAX:
            raise ValueError(f"timeout must be more than 0 seconds; got {self.timeout}")
        if self.prices is not None:
            prices = check_each("prices", self.prices, object, "two numbers")
            if len(prices) != 2 or not all(_number(one) and 0 <= one < float("inf") for one in prices):
                raise ValueError(f"prices must be two numbers, each at least 0; got {prices}")
            object.__setattr__(self, "prices", prices)
        check_type("options", self.options, (Mapping, NoneType), "a dictionary of fields, or None")
        if taken := sorted(set(self.options or ()) & set(FIXED)):
            raise ValueError(
                f"options must not set {taken[0]!r}, which the teacher itself does; leave it out"
            )
        if self._limit is None:
            raise ValueError(f"options must leave a limit of the answer; set one of {', '.join(LIMITS)}")
        if self.base_url is not None:
            check_url(self.base_url)

    @property
    def name(self) -> str:
        return self.model

    @property
    def _limit(self) -> int | None:
        fields = {"max_tokens": self.max_tokens, **(self.options or {})}
        limits = {name: fields[name] for name in LIMITS if fields.get(name) is not None}
        for name, value in limits.items():
            check_whole(name, value, 1)
        return max(limits.values(), default=None)

    @property
    def _base(self) -> str:
        base = self.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
        check_url(base)
        return base.rstrip("/")

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

    def check(self, n: int, temperature: float) -> None:
        """ValueError for an address in the environment that is none. A key is not needed to plan."""
        check_url(self._base)

    def answer(self, slots: Sequence[Slot], keep: Keep, budget: Budget) -> None:
        if slots:
            _Asking(self, slots, keep, budget).run()


def _number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


class _Asking:
    """One run over slots: the threads, and what they share."""

    def __init__(self, teacher: OpenAITeacher, slots: Sequence[Slot], keep: Keep, budget: Budget) -> None:
        self.teacher, self.keep, self.budget = teacher, keep, budget
        self.count, self.slots = min(teacher.concurrency, len(slots)), iter(slots)
        self.url = teacher._base + ("/chat/completions" if teacher.chat else "/completions")
        key = _key(teacher)
        self.headers, self.mask = {"Authorization": f"Bearer {key}"} if key else {}, masker(key)
        self.next, self.stop, self.closed_until = threading.Lock(), threading.Event(), 0.0
        self.reached = self.answered = False  # whether the server has said anything, and an answer
        self.turned_away: set[str] = set()  # questions, as in the next
        self.fruitless: set[str] = set()  # given up since the last answer
        self.skipped: list[str] = []  # why, for each answer that is left for another run
        self.logged: set[str] = set()

    def run(self) -> None:
        with ThreadPoolExecutor(self.count) as pool:
            try:
                futures = [pool.submit(self._work) for _ in range(self.count)]
                wait(futures)
            finally:
                self.stop.set()  # interrupted: what is under way is still stored
        for future in futures:
            future.result()
        if self.skipped:
            more = f" So it went with {len(self.skipped)} answers." if len(self.skipped) > 1 else ""
            raise ConnectionError(self.skipped[0] + more)

    def _work(self) -> None:
        try:
            while not self.stop.is_set():
                with self.next:
                    slot = next(self.slots, None)
                if slot is None:
                    return
                self._ask(slot)
        except BaseException:
            self.stop.set()
            raise

    def _ask(self, slot: Slot) -> None:
        """Ask for a slot until it is answered, turned away or given up, or the run is stopped."""
        teacher, tokens, met = self.teacher, self.teacher.most_tokens(slot.problem), Counter()
        for turn in range(teacher.retries + 1):
            self._sleep(self.closed_until - time.monotonic())
            answer = self._send(slot, tokens)
            if answer is None:
                return
            met[answer.tries] += 1
            last = min(2, teacher.retries) if self.fruitless else teacher.retries
            if met[answer.tries] > answer.tries or turn >= last:
                break
            if answer.after:
                self.closed_until = max(self.closed_until, time.monotonic() + answer.after)
            self._say(f"{answer.why}; asking again")
            self._sleep(min(LONGEST_WAIT, FIRST_WAIT * 2**turn) * random.uniform(0.5, 1))
        self._give_up(slot, answer, turn + 1)

    def _send(self, slot: Slot, tokens: tuple[int, int]) -> Failure | None:
        """One request, and its answer into the store; None where that is done, or the run is stopped."""
        most = cost(self.teacher.prices, *tokens) or 0.0
        self.budget.hold(most)
        paid = most
        try:
            if self.stop.is_set():
                paid = 0.0
                return None
            body = json.dumps(self.teacher._body(slot.problem, slot.temperature), default=json_number)
            self.budget.note(*tokens)
            answer = self._post(body.encode(), tokens)
            spent = isinstance(answer, Failure) and answer.spent
            if isinstance(answer, Answer):
                paid = cost(self.teacher.prices, answer.prompt_tokens, answer.completion_tokens) or 0.0
            elif not spent:
                paid = 0.0
        finally:
            self.budget.settle(most, paid)
        if isinstance(answer, Answer):
            self.answered = True
            self.fruitless.clear()
            self._store(slot, answer)
        if not spent:
            self.budget.note(-tokens[0], -tokens[1])
        return answer if isinstance(answer, Failure) else None

    def _post(self, body: bytes, tokens: tuple[int, int]) -> Answer | Failure:
        try:
            response = post(self.url, body, self.headers, self.teacher.timeout)
        except ConnectError as error:
            tries = ALWAYS if self.reached else 0
            why = self.mask(f"Connection error: {error} (ConnectError)")
            return Failure(why, "skip" if self.reached else "stop", tries)
        except BrokenError as error:
            return Failure(self.mask(str(error)), "skip", ALWAYS, spent=True)
        self.reached = True
        return replies.read(response, self.teacher.chat, tokens, self.mask)

    def _store(self, slot: Slot, answer: Answer, error: str = "") -> None:
        text, reasoning, finish, *tokens = answer
        self.keep(slot.reply(text, self.teacher.name, finish, *tokens, reasoning=reasoning, error=error))

    def _give_up(self, slot: Slot, failure: Failure, turns: int) -> None:
        """Record that a question is turned away, skip it, or raise ConnectionError."""
        base = self.teacher._base
        message = (
            f"{self.teacher.model!r} at {base} gave no answer {slot.index} to {slot.problem.id!r} in {turns} "
            f"requests: {failure.why}{self._hint(failure)}. What came before is stored; run again to go on"
        )
        if failure.verdict in ("record", "refused"):
            finish = REJECTED if failure.verdict == "record" else "refused"
            self._store(slot, Answer("", "", finish, 0, 0), failure.why)
            self._say(f"a question is turned away: {failure.why}")
            self.turned_away.add(slot.problem.id)
            if len(self.turned_away) >= HOPELESS and not self.answered:
                raise ConnectionError(
                    f"{message}. {HOPELESS} questions were turned away, none was answered: it is not the "
                    "questions; ask them again with retry_rejected once the server is mended"
                )
            return
        self.skipped.append(message)
        self.fruitless.add(slot.problem.id)
        key = failure.verdict == "key" and not self.answered
        if failure.verdict == "stop" or key or len(self.fruitless) >= FRUITLESS:
            raise ConnectionError(message)

    def _hint(self, failure: Failure) -> str:
        base = self.teacher._base
        odd = failure.verdict in ("stop", "skip") and not self.answered and not re.search(r"/v\d", base)
        return f"; a base_url often ends in /v1: {base}/v1" if odd and self.reached else ""

    def _say(self, words: str) -> None:
        """What goes wrong, once for each kind, so that no wait is silent."""
        with self.next:
            new = words not in self.logged
            self.logged.add(words)
        if new:
            _log.warning("%s: %s", self.url, words)

    def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.stop.wait(seconds)


def _key(teacher: OpenAITeacher) -> str:
    """The key from the environment, "" for a server that wants none."""
    name = teacher.key_env or (None if teacher.base_url else "OPENAI_API_KEY")
    key = os.environ.get(name, "").strip() if name else ""
    if name and not key:
        raise ValueError(f"key_env must name an environment variable with the key; {name} is not set")
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"the key in {name} must be one line of ASCII; set it again")
    return key
