"""Wanted: what a teacher has to do, as slots, and what that may cost.

problems x n, model, prompt, settings  -->  slots  --less those in the store-->  requests, tokens, cost
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from negdistill.checks import check_each, check_number, check_type, check_whole
from negdistill.data.records import PROBLEMS, Problem, Reply
from negdistill.data.said import question_digest
from negdistill.runs.digests import digest_json
from negdistill.teachers.ledger import Budget, Keep, Key, Slot, cost


@runtime_checkable
class Teacher(Protocol):
    """What `generate` needs to know of a teacher.

    name    goes into `Rationale.teacher`
    prices  of a million prompt tokens and of a million completion tokens; None where nobody said
    """

    @property
    def name(self) -> str: ...

    @property
    def prices(self) -> tuple[float, float] | None: ...

    def request(self, problem: Problem, temperature: float) -> object:
        """JSON of all that decides an answer, except chance."""

    def most_tokens(self, problem: Problem) -> tuple[int, int]:
        """The most tokens that prompt and completion can have."""

    def answer(self, slots: Sequence[Slot], keep: Keep, budget: Budget) -> None:
        """Fill the slots. `keep` may be called from any thread, and returns once an answer is on disk."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What `generate` would do.

    answers, stored  rationales wanted, and those of them that are in the store and not asked for again
    tokens  (prompt, completion) of the rest, as they were on average in the answers of this teacher in the
            store; where it has none, the most they can be
    cost    of these tokens; most: what the rest can cost at most. None where the teacher has no prices
    """

    answers: int
    stored: int
    tokens: tuple[int, int]
    cost: float | None
    most: float | None

    @property
    def requests(self) -> int:
        return self.answers - self.stored

    def __str__(self) -> str:
        money = "no prices given" if self.cost is None else f"cost {self.cost:.4g}, at most {self.most:.4g}"
        return (
            f"{self.requests} requests, {self.stored} of {self.answers} answers in the store; "
            f"about {self.tokens[0]} prompt and {self.tokens[1]} completion tokens, {money}"
        )


def wanted_slots(problems: Sequence[Problem], teacher: Teacher, n: int, temperature: float) -> list[Slot]:
    """n slots of each problem; errors as in `generate`."""
    problems = check_each("problems", problems, *PROBLEMS)
    check_type("teacher", teacher, Teacher, 'a teacher, such as OpenAITeacher("gpt-4o-mini")')
    if isinstance(teacher, type):
        raise TypeError(f"teacher must be a teacher, {teacher.__name__}(...); got the class itself")
    check_whole("n", n, 1)
    check_number("temperature", temperature, 0)
    temperature = float(temperature)  # 1 and 1.0 are one request
    seen: set[str] = set()
    slots = []
    settings = _settings(teacher, problems[0].source, temperature) if problems else ""
    for problem in problems:
        if problem.id in seen:
            raise ValueError(f"problems must have distinct ids; got {problem.id!r} twice; ask set by set")
        seen.add(problem.id)
        request = digest_json(teacher.request(problem, temperature))
        asked = (temperature, request, question_digest(problem), settings)
        slots += [Slot(problem, index, *asked) for index in range(n)]
    if not slots:
        raise ValueError("problems must not be empty; there is nothing to ask")
    return slots


def _settings(teacher: Teacher, source: str, temperature: float) -> str:
    """What a request asks beside the question, as far as it decides the answer."""
    nothing = Problem("", "", "", "", "", None, source)
    rest, other = (
        digest_json(teacher.request(nothing, value))[:12] for value in (temperature, temperature + 1)
    )
    return rest if rest == other else f"temperature {temperature:g}, {rest}"


def unanswered(slots: Sequence[Slot], replies: Mapping[Key, Reply], retry_rejected: bool) -> list[Slot]:
    """The slots without a reply, and with `retry_rejected` those whose question was turned away."""
    known = {key for key, one in replies.items() if not (retry_rejected and one.error)}
    return [slot for slot in slots if slot.key not in known]


def planned(
    slots: Sequence[Slot], replies: Mapping[Key, Reply], teacher: Teacher, retry_rejected: bool
) -> Plan:
    """What is left of the slots, and what it may cost."""
    todo = [teacher.most_tokens(slot.problem) for slot in unanswered(slots, replies, retry_rejected)]
    most = tokens = (sum(prompt for prompt, _ in todo), sum(completion for _, completion in todo))
    if known := [one for one in replies.values() if one.teacher == teacher.name and not one.error]:
        sums = sum(one.prompt_tokens for one in known), sum(one.completion_tokens for one in known)
        tokens = round(len(todo) * sums[0] / len(known)), round(len(todo) * sums[1] / len(known))
    return Plan(
        len(slots), len(slots) - len(todo), tokens, cost(teacher.prices, *tokens), cost(teacher.prices, *most)
    )
