"""Teachers: n rationales of each problem, from a server, a local model or the embedded teacher.

    slot     (problem, index)        one rationale that is wanted
    request  sha256 of model, prompt and settings: all that decides an answer, except chance
    store    one `Reply` a line; a slot whose (problem, index, request) is there is not asked for again

    teacher = OpenAITeacher("gpt-4o-mini", prices=(prompt, completion))    # of a million tokens each
    print(plan(problems, teacher))      # requests, tokens, cost; nothing is sent
    rationales = generate(problems, teacher, max_cost=5.0)

Stop it or kill it at any moment and call it again: it goes on. Of what was under way, at most `concurrency`
answers may then be bought twice; none that was stored. One store may hold answers of several teachers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from negdistill.checks import check_choice
from negdistill.data import arithmetic
from negdistill.data.prompts import STOP, chat_messages, completion_text, most_prompt_tokens
from negdistill.data.records import Problem, Rationale, Reply
from negdistill.inference.sample import sample
from negdistill.runs.digests import digest_json, digest_weights
from negdistill.teachers.ledger import Budget, BudgetReached, Keep, Key, Slot, Store, cost
from negdistill.teachers.openai_server import OpenAITeacher
from negdistill.training.students import Student, load_student

__all__ = ["EmbeddedTeacher", "LocalTeacher", "OpenAITeacher", "Plan", "Teacher", "generate", "plan"]

ROWS = 256  # samples that a local model draws between two writes

# --- public -------------------------------------------------------------------------------------------


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

    answers, stored  rationales wanted, and those of them that are in the store
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


def plan(
    problems: Sequence[Problem],
    teacher: Teacher,
    n: int = 8,
    temperature: float = 0.5,
    store: str | Path = "rationales.jsonl",
) -> Plan:
    """Requests, tokens and cost of `generate` with the same arguments. Sends nothing and needs no key."""
    slots = _slots(problems, teacher, n, temperature)
    if not Path(store).exists():
        return _plan(slots, {}, teacher)
    with Store(store) as kept:
        return _plan(slots, kept.replies, teacher)


def generate(
    problems: Sequence[Problem],
    teacher: Teacher,
    n: int = 8,
    temperature: float = 0.5,
    store: str | Path = "rationales.jsonl",
    max_cost: float | None = None,
    progress: bool = True,
) -> list[Rationale]:
    """n rationales of each problem, in the order of the problems and of their indices; each one is a `Reply`.

    temperature  at least 0. The embedded teacher has none: its rationales do not depend on it
    store        file that keeps every answer; those that it has are not asked for again
    max_cost     the most that all answers of this teacher in the store may cost together, in the currency of
                 its prices. Requests that fail without saying whether they count are counted in full

    Cut off, refused and empty answers are answers: `finish` says so, and `grade` labels them like any other.

    Raises ValueError for an argument out of its range, two problems of one id, max_cost for a teacher without
    prices and a file that is no store; BudgetReached before a request that might exceed max_cost;
    ConnectionError where the server gives up. What was answered by then is in the store.
    """
    slots = _slots(problems, teacher, n, temperature)
    if max_cost is not None and teacher.prices is None:
        raise ValueError(
            f"max_cost needs a teacher with prices; set prices of {teacher.name!r} or leave it out"
        )
    if max_cost is not None and not max_cost >= 0:
        raise ValueError(f"max_cost must be at least 0; got {max_cost}")
    with Store(store) as kept:
        todo = [slot for slot in slots if slot.key not in kept.replies]
        paid = [one for one in kept.replies.values() if one.teacher == teacher.name]
        spent = sum(cost(teacher.prices, one.prompt_tokens, one.completion_tokens) or 0.0 for one in paid)
        budget = Budget(max_cost, spent)
        there = len(slots) - len(todo)
        with tqdm(total=len(slots), initial=there, unit="answer", disable=not progress) as bar:
            bar.set_description_str(str(_plan(slots, kept.replies, teacher)))

            def keep(reply: Reply) -> None:
                kept.append(reply)
                with bar.get_lock():
                    bar.set_description_str(teacher.name, refresh=False)
                    bar.set_postfix_str(f"cost {budget.spent:.4g}", refresh=False)
                    bar.update()

            try:
                teacher.answer(todo, keep, budget)
            except BudgetReached as error:
                done = sum(slot.key in kept.replies for slot in slots)
                raise BudgetReached(
                    f"max_cost={max_cost} reached: {error}. {done} of {len(slots)} answers are in {store}; "
                    "raise max_cost and run again"
                ) from None
        return [kept.replies[slot.key] for slot in slots]


def _slots(problems: Sequence[Problem], teacher: Teacher, n: int, temperature: float) -> list[Slot]:
    if n < 1:
        raise ValueError(f"n must be at least 1; got {n}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be at least 0; got {temperature}")
    seen: set[str] = set()
    slots = []
    for problem in problems:
        if problem.id in seen:
            raise ValueError(f"problems must have distinct ids; got {problem.id!r} twice; ask set by set")
        seen.add(problem.id)
        request = digest_json(teacher.request(problem, temperature))
        slots += [Slot(problem, index, temperature, request) for index in range(n)]
    if not slots:
        raise ValueError("problems must not be empty; there is nothing to ask")
    return slots


def _plan(slots: Sequence[Slot], replies: dict[Key, Reply], teacher: Teacher) -> Plan:
    todo = [teacher.most_tokens(slot.problem) for slot in slots if slot.key not in replies]
    most = tokens = (sum(prompt for prompt, _ in todo), sum(completion for _, completion in todo))
    if known := [one for one in replies.values() if one.teacher == teacher.name]:
        sums = sum(one.prompt_tokens for one in known), sum(one.completion_tokens for one in known)
        tokens = round(len(todo) * sums[0] / len(known)), round(len(todo) * sums[1] / len(known))
    return Plan(
        len(slots), len(slots) - len(todo), tokens, cost(teacher.prices, *tokens), cost(teacher.prices, *most)
    )


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

    @cached_property
    def _student(self) -> Student:
        return load_student(self.model)

    @cached_property
    def _digest(self) -> str:
        return digest_weights(self._student.model.named_parameters())

    @property
    def name(self) -> str:
        return self.model

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
