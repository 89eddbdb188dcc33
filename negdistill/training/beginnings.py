"""Right beginnings: how far a wrong rationale is right, and training sets made by that.

steps_right    embedded benchmark: the sentences before the first wrong step
words_shared   any text: the words that some right rationale of the question begins with too
right_shares   how much of each wrong rationale of a set that is
halves         the wrong rationales of a set, soon wrong and late wrong, equally many
beginnings     its wrong rationales, each cut where it goes wrong
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, takewhile

import numpy as np

from negdistill.data.arithmetic import first_wrong_step
from negdistill.data.records import Problem
from negdistill.training.dataset import TrainingSet

Beginning = Callable[[Problem, str, Sequence[str]], str]


def steps_right(problem: Problem, text: str, right: Sequence[str] = ()) -> str:
    """The sentences of a rationale before the one with its first wrong step; all where no step is wrong.

    problem  of the embedded benchmark, which knows its steps: ValueError for any other
    right    not read; other rationales of the question, as `words_shared` takes them
    """
    wrong = first_wrong_step(problem, text)
    if wrong is None:
        return text
    sentences = re.split(r"(?<=\.) ", text)
    seen = accumulate(sentence.count("=") for sentence in sentences)
    kept = sum(1 for _ in takewhile(lambda count: count <= wrong, seen))
    return " ".join(sentences[: min(kept, len(sentences) - 1)])  # a step that is left out: all but the answer


def words_shared(problem: Problem, text: str, right: Sequence[str]) -> str:
    """The longest beginning of a text, in words, that one of the right ones has too; spaces do not count."""
    words, best = list(re.finditer(r"\S+", text)), 0
    for other in right:
        pairs = zip((word.group() for word in words), other.split(), strict=False)
        best = max(best, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return text[: words[best - 1].end()] if best else ""


def right_shares(data: TrainingSet, beginning: Beginning) -> list[float]:
    """The share of the characters of each wrong rationale that is right, 0 to 1, in their order.

    beginning  `steps_right` or `words_shared`: what of a wrong rationale is right
    """
    cut = zip(data.negatives, _beginnings(data, beginning), strict=True)
    return [len(kept) / max(1, len(one.text)) for one, kept in cut]


def halves(data: TrainingSet, beginning: Beginning) -> tuple[TrainingSet, TrainingSet]:
    """The set with those of its wrong rationales that go wrong soon, and with those that go wrong late.

    beginning  as in `right_shares`, by which they are divided

    Of an odd number the middle one is late; of equal shares the
    earlier ones are soon. Both halves keep the order and all right rationales.
    """
    shares = right_shares(data, beginning)
    soon = set(np.argsort(shares, kind="stable")[: len(shares) // 2].tolist())
    sides = (
        tuple(one for at, one in enumerate(data.negatives) if (at in soon) is side) for side in (True, False)
    )
    first, second = (replace(data, negatives=side) for side in sides)
    return first, second


def beginnings(data: TrainingSet, beginning: Beginning) -> TrainingSet:
    """The set with its wrong rationales cut where they go wrong; where nothing is left, left out."""
    cut = zip(data.negatives, _beginnings(data, beginning), strict=True)
    return replace(data, negatives=tuple(replace(one, text=kept) for one, kept in cut if kept.strip()))


def _beginnings(data: TrainingSet, beginning: Beginning) -> list[str]:
    problems = {problem.id: problem for problem in data.problems}
    right: dict[str, list[str]] = {problem.id: [problem.solution] for problem in data.problems}
    for one in data.positives:
        right[one.problem_id].append(one.text)
    return [beginning(problems[one.problem_id], one.text, right[one.problem_id]) for one in data.negatives]
