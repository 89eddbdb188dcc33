"""Teachers: n rationales of each problem, from a server, a local model or the embedded teacher.

    slot     (problem, index)        one rationale that is wanted
    request  sha256 of model, prompt and settings: all that decides an answer, except chance
    store    one `Reply` a line; a slot whose (problem, index, request) is there is not asked for again

    teacher = OpenAITeacher("gpt-4o-mini", prices=(prompt, completion))    # of a million tokens each
    print(plan(problems, teacher))      # requests, tokens, cost; nothing is sent
    rationales = generate(problems, teacher, max_cost=5.0)

Stop it or kill it at any moment and call it again: it goes on. Of what was under way, at most `concurrency`
answers may then be bought twice; none that was stored. One store may hold answers of several teachers.
A question that the server turns away costs that question: it is stored with the server's words.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from itertools import groupby
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from negdistill.checks import check_choice, check_flag, check_path, check_type, check_whole
from negdistill.data import arithmetic
from negdistill.data.prompts import STOP, chat_messages, completion_text, most_prompt_tokens
from negdistill.data.records import Problem, Rationale, Reply
from negdistill.teachers.ledger import Budget, BudgetReached, Keep, Slot, Store, cost, read_store
from negdistill.teachers.openai_server import OpenAITeacher
from negdistill.teachers.wanted import Plan, Teacher, planned, unanswered, wanted_slots

if TYPE_CHECKING:
    from negdistill.training.students import Student

__all__ = ["EmbeddedTeacher", "LocalTeacher", "OpenAITeacher", "Plan", "Teacher", "generate", "plan"]

ROWS = 256  # samples that a local model draws between two writes

# --- public -------------------------------------------------------------------------------------------


def plan(
    problems: Sequence[Problem],
    teacher: Teacher,
    n: int = 8,
    temperature: float = 0.5,
    store: str | Path = "rationales.jsonl",
    retry_rejected: bool = False,
    max_cost: float | None = None,
) -> Plan:
    """Requests, tokens and cost of `generate` with the same arguments. Sends nothing, writes nothing.

    Refuses what that refuses, but for a missing key and what it meets on the way.
    """
    check_path("store", store)
    check_flag("retry_rejected", retry_rejected)
    slots = wanted_slots(problems, teacher, n, temperature)
    _check(teacher, n, temperature, max_cost)
    return planned(slots, read_store(Path(store))[0], teacher, retry_rejected)


def generate(
    problems: Sequence[Problem],
    teacher: Teacher,
    n: int = 8,
    temperature: float = 0.5,
    store: str | Path = "rationales.jsonl",
    max_cost: float | None = None,
    progress: bool = True,
    retry_rejected: bool = False,
) -> list[Rationale]:
    """n rationales of each problem, in the order of the problems and of their indices; each one is a `Reply`.

    temperature  at least 0. The embedded teacher has none: its rationales do not depend on it
    store        file that keeps every answer; those that it has are not asked for again
    max_cost     the most that all answers of this teacher in the store may cost together, in the currency of
                 its prices. Requests that fail without saying whether they count are counted in full, those
                 of earlier runs too
    retry_rejected  whether to ask again what the server turned away in an earlier run

    Cut off, refused and empty answers are answers: `finish` says so, and `grade` labels them like any other.
    What was turned away has the server's words in `error` and no text. A warning sums up what has no text.

    Raises ValueError for an argument out of its range, two problems of one id, max_cost for a teacher without
    prices and a file that is no store; BudgetReached before a request that might exceed max_cost;
    ConnectionError where the server gives up or a question got no answer. What was answered is in the
    store. TypeError for an argument of another type.
    """
    check_path("store", store)
    for name, value in (("progress", progress), ("retry_rejected", retry_rejected)):
        check_flag(name, value)
    slots = wanted_slots(problems, teacher, n, temperature)
    _check(teacher, n, temperature, max_cost)
    with Store(store) as kept:
        todo = unanswered(slots, kept.replies, retry_rejected)
        there = len(slots) - len(todo)
        with tqdm(total=len(slots), initial=there, unit="answer", disable=not progress) as bar:
            bar.set_description_str(str(planned(slots, kept.replies, teacher, retry_rejected)))
            try:
                _fill(todo, teacher, kept, _budget(kept, teacher, max_cost), bar)
            except BudgetReached as error:
                done = sum(slot.key in kept.replies for slot in slots)
                raise BudgetReached(
                    f"max_cost={max_cost} reached: {error}. {done} of {len(slots)} answers are in {store}; "
                    "raise max_cost and run again"
                ) from None
            finally:
                for line in _without_text([one for slot in slots if (one := kept.replies.get(slot.key))]):
                    warnings.warn(line, stacklevel=2)
        return [kept.replies[slot.key] for slot in slots]


def _check(teacher: Teacher, n: int, temperature: float, max_cost: float | None) -> None:
    if isinstance(teacher, (OpenAITeacher, LocalTeacher)):  # one of your own may have nothing to check
        teacher.check(n, temperature)
    if max_cost is not None and teacher.prices is None:
        raise ValueError(
            f"max_cost needs a teacher with prices; set prices of {teacher.name!r} or leave it out"
        )
    if max_cost is not None:
        check_type("max_cost", max_cost, Real, "a number")
    if max_cost is not None and not max_cost >= 0:
        raise ValueError(f"max_cost must be at least 0; got {max_cost}")


def _fill(slots: Sequence[Slot], teacher: Teacher, kept: Store, budget: Budget, bar: tqdm) -> None:
    """Let the teacher answer; each answer goes into the store, then onto the bar."""

    def keep(reply: Reply) -> None:
        kept.append(reply)
        with bar.get_lock():
            bar.set_description_str(teacher.name, refresh=False)
            bar.set_postfix_str(f"cost {budget.spent:.4g}", refresh=False)
            bar.update()

    teacher.answer(slots, keep, budget)


def _budget(kept: Store, teacher: Teacher, max_cost: float | None) -> Budget:
    """What this teacher's answers in the store cost, and what requests without an answer may have cost."""
    name, charges = teacher.name, kept.charges
    paid = [
        (one.prompt_tokens, one.completion_tokens) for one in kept.replies.values() if one.teacher == name
    ]
    paid.append((charges.prompt[name], charges.completion[name]))
    spent = math.fsum(cost(teacher.prices, *tokens) or 0.0 for tokens in paid)
    return Budget(max_cost, spent, lambda prompt, completion: charges.add(name, prompt, completion))


def _without_text(replies: Sequence[Reply]) -> Iterator[str]:
    """What to say of answers that are none."""
    if turned := [one for one in replies if one.error]:
        yield (
            f"{len({one.problem_id for one in turned})} questions were turned away, {len(turned)} answers, "
            f"first {turned[0].problem_id!r}: {turned[0].error}; they are recorded; asked again only with "
            "retry_rejected"
        )
    if mute := [one for one in replies if not one.text and not one.error]:
        ends = Counter(one.finish for one in mute).items()
        why = ", ".join(f"{count} ended with {end!r}" for end, count in ends)
        thought = sum(bool(one.reasoning) for one in mute)
        more = f"; {thought} of them have reasoning only: raise max_tokens" if thought else ""
        yield f"{len(mute)} of {len(replies)} answers have no text ({why}); nothing is trained on them{more}"


# --- the embedded teacher, a local model ----------------------------------------------------------------


@dataclass(frozen=True)
class EmbeddedTeacher:
    """`arithmetic.teach`, for problems of the embedded benchmark: free, at once, and the same every time."""

    strength: str = "weak"
    seed: int = 0
    prices = (0.0, 0.0)

    def __post_init__(self) -> None:
        check_choice("strength", self.strength, arithmetic.STRENGTHS)

    @property
    def name(self) -> str:
        return f"arithmetic-{self.strength}"

    def request(self, problem: Problem, temperature: float) -> object:
        return ["arithmetic", self.strength, self.seed, problem.question]

    def most_tokens(self, problem: Problem) -> tuple[int, int]:
        return 0, 0

    def answer(self, slots: Sequence[Slot], keep: Keep, budget: Budget) -> None:
        for problem, group in groupby(slots, lambda slot: slot.problem):
            wanted = list(group)
            taught = arithmetic.teach([problem], self.strength, wanted[-1].index + 1, self.seed)
            for slot in wanted:
                keep(slot.reply(taught[slot.index].text, self.name, "stop", 0, 0))


@dataclass(frozen=True)
class LocalTeacher:
    """A causal language model on this machine, drawn from through `sample`.

    model       as `load_student` takes it, loaded at the first use; its chat template is used if it has one
    max_tokens  longest answer     shots  worked examples, as in `prompts`     seed  of the draws
    """

    model: str
    _: KW_ONLY
    max_tokens: int = 1024
    shots: int = 0
    seed: int = 0
    prices = (0.0, 0.0)

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 1), ("shots", 0), ("seed", 0)):
            check_whole(name, getattr(self, name), least)

    @cached_property
    def _student(self) -> Student:
        from negdistill.training.students import (
            load_student,  # here: a teacher behind a server needs no torch
        )

        return load_student(self.model)

    @cached_property
    def _digest(self) -> dict[str, str]:
        from negdistill.training.identity import digest_student

        return digest_student(self._student)

    @property
    def name(self) -> str:
        return self.model

    def check(self, n: int, temperature: float) -> None:
        """ValueError for draws that `sample` would refuse."""
        if temperature == 0 and n > 1:
            raise ValueError(f"n must be 1 at temperature 0, where all answers are the same; got {n}")

    def request(self, problem: Problem, temperature: float) -> object:
        return [self.model, self._digest, self._prompt(problem), temperature, self.max_tokens, self.seed]

    def most_tokens(self, problem: Problem) -> tuple[int, int]:
        return most_prompt_tokens([self._prompt(problem)]), self.max_tokens

    def _prompt(self, problem: Problem) -> str:
        tokenizer = self._student.tokenizer
        if not tokenizer.chat_template:
            return completion_text(problem, self.shots)
        messages = chat_messages(problem, self.shots)
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        start = tokenizer.bos_token  # `sample` puts it there again where the tokenizer does so
        again = start and tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
        return text.removeprefix(start) if again else text

    def answer(self, slots: Sequence[Slot], keep: Keep, budget: Budget) -> None:
        groups = [list(group) for _, group in groupby(slots, lambda slot: slot.problem)]
        most = max((slot.index + 1 for slot in slots), default=1)
        size = max(1, ROWS // most)
        for start in range(0, len(groups), size):
            self._draw(groups[start : start + size], keep)

    def _draw(self, groups: Sequence[Sequence[Slot]], keep: Keep) -> None:
        from negdistill.inference.sample import sample

        prompts = {group[0].problem.id: self._prompt(group[0].problem) for group in groups}
        wanted = {(slot.problem.id, slot.index): slot for group in groups for slot in group}
        lengths = {key: len(self._student.tokenizer(text)["input_ids"]) for key, text in prompts.items()}
        rules = {
            "temperature": groups[0][0].temperature,
            "max_new_tokens": self.max_tokens,
            "seed": self.seed,
        }
        n = max(index for _, index in wanted) + 1
        for drawn in sample(self._student, prompts, n, **rules, progress=False):
            if slot := wanted.get((drawn.problem_id, drawn.index)):
                text, stop, _ = drawn.text.partition(STOP)
                finish = "stop" if stop or drawn.finished else "length"
                keep(slot.reply(text, self.name, finish, lengths[drawn.problem_id], drawn.tokens))
