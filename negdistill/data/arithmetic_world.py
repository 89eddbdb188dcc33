"""The world of the embedded benchmark: stories that are chains of arithmetic, told sentence by sentence.

    Ann has 12 cards. Ben gives Ann 5. Ann loses 3. How many cards does Ann have now?
       12        ->        + 5     ->     - 3    ->    14

A template is a sentence with four signs: # a number, ~ a noun, @ the one whose count is followed, & somebody
else (in `comparison` the box just told about and the next one). The same string serves to write a sentence
and, after the signs are put back in, to look up which operation it stands for, so a question can be read
again without any hidden annotation.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from negdistill.checks import check_choice
from negdistill.data.records import Problem

LARGEST = 199  # every number of a story, intermediate values included, lies in 0..LARGEST
SUBJECTS = ("totals", "change", "groups", "sharing", "comparison", "money", "time")
SPLITS = ("train", "valid", "test", "longer", "reworded", "two_step", "distractor")
_STEPS = {"longer": (6, 7, 8), "two_step": (2,)}  # every other split: 1 to 5
_BUCKETS = {"train": tuple(range(8)), "valid": (8,)}  # of ten; everything else lies in the last one

NAMES = ("Ann", "Ben", "Eva", "Tom")
NOUNS = ("apples", "books", "cards", "coins", "pens", "shells")
OTHER_NAMES = ("Ida", "Leo", "Max", "Zoe")
OTHER_NOUNS = ("bricks", "kites", "melons", "plums", "ropes", "tulips")
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


@dataclass(frozen=True)
class Subject:
    """A skill: how its stories open, which sentences stand for which operation, what is asked."""

    opening: str
    question: str
    sentences: dict[str, tuple[str, ...]]
    weights: dict[str, int]  # how often each operation is drawn


_MIXED = {"+": 3, "-": 3, "*": 2, "/": 2}
_WEIGHTS = {
    "totals": {"+": 4, "-": 1},
    "change": {"+": 1, "-": 1},
    "groups": {"*": 3, "+": 1, "-": 1},
    "sharing": {"/": 3, "+": 1, "-": 1},
    "comparison": _MIXED,
    "money": _MIXED,
    "time": _MIXED,
}

# subject: opening | question | operation and its sentences
_TRAIN = {
    "totals": """@ has # ~. | How many ~ are there now?
        + @ finds # more. | & brings # more.
        - @ takes # away.""",
    "change": """@ has # ~. | How many ~ does @ have now?
        + @ wins #. | & gives @ #.
        - @ loses #. | @ gives & #.""",
    "groups": """A bag holds # ~. | How many ~ are there in all?
        * @ fills # such bags. | There are # such bags.
        + @ adds # more.
        - @ takes # out.""",
    "sharing": """There are # ~. | How many ~ are left?
        / @ makes # equal parts and keeps one. | Only one of # equal parts is left.
        + @ puts # back.
        - @ drops #.""",
    "comparison": """Box @ holds # ~. | How many ~ does box @ hold?
        + Box & holds # more than box @.
        - Box & holds # fewer than box @.
        * Box & holds # times as many as box @.
        / Box @ holds # times as many as box &.""",
    "money": """@ has # dollars. | How many dollars does @ have now?
        + @ earns # dollars. | & pays @ # dollars.
        - @ spends # dollars. | @ pays & # dollars.
        * The money grows to # times as much.
        / @ keeps one of # equal parts.""",
    "time": """@ walks # minutes. | How many minutes does it take?
        + A stop adds # minutes.
        - A short way saves # minutes.
        * @ does it # times.
        / A bike is # times as fast.""",
}
_REWORDED = {
    "totals": """@ counts # ~. | What is the total number of ~?
        + @ collects another #. | & joins with # further ~.
        - @ removes # of them.""",
    "change": """@ owns # ~. | What number of ~ is with @ in the end?
        + @ receives #. | & hands @ #.
        - @ sells #. | @ hands & #.""",
    "groups": """In a crate are # ~. | What is the number of ~ altogether?
        * @ stacks up # crates of this kind. | # crates of this kind arrive.
        + @ includes # extra.
        - @ picks out #.""",
    "sharing": """@ bakes # ~. | What number of ~ remains?
        / @ divides them by # and holds on to a single pile. | A single pile out of # equal piles remains.
        + @ returns #.
        - @ throws away #.""",
    "comparison": """Jar @ contains # ~. | What number of ~ is in jar @?
        + In jar & are # ~ above jar @.
        - In jar & are # ~ below jar @.
        * Jar & contains jar @ multiplied by #.
        / Jar & contains jar @ divided by #.""",
    "money": """@ owns # euros. | What amount of euros is with @ in the end?
        + @ receives # euros. | & hands @ # euros.
        - A bill of # euros comes. | @ hands & # euros.
        * The amount is multiplied by #.
        / The amount is divided by #.""",
    "time": """A task lasts # hours. | What number of hours is it in the end?
        + A break of # hours comes in between.
        - A tool cuts # hours off.
        * The task is repeated, # rounds in total.
        / The work is divided by # people.""",
}
DISTRACTORS = (
    "Mia has # ~.",
    "The shop is # miles away.",
    "The bus has the number #.",
    "The room is # feet wide.",
)


def _world(tables: dict[str, str]) -> dict[str, Subject]:
    subjects = {}
    for name, table in tables.items():
        head, *rows = table.splitlines()
        opening, question = head.split(" | ")
        rows = [row.strip() for row in rows]
        sentences = {row[0]: tuple(row[2:].split(" | ")) for row in rows}
        subjects[name] = Subject(opening, question, sentences, _WEIGHTS[name])
    return subjects


WORLD = _world(_TRAIN)
REWORDED_WORLD = _world(_REWORDED)


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
    opening, *told, _ = re.split(r"(?<=\.) ", problem.question)
    boxes = _BOX.search(opening) is not None
    pattern = _BOX if boxes else _PERSON
    heroes = pattern.findall(opening if boxes else problem.question)
    value, steps = int(re.search(r"\d+", opening)[0]), []
    for sentence in told:
        hero = LETTERS[len(steps)] if boxes else heroes[0] if heroes else ""
        key = pattern.sub(lambda found, hero=hero: "@" if found[0] == hero else "&", sentence)
        if (key := _NOUN.sub("~", re.sub(r"\d+", "#", key))) not in _OPERATIONS:
            raise ValueError(f"{problem.id}: not a sentence of the embedded benchmark: {sentence!r}")
        if op := _OPERATIONS[key]:
            right = int(re.search(r"\d+", sentence)[0])
            steps.append(Step(value, op, right, calculate(value, op, right), sentence))
            value = steps[-1].result
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
