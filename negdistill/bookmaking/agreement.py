"""Agreement: how far two students solve the same questions, beyond what their accuracies make of chance.

    kappa = 2 (p_ab - p_a p_b) / (p_a + p_b - 2 p_a p_b)

is Cohen's kappa of two yes-or-no raters, p_ab the share of questions that both solve: 1 for equal sets, 0 for
independent ones, whatever the accuracies. `stats.overlap` is the measure of the paper, which is not. Students
that solve unequally many cannot reach 1, but the kappa of p_ab = min(p_a, p_b): `kappa_share` is what they
reach of that.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from negdistill.bookmaking.tables import points
from negdistill.stats import (
    RESAMPLES,
    Difference,
    Interval,
    _check_same,
    _matrix,
    _p_value,
    _percentiles,
    _resampled_means,
)


def kappa(one: pd.DataFrame, other: pd.DataFrame) -> Interval:
    """Cohen's kappa of what two methods solve, pooled over seeds, with its 95 % interval; ValueError as
    `stats.paired`. 0 where both solve none or all."""
    value, drawn = _kappas(one, other)
    return Interval(value, *_percentiles(drawn, 0.95))


def kappa_share(one: pd.DataFrame, other: pd.DataFrame) -> Interval:
    """`kappa` over the largest that the two accuracies allow, with its 95 % interval, at most 1."""
    (a, b, both), drawn = _means(one, other)
    shares = _shares(*drawn)
    return Interval(float(_shares(a, b, both)), *_percentiles(shares, 0.95))


def kappa_difference(frame: pd.DataFrame, one: pd.DataFrame, other: pd.DataFrame) -> Difference:
    """`kappa` of frame and one, minus `kappa` of frame and other, resampled together."""
    (value, drawn), (against, drawn_against) = _kappas(frame, one), _kappas(frame, other)
    found = drawn - drawn_against
    return Difference(value - against, *_percentiles(found, 0.95), _p_value(found, 1e-9))


def _kappas(one: pd.DataFrame, other: pd.DataFrame) -> tuple[float, np.ndarray]:
    """Kappa, and that of each resample."""
    observed, drawn = _means(one, other)
    return float(_kappa(*observed)), _kappa(*drawn)


def _means(one: pd.DataFrame, other: pd.DataFrame) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """p_a, p_b and p_ab, and those of each resample of questions and seeds, the same draws in every call."""
    a, b = _matrix(one, "one"), _matrix(other, "other")
    _check_same(a, b)
    parts = (a, b, a * b)
    observed = [np.asarray(part.to_numpy().mean()) for part in parts]
    return observed, [_resampled_means(part, RESAMPLES, 0) for part in parts]


def _shares(a: np.ndarray, b: np.ndarray, both: np.ndarray) -> np.ndarray:
    most = _kappa(a, b, np.minimum(a, b))
    return np.divide(_kappa(a, b, both), most, out=np.zeros_like(most), where=most > 0)


def _kappa(a: np.ndarray, b: np.ndarray, both: np.ndarray) -> np.ndarray:
    apart = a + b - 2 * a * b
    return np.divide(2 * (both - a * b), apart, out=np.zeros_like(apart), where=apart > 0)


def at_accuracy(path: pd.DataFrame, wanted: float) -> pd.DataFrame:
    """Predictions on "test" of a path of training where its accuracy on "valid" is nearest to the one wanted.

    The earliest of several such points.

    path  the trajectory of one fit, of `evaluate.Follow` with both sets
    """
    reached = points(path).sort_values("steps")
    nearest = (reached["valid"] - wanted).abs().idxmin()
    at = path["steps"] == reached.loc[nearest, "steps"]
    return path[at & (path["split"] == "test")]
