"""The world of the embedded benchmark: stories that are chains of arithmetic, told sentence by sentence.

Ann has 12 cards. Ben gives Ann 5. Ann loses 3. How many cards does Ann have now?
   12        ->        + 5     ->     - 3    ->    14
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from negdistill.checks import check_choice
from negdistill.data.arithmetic_templates import (
    DISTRACTORS,
    NAMES,
    NOUNS,
    OTHER_NAMES,
    OTHER_NOUNS,
    REWORDED_WORLD,
    SUBJECTS,
    WORLD,
    Subject,
)
from negdistill.data.records import Problem

LARGEST = 199  # every number of a story, intermediate values included, lies in 0..LARGEST
SPLITS = ("train", "valid", "test", "longer", "reworded", "two_step", "distractor")
_STEPS = {"longer": (6, 7, 8), "two_step": (2,)}  # every other split: 1 to 5
_BUCKETS = {"train": tuple(range(8)), "valid": (8,)}  # of ten; everything else lies in the last one

LETTERS = "ABCDEFGHI"


class Step(NamedTuple):
    """One operation of a chain and the sentence that tells it: left op right = result."""

    left: int
    op: str
    right: int
    result: int
    sentence: str

    @property
    def equation(self) -> str:
        return f"{self.left} {self.op} {self.right} = {self.result}"


# subject: opening | question | operation and its sentences


@dataclass(frozen=True)
class Story:
    """A told chain: opening sentence, steps with their sentences, question sentence."""

    opening: str
    steps: tuple[Step, ...]
    question: str

    def text(self, extra: str = "", place: int = 0) -> str:
        """The problem text, with the sentence `extra` before step `place` where one is given."""
        told = [step.sentence for step in self.steps]
        told[place:place] = [extra] if extra else []
        return " ".join([self.opening, *told, self.question])


def calculate(left: int, op: str, right: int) -> int | None:
    """left op right when that is a whole number in 0..LARGEST, else None."""
    if op == "/":
        result = left // right if right and left % right == 0 else None
    else:
        result = left + right if op == "+" else left - right if op == "-" else left * right
    return result if result is not None and 0 <= result <= LARGEST else None


def _operand(value: int, op: str, rng: random.Random) -> int | None:
    """A number that keeps the chain in range and never at 0; None when there is none."""
    if op in "+-":
        most = min(60, LARGEST - value if op == "+" else value - 1)
        return rng.randint(2, most) if most >= 2 else None
    fitting = [k for k in range(2, 10) if calculate(value, op, k)]
    return rng.choice(fitting) if fitting else None


def tell(
    subject: Subject,
    steps: int,
    rng: random.Random,
    names: Iterable[str] = NAMES,
    nouns: Iterable[str] = NOUNS,
) -> Story:
    """Draw a story of the given number of steps."""
    noun, who = rng.choice(tuple(nouns)), rng.choice(tuple(names))
    others = [name for name in names if name != who]
    boxed = " @ " in subject.opening[:6]  # comparison: boxes A, B, C ... instead of people

    def fill(template: str, place: int, number: int | None = None) -> str:
        first, second = (
            (LETTERS[place], LETTERS[place + 1 : place + 2]) if boxed else (who, rng.choice(others))
        )
        text = template.replace("@", first).replace("&", second).replace("~", noun)
        return text if number is None else text.replace("#", str(number))

    value = rng.randint(3, 90)
    opening, told = fill(subject.opening, 0, value), []
    for place in range(steps):
        operands = {op: _operand(value, op, rng) for op in subject.weights}
        possible = [op for op in operands if operands[op]]
        op = rng.choices(possible, [subject.weights[op] for op in possible])[0]
        sentence = fill(rng.choice(subject.sentences[op]), place, operands[op])
        result = calculate(value, op, operands[op])
        told.append(Step(value, op, operands[op], result, sentence))
        value = result
    return Story(opening, tuple(told), fill(subject.question, steps))


_OPERATIONS = {
    sentence: op
    for world in (WORLD, REWORDED_WORLD)
    for subject in world.values()
    for op, sentences in subject.sentences.items()
    for sentence in sentences
} | dict.fromkeys(DISTRACTORS)
_PERSON = re.compile(r"\b(?:" + "|".join(NAMES + OTHER_NAMES) + r")\b")
_BOX = re.compile(r"(?<=[Bb]ox )[A-I]\b|(?<=[Jj]ar )[A-I]\b")
_NOUN = re.compile(r"\b(?:" + "|".join(NOUNS + OTHER_NOUNS) + r")\b")


def read_steps(problem: Problem) -> tuple[str, tuple[Step, ...]]:
    """The opening sentence and the steps of a problem, read from its question text alone.

    Raises ValueError for a question that is not of this benchmark.
    """
    opening, *told = re.split(r"(?<=\.) ", problem.question)[:-1] or [""]
    if not (start := re.search(r"\d+", opening)):
        raise ValueError(f"{problem.id}: not a question of the embedded benchmark: {problem.question!r}")
    boxes = _BOX.search(opening) is not None
    pattern = _BOX if boxes else _PERSON
    heroes = pattern.findall(opening if boxes else problem.question)
    value, steps = int(start[0]), []
    for sentence in told:
        hero = LETTERS[len(steps)] if boxes else heroes[0] if heroes else ""
        key = pattern.sub(lambda found, hero=hero: "@" if found[0] == hero else "&", sentence)
        if (key := _NOUN.sub("~", re.sub(r"\d+", "#", key))) not in _OPERATIONS:
            raise ValueError(f"{problem.id}: not a sentence of the embedded benchmark: {sentence!r}")
        if op := _OPERATIONS[key]:
            right = int(re.search(r"\d+", sentence)[0])
            if (result := calculate(value, op, right)) is None:
                raise ValueError(f"{problem.id}: no chain of the embedded benchmark: {value} {op} {right}")
            steps.append(Step(value, op, right, result, sentence))
            value = steps[-1].result
    if not steps:
        raise ValueError(f"{problem.id}: not a question of the embedded benchmark: {problem.question!r}")
    return opening, tuple(steps)


def _share(question: str, use: str) -> float:
    """A number in [0, 1) that only the question text decides, another one for each use."""
    return int.from_bytes(hashlib.sha256(f"{use}/{question}".encode()).digest()[:6], "big") / 2**48


def bucket(question: str) -> int:
    """0..9 from the question text alone: 0-7 train, 8 valid, 9 test and the shifted sets."""
    return int(10 * _share(question, "bucket"))


def hardness(question: str) -> float:
    """How hard teachers find a question among those of its level, in [0, 1), from its text alone."""
    return _share(question, "hardness")


def generate(split: str, n: int, seed: int = 0) -> list[Problem]:
    """n different problems of a split; the first m of them are `generate(split, m, seed)`.

    split  train, valid, test: 1-5 steps, disjoint for every n and seed, since the question text decides;
           longer (6-8 steps), reworded (wording, names and nouns that train never uses), two_step, distractor
           (one more sentence, with a number that does not matter): all in the bucket of test
    n      number of problems; subjects, levels and quarters of hardness take turns, so all are balanced
    Raises ValueError for an unknown split, n < 0, or an n that exhausts the split.
    """
    check_choice("split", split, SPLITS)
    if n < 0:
        raise ValueError(f"n must be 0 or more; got {n}")
    rng, counts = random.Random(f"arithmetic/{split}/{seed}"), _STEPS.get(split, (1, 2, 3, 4, 5))
    world, names, nouns = WORLD, NAMES, NOUNS
    if split == "reworded":
        world, names, nouns = REWORDED_WORLD, OTHER_NAMES, OTHER_NOUNS
    problems: dict[str, Problem] = {}
    while len(problems) < n:
        subject, level = SUBJECTS[len(problems) % 7], counts[len(problems) % len(counts)]
        for _ in range(10_000):
            story = tell(world[subject], level, rng, names, nouns)
            question = story.text()
            if split == "distractor":
                extra = rng.choice(DISTRACTORS).replace("#", str(rng.randint(2, 90)))
                question = story.text(extra.replace("~", rng.choice(nouns)), rng.randrange(level + 1))
            fits = bucket(question) in _BUCKETS.get(split, (9,))
            if fits and question not in problems and int(4 * hardness(question)) == len(problems) // 5 % 4:
                break
        else:
            raise ValueError(
                f"n is more than the different questions of split {split!r}; it has about {len(problems)}"
            )
        last = story.steps[-1]
        problems[question] = Problem(
            id=f"arithmetic/{split}/{hashlib.sha256(question.encode()).hexdigest()[:12]}",
            question=question,
            answer=str(last.result),
            solution=f"{last.equation}. The answer is \\boxed{{{last.result}}}.",
            subject=subject,
            level=level,
            source="arithmetic",
        )
    return list(problems.values())
