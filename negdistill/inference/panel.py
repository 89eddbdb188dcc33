"""Panel: the candidates of many questions as arrays, Q questions by n candidates.

It gives the accuracy of a rule for every number of candidates up to n: the average over subsets of the n, not
over fresh draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd

from negdistill.data.answers import Rule, equal_pairs, final_answer
from negdistill.data.records import Problem, Rationale
from negdistill.method.asc import TIE, check_size, check_weights, groups, pass_at_n

SUBSETS = 256  # of one size, where there are more


# --- many questions -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Candidates of Q questions, n each: ids (Q,) of the questions and four arrays (Q, n).

    answers   their texts, None where missing
    group     as `groups` gives them          right  whether the candidate's own answer is right, bool
    spelling  number of the answer's text, equal within a question for equal texts
    """

    ids: tuple[str, ...]
    answers: np.ndarray
    group: np.ndarray
    spelling: np.ndarray
    right: np.ndarray

    def winners(self, weights: np.ndarray | None = None, subsets: np.ndarray | None = None) -> np.ndarray:
        """The candidate whose answer `vote` returns, int (Q, S); -1 where all of a subset are missing.

        weights  (Q, n), None for 1 each        subsets  bool (S, n), by default one of all candidates
        """
        if subsets is None:
            subsets = np.ones((1, self.group.shape[1]), dtype=bool)
        used = np.ones(self.group.shape) if weights is None else check_weights(weights, self.group.shape)
        n = subsets.shape[1]
        chunk = max(1, (1 << 22) // (n * max(n, len(subsets))))  # questions at a time: 32 MiB per array
        return np.concatenate(
            [self._winners(used, subsets, slice(at, at + chunk)) for at in range(0, len(self.ids), chunk)]
        )

    def _winners(self, weights: np.ndarray, subsets: np.ndarray, at: slice) -> np.ndarray:
        group, spelling = self.group[at], self.spelling[at]
        there = subsets[None] & (group >= 0)[:, None]  # (q, S, n)
        same = (group[:, :, None] == group[:, None, :]).astype(float)  # (q, n, n)
        total = np.where(there, subsets @ (same * weights[at, :, None]), -1.0)
        tied = there & (total >= total.max(axis=2, keepdims=True) * (1 - TIE))
        size = np.where(tied, subsets @ same, -1.0)
        first = (size == size.max(axis=2, keepdims=True)).argmax(axis=2)  # (q, S)
        members = there & (group[:, None, :] == np.take_along_axis(group, first, axis=1)[:, :, None])
        spelt = subsets @ (spelling[:, :, None] == spelling[:, None, :]).astype(float)
        chosen = np.where(members, spelt, -1.0).argmax(axis=2)
        return np.where(there.any(axis=2), chosen, -1)

    def elected(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Whether the answer that all candidates elect is right, bool (Q,)."""
        return self._right(self.winners(weights))[:, 0]

    def votes(self, weights: np.ndarray | None = None) -> pd.DataFrame:
        """What all candidates elect, a row per question: problem_id, answer (None without one), correct."""
        winners = self.winners(weights).clip(min=0)  # where none won, the first is None as all are
        texts = pd.Series(np.take_along_axis(self.answers, winners, axis=1)[:, 0], dtype=object)
        return pd.DataFrame({"problem_id": self.ids, "answer": texts, "correct": self.elected(weights)})

    def _right(self, winners: np.ndarray) -> np.ndarray:
        return (winners >= 0) & np.take_along_axis(self.right, winners.clip(min=0), axis=1)

    def voted(self, size: int, weights: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
        """Share of the subsets of that size whose vote is right, (Q,); see `draw_subsets`."""
        check_size("size", size, self.group.shape[1])
        return self._right(self.winners(weights, draw_subsets(self.group.shape[1], size, seed))).mean(axis=1)

    def best(self, size: int, weights: np.ndarray) -> np.ndarray:
        """Share of all subsets of that size whose `best_of_n` is right, (Q,), exactly."""
        n = self.group.shape[1]
        check_size("size", size, n)
        used = np.where(self.group >= 0, check_weights(weights, self.group.shape), -1.0)
        order = np.argsort(-used, axis=1, kind="stable")
        # the candidate of rank r leads the subsets whose other size - 1 members rank below it
        leads = np.array([comb(n - 1 - rank, size - 1) for rank in range(n)]) / comb(n, size)
        return np.take_along_axis(self.right, order, axis=1) @ leads

    def passed(self, size: int) -> np.ndarray:
        """`pass_at_n` of each question, (Q,): what no choice among the candidates can exceed."""
        return np.array([pass_at_n(row, size) for row in self.right])


def panel(
    ids: Sequence[str],
    answers: Sequence[Sequence[str | None]],
    references: Sequence[str],
    rule: Rule = "math",
) -> Panel:
    """A `Panel` from the candidates' final answers, n per question, and each question's reference.

    rule  of `equivalent`, for what is right. ValueError unless all questions have equally many candidates,
    at least one, and the three lists are equally long.
    """
    if not len(ids) == len(answers) == len(references):
        raise ValueError(
            "ids, answers and references must be equally long; "
            f"got {len(ids)}, {len(answers)} and {len(references)}"
        )
    if len({len(row) for row in answers}) != 1 or not len(answers[0]):
        raise ValueError("answers must hold equally many candidates for every question, and at least one")
    asked = {
        (answer, reference) for row, reference in zip(answers, references, strict=True) for answer in row
    }
    equal = equal_pairs(sorted(pair for pair in asked if pair[0] is not None), rule)
    spelling = [{text: number for number, text in enumerate(dict.fromkeys(row))} for row in answers]
    return Panel(
        tuple(ids),
        np.array([[*row] for row in answers], dtype=object),
        np.stack(groups(answers)),
        np.array([[names[text] for text in row] for names, row in zip(spelling, answers, strict=True)]),
        np.array([[(a, ref) in equal for a in row] for row, ref in zip(answers, references, strict=True)]),
    )


def sampled(
    problems: Sequence[Problem], samples: Sequence[Rationale], extract: str = "boxed", rule: Rule = "math"
) -> Panel:
    """The `Panel` of samples: equally many per problem, together and in the order of the problems.

    extract, rule  of `final_answer` and of `panel`

    Numbers of the samples such as log-probabilities, in the same order, take the panel's shape with
    `np.reshape(numbers, panel.group.shape)`. ValueError for samples in another order.
    """
    n = len(samples) // max(1, len(problems))
    expected = [problem.id for problem in problems for _ in range(n)]
    if not n or [one.problem_id for one in samples] != expected:
        raise ValueError(
            "samples must be equally many per problem, in the order of the problems, as `sample` has them; "
            f"got {len(samples)} of {len(problems)} problems"
        )
    answers = [final_answer(one.text, extract) for one in samples]
    rows = [answers[at : at + n] for at in range(0, len(answers), n)]
    return panel([problem.id for problem in problems], rows, [problem.answer for problem in problems], rule)


def draw_subsets(n: int, size: int, seed: int = 0) -> np.ndarray:
    """Different subsets of n candidates, bool (S, n): all of that size, or SUBSETS drawn with the seed."""
    random = np.random.default_rng([seed, n, size])
    rows: dict[tuple[int, ...], None] = {}
    if comb(n, size) <= SUBSETS:
        rows = dict.fromkeys(combinations(range(n), size))
    while len(rows) < min(SUBSETS, comb(n, size)):
        rows[tuple(sorted(random.permutation(n)[:size].tolist()))] = None
    subsets = np.zeros((len(rows), n), dtype=bool)
    for row, chosen in enumerate(rows):
        subsets[row, list(chosen)] = True
    return subsets


def curves(
    panel: Panel,
    votes: Mapping[str, np.ndarray | None],
    best: Mapping[str, np.ndarray],
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy of each rule for each number of candidates: problem_id, rule, n, correct (a share, 0 to 1).

    votes  weights (Q, n) of `vote` by the name of the rule, None for 1 each
    best   weights of `best_of_n` by the name of the rule

    Numbers of candidates go from 1 to n; "pass@n" is added as a rule.

    All rules meet the same subsets. Averaged over questions, `correct` is the accuracy.
    """
    rows = []
    for size in range(1, panel.group.shape[1] + 1):
        shares = {name: panel.voted(size, weights, seed) for name, weights in votes.items()}
        shares |= {name: panel.best(size, weights) for name, weights in best.items()}
        shares["pass@n"] = panel.passed(size)
        rows += [
            pd.DataFrame({"problem_id": panel.ids, "rule": name, "n": size, "correct": share})
            for name, share in shares.items()
        ]
    return pd.concat(rows, ignore_index=True)
