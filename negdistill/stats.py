"""Statistics: accuracies with intervals, paired comparisons, and the overlap of solved sets.

A run grades Q questions under each of S seeds, C[s, q] in {0, 1}. Its accuracy varies for two reasons, the
questions that were drawn and the seeds that were run, so both are resampled, crossed and independently:

    mean* = sum over s, q of  u_s w_q C[s, q],   u: draws of seeds / (S - 1),  w: draws of questions / (Q - 1)

One draw fewer than there are makes the bootstrap variance of a mean the unbiased one (Rao and Wu, 1988). The
crossed bootstrap counts the noise of single answers more than once (Owen, 2007), so an interval is a little
wide when the seeds hardly differ and close to nominal when they do. One seed says nothing about others:
its interval covers the questions only. Treating the S Q answers as independent would be too narrow.

Frames have the columns problem_id, seed, correct, and optionally method (then one method only).
"""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd

from negdistill.checks import check_number

RESAMPLES = 4000
MARGIN = 0.02  # differences of accuracy within it do not matter
VERDICTS = ("holds", "opposite", "no difference that matters", "undecided")


class Interval(NamedTuple):
    """A value and its interval, as fractions."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A difference of two fractions, its interval, and the two-sided p-value of "no difference"."""

    value: float
    low: float
    high: float
    p: float


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion; (low, high) in [0, 1], (0, 1) when n = 0.

    Both may be fractional, as the mean over seeds of the number solved is.
    """
    _check_level(level)
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n; got successes={successes}, n={n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half  # exact ends, not 1e-18
    high = 1.0 if successes == n else centre + half
    return low, high


def bootstrap_accuracy(
    frame: pd.DataFrame, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Accuracy of one method with its percentile interval, clustered by question and seed.

    Where all answers are right, or none, all resamples are equal: the interval is then Wilson's, of as many
    answers as there are questions.

    Raises ValueError when a column is missing, the frame holds several methods or no row, a question occurs
    twice under one seed, the seeds did not answer the same questions, or a correct lies outside 0 to 1.
    """
    correct = _matrix(frame, "frame")
    value = float(correct.to_numpy().mean())
    if value in (0, 1):
        return Interval(value, *wilson(value * correct.shape[1], correct.shape[1], level))
    return Interval(value, *_percentiles(_resampled_means(correct, resamples, seed), level))


def paired(
    frame: pd.DataFrame,
    baseline: pd.DataFrame,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Accuracy of `frame` minus that of `baseline`, compared question by question and seed by seed.

    The interval is the percentile interval of the differences resampled by question and seed. p inverts it:
    twice the smaller share of resampled differences on one side of 0 (0 included, and the observed sample
    counted as one resample), so p < 1 - level agrees with an interval that leaves out 0. p is in (0, 1].

    Where no answer differs, or all do in one direction, all resamples are equal. With none the interval is
    [-most, most], Wilson's upper end for the share of questions that differ. With all, p and interval are
    those of the sign test: so few questions as five, all in one direction, may be chance.

    Raises ValueError as `bootstrap_accuracy`, and when the two do not hold the same questions and seeds.
    """
    correct, other = _matrix(frame, "frame"), _matrix(baseline, "baseline")
    _check_same(correct, other)
    difference = correct - other
    means = _resampled_means(difference, resamples, seed)
    tiny = 0.5 / difference.size  # the smallest real step is 1 / ((S - 1) (Q - 1)); a 0 may come out as 1e-9
    means[np.abs(means) < tiny] = 0
    p = _p_value(means, tiny)
    value, questions = float(difference.to_numpy().mean()), difference.shape[1]
    if not difference.to_numpy().any():
        _, most = wilson(0, questions, level)
        low, high = -most, most
    elif (difference == value).all(axis=None):
        share = (0.5 - level / 2) ** (1 / questions)  # lower end of Clopper and Pearson's for all of them
        low, high = sorted((value * (2 * share - 1), value))
        p = max(p, min(1.0, 2 * 0.5**questions))
    else:
        low, high = _percentiles(means, level)
    return Difference(value, low, high, p)


def verdict(difference: Difference, sign: int = 1) -> str:
    """One of VERDICTS, from the interval of a difference alone.

    sign  of the difference that is claimed: 1 or -1

    holds                       all of the interval lies on the claimed side of 0
    opposite                    all of it on the other side
    no difference that matters  all of it within MARGIN of 0
    undecided                   otherwise
    """
    low, high = sorted((sign * difference.low, sign * difference.high))
    if low > 0:
        return VERDICTS[0]
    if high < 0:
        return VERDICTS[1]
    return VERDICTS[2] if -MARGIN <= low and high <= MARGIN else VERDICTS[3]


def holm(p: pd.Series) -> pd.Series:
    """Holm's correction of p-values; missing ones stay missing and do not count."""
    ordered = p.dropna().sort_values()
    factors = np.arange(len(ordered), 0, -1)
    corrected = np.minimum(1, np.maximum.accumulate(ordered.to_numpy() * factors))
    return pd.Series(corrected, ordered.index).reindex(p.index)


def overlap(
    frame_a: pd.DataFrame,
    frame_b: pd.DataFrame,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Intersection over union of the questions that two methods solve, over all seeds.

    Sum over seeds of the number solved by both, over the sum of the number solved by either, with the
    percentile interval of resampled questions and seeds; Wilson's where the two sets are equal or disjoint
    under every seed. Raises ValueError as `paired`.
    """
    a, b = _matrix(frame_a, "frame_a"), _matrix(frame_b, "frame_b")
    _check_same(a, b)
    both, union = a * b, np.maximum(a, b)
    counts = both.to_numpy().sum() / len(a), union.to_numpy().sum() / len(a)
    if counts[0] in (0, counts[1]):
        return Interval(counts[0] / counts[1] if counts[1] else 0.0, *wilson(*counts, level))
    ratio = _resampled_overlap(a, b, resamples, seed)
    return Interval(counts[0] / counts[1], *_percentiles(ratio, level))


def _matrix(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Seeds by questions, float 0 or 1, both in sorted order."""
    if missing := [column for column in ("problem_id", "seed", "correct") if column not in frame]:
        raise ValueError(
            f"{name} must have the columns problem_id, seed, correct; missing {', '.join(missing)}"
        )
    if frame.empty:
        raise ValueError(f"{name} must hold at least one row; got none")
    if "method" in frame and frame["method"].nunique() > 1:
        methods = ", ".join(map(str, frame["method"].unique()))
        raise ValueError(
            f"{name} must hold one method; got {methods}; select one with frame[frame.method == ...]"
        )
    if (twice := frame.duplicated(["problem_id", "seed"])).any():
        row = frame[twice].iloc[0]
        raise ValueError(
            f"{name} must hold a question once per seed; {row.problem_id!r} repeats, seed {row.seed}"
        )
    if (odd := ~pd.to_numeric(frame["correct"], errors="coerce").between(0, 1)).any():
        row = frame[odd].iloc[0]
        raise ValueError(
            f"correct of {name} must be True or False, or a share from 0 to 1; got {row.correct} for "
            f"{row.problem_id!r}, seed {row.seed}"
        )
    matrix = frame.pivot(index="seed", columns="problem_id", values="correct").astype(float)
    if matrix.isna().to_numpy().any():
        seed, question = matrix.isna().stack().idxmax()
        raise ValueError(
            f"{name} must hold the same questions under every seed; seed {seed} lacks {question!r}; "
            "evaluate all seeds on one list of problems"
        )
    return matrix


def _check_same(a: pd.DataFrame, b: pd.DataFrame) -> None:
    for kind, one, other in (("questions", a.columns, b.columns), ("seeds", a.index, b.index)):
        if not one.equals(other):
            odd = list(one.symmetric_difference(other))
            raise ValueError(
                f"both frames must hold the same {kind}; {len(odd)} are in one of them only, "
                f"for example {odd[0]}; evaluate both on one list of {kind}"
            )


def _check_level(level: float) -> None:
    """TypeError unless a level of confidence is a number, ValueError unless between 0 and 1."""
    check_number("level", level)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95; got {level}")


@lru_cache(maxsize=8)
def _draws(kind: int, n: int, resamples: int, seed: int) -> np.ndarray:
    """Weights of n clusters, (resamples, n), each row summing to 1: n - 1 draws with replacement.

    kind tells seeds from questions, so that equally many of both are not drawn alike.
    """
    count = max(n - 1, 1)
    drawn = np.random.default_rng([seed, kind]).multinomial(count, np.full(n, 1 / n), size=resamples)
    weights = drawn.astype(np.float32) / count
    weights.flags.writeable = False
    return weights


def _resampled_means(matrix: pd.DataFrame, resamples: int, seed: int) -> np.ndarray:
    """Means of a seeds x questions matrix with both resampled, (resamples,)."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1; got {resamples}")
    seeds, questions = matrix.shape
    by_seed = _draws(0, questions, resamples, seed) @ matrix.to_numpy(np.float32).T  # (resamples, seeds)
    return (_draws(1, seeds, resamples, seed) * by_seed).sum(axis=1).astype(float)


def _resampled_overlap(a: pd.DataFrame, b: pd.DataFrame, resamples: int, seed: int) -> np.ndarray:
    """Both over either, of resampled seeds and questions, (resamples,); 0 where neither solves any."""
    denominator = _resampled_means(np.maximum(a, b), resamples, seed)
    both = _resampled_means(a * b, resamples, seed)
    return np.divide(both, denominator, out=np.zeros(resamples), where=denominator > 0)


def _p_value(values: np.ndarray, tolerance: float) -> float:
    """Two-sided, of resampled differences; what lies within the tolerance is 0."""
    below, above = np.sum(values <= tolerance), np.sum(values >= -tolerance)
    return float(min(1.0, 2 * (min(below, above) + 1) / (len(values) + 1)))


def _percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    _check_level(level)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
