"""The embedded benchmark: generated word problems and a fallible teacher.

    generate -> Problem      teach -> 8 rationales each, right or wrong as often as a real teacher's

A question has a hardness h, uniform in [0, 1) and the same for all teachers. A teacher's chance to reason
rightly falls from 1 to 0 along a straight line of width w around h = r, and so has the mean r:

    q(h) = clip(1/2 + (r - h) / w, 0, 1),    w = min(3 r (1 - r), 2 r, 2 (1 - r))

The first term of w makes the correlation between two samples of one question 1/2, as it is in the released
MATH rationales within a level (.49 for GPT-3.5, .52 for GPT-4); the others keep the line inside [0, 1]. A
rationale counts as right under the strict rule only if it also boxes the answer plainly, hence

    r = accuracy / (1 - unboxed - notation)
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from negdistill.checks import check_choice
from negdistill.data.arithmetic_templates import (
    SUBJECTS,
)
from negdistill.data.arithmetic_world import (
    LARGEST,
    SPLITS,
    Step,
    calculate,
    generate,
    hardness,
    read_steps,
)
from negdistill.data.records import Problem, Rationale

__all__ = [
    "KINDS",
    "SPLITS",
    "STRENGTHS",
    "SUBJECTS",
    "first_wrong_step",
    "generate",
    "read_steps",
    "slip",
    "teach",
]


@dataclass(frozen=True)
class Strength:
    """Accuracy per level 1-5 under the strict rule, and how often the answer is stated otherwise."""

    accuracy: tuple[float, ...]
    unboxed: float  # share of rationales that state the answer without a box
    notation: float  # share that box the same number written otherwise

    def ability(self, level: int, hardness: float) -> float:
        """Chance, in [0, 1], to reason rightly; beyond level 5 as at level 5."""
        r = self.accuracy[min(level, 5) - 1] / (1 - self.unboxed - self.notation)
        width = min(3 * r * (1 - r), 2 * r, 2 * (1 - r))
        return min(1.0, max(0.0, 0.5 + (r - hardness) / width))


STRENGTHS = {  # measured on the released MATH rationales of GPT-3.5 and GPT-4
    "weak": Strength((0.742, 0.577, 0.426, 0.282, 0.126), unboxed=0.013, notation=0.0045),
    "strong": Strength((0.743, 0.657, 0.566, 0.458, 0.232), unboxed=0.073, notation=0.007),
}
SYSTEMATIC = 0.4  # share of questions on which a teacher always makes the same mistake, when it makes one
READING = ("operation", "skipped", "misread")  # the written equations are true, the question is another
KINDS = ("neighbour", "digits", *READING)


def _swapped(number: int) -> int:
    """The number with its last two digits exchanged (itself when it has one digit)."""
    return number - number % 100 + number % 10 * 10 + number // 10 % 10 if number > 9 else number


def slip(steps: Sequence[Step], place: int, kind: str, rng: random.Random) -> tuple[Step, ...] | None:
    """The chain as written by somebody who slips at step `place` (from 0) and then goes on correctly.

    kind  neighbour: result off by 1, 2 or 10; digits: two digits of the result exchanged;
          operation: another operation; skipped: the sentence is left out; misread: another number is read
    Returns None when this slip cannot be told: no number changes, a later value leaves the range, or the
    final answer is right all the same.
    """
    check_choice("kind", kind, KINDS)
    step = steps[place]
    if kind == "neighbour":
        step = step._replace(result=step.result + rng.choice((-10, -2, -1, 1, 2, 10)))
    elif kind == "digits":
        step = step._replace(result=_swapped(step.result))
    elif kind == "operation":
        op = rng.choice([op for op in "+-*/" if op != step.op])
        step = step._replace(op=op, result=calculate(step.left, op, step.right))
    elif kind == "misread":
        right = rng.choice((step.right - 1, step.right + 1, _swapped(step.right)))
        sentence = re.sub(r"\d+", str(right), step.sentence)
        step = step._replace(right=right, result=calculate(step.left, step.op, right), sentence=sentence)
    value = step.left if kind == "skipped" else step.result
    written = [*steps[:place], *([] if kind == "skipped" else [step])]
    for later in steps[place + 1 :]:
        if value is None:
            return None
        later = later._replace(left=value, result=calculate(value, later.op, later.right))
        written.append(later)
        value = later.result
    if value is None or not 0 <= value <= LARGEST or value == steps[-1].result:
        return None
    return tuple(written)


def _mistaken(steps: Sequence[Step], kinds: Sequence[str], rng: random.Random) -> tuple[Step, ...]:
    """The first slip of random place and kind that can be told; at worst a last result one too low."""
    for _ in range(50):
        written = slip(steps, rng.randrange(len(steps)), rng.choice(kinds), rng)
        if written is not None:
            return written
    return (*steps[:-1], steps[-1]._replace(result=steps[-1].result - 1))


def _say(opening: str, steps: Sequence[Step], answer: str, rng: random.Random) -> str:
    """A rationale: the sentences of the question, each with its equation, then the answer."""
    said = [opening] if rng.random() < 0.7 else []
    for step in steps:
        joint = rng.choice((", so ", ", so ", ": ", ""))
        said.append(f"{step.sentence[:-1] + joint if joint else ''}{step.equation}.")
    return " ".join(
        [*said, rng.choice(("The answer is ", "So the answer is ", "That makes ")) + f"{answer}."]
    )


def teach(problems: Sequence[Problem], strength: str = "weak", n: int = 8, seed: int = 0) -> list[Rationale]:
    """n rationales per problem, in order, by the teacher `arithmetic-<strength>`.

    How able the teacher is at a question, and which misconception it holds, depends on question and strength
    only; the n samples depend on `seed` too. Problems with more than 5 steps are as hard as level 5.
    Raises ValueError for an unknown strength, n < 1, or a problem that is not of this benchmark.
    """
    check_choice("strength", strength, STRENGTHS)
    if n < 1:
        raise ValueError(f"n must be 1 or more; got {n}")
    teacher, rationales = STRENGTHS[strength], []
    for problem in problems:
        opening, steps = read_steps(problem)
        habit = random.Random(f"habit/{strength}/{problem.question}")
        able = teacher.ability(len(steps), hardness(problem.question))
        belief = _mistaken(steps, READING, habit) if habit.random() < SYSTEMATIC else None
        rng = random.Random(f"teach/{strength}/{seed}/{problem.question}")
        for index in range(n):
            right = rng.random() < able
            written = steps if right else _mistaken(steps, KINDS, rng) if belief is None else belief
            value = written[-1].result if written else steps[0].left  # a skipped only step leaves the start
            form = rng.random()
            answer = f"\\boxed{{{value}}}"
            if form < teacher.unboxed:
                answer = str(value)
            elif form < teacher.unboxed + teacher.notation:
                answer = rng.choice((f"\\boxed{{{value}.0}}", f"\\boxed{{\\frac{{{2 * value}}}{{2}}}}"))
            text = _say(opening, written, answer, rng)
            rationales.append(Rationale(problem.id, index, text, f"arithmetic-{strength}"))
    return rationales


_EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


def first_wrong_step(problem: Problem, text: str) -> int | None:
    """Index, from 0, of the first step of the problem that a step-by-step rationale gets wrong or leaves out.

    Compares the equations in the text with the problem's own steps, in order; the two sides of + and * may be
    exchanged. None when all are right; the number of steps when a superfluous equation follows them.
    """
    _, steps = read_steps(problem)
    found = [(op, {a, b} if op in "+*" else (a, b), c) for a, op, b, c in _EQUATION.findall(text)]
    for index, step in enumerate(steps):
        pair = (str(step.left), str(step.right))
        if found[index : index + 1] != [(step.op, set(pair) if step.op in "+*" else pair, str(step.result))]:
            return index
    return len(steps) if len(found) > len(steps) else None
