"""Ranker report: what scores are worth on questions that the ranker has not seen."""

from __future__ import annotations

import numpy as np
import pandas as pd

from negdistill.inference.ranker import Ranker, score
from negdistill.stats import wilson
from negdistill.training.dataset import TrainingSet

RESAMPLES = 400  # of questions, behind an interval

# --- judge --------------------------------------------------------------------------------------------


def judge(ranker: Ranker, data: TrainingSet, progress: bool = True) -> pd.DataFrame:
    """Scores of all rationales of a set: teacher, problem_id, index, positive, score."""
    rationales = [*data.positives, *data.negatives]
    return pd.DataFrame(
        {
            "teacher": [one.teacher for one in rationales],
            "problem_id": [one.problem_id for one in rationales],
            "index": [one.index for one in rationales],
            "positive": [place < len(data.positives) for place in range(len(rationales))],
            "score": score(ranker, data.problems, rationales, progress=progress),
        }
    )


def report(judged: pd.DataFrame) -> pd.DataFrame:
    """What scores are worth: value, low and high of each measure, a 95 % interval from resampled questions.

    judged  one row per rationale: problem_id, positive (bool), score (0 to 1)

    accuracy   share of the rationales whose score is above 1/2 if right, at most 1/2 if wrong
    majority   share of the larger label: the accuracy of a constant
    AUROC      probability that a right rationale scores above a wrong one, ties half
    pairwise   the same among the rationales of one question, averaged over questions that have both
    A measure that nothing defines, as AUROC without wrong rationales, is missing (NaN).

    ValueError for a frame without these columns or without rows, and for a score outside 0 to 1.
    """
    _require(judged)
    codes, names = pd.factorize(judged["problem_id"])
    positive, values = judged["positive"].to_numpy(bool), judged["score"].to_numpy(float)
    within = np.full(len(names), np.nan)
    for number, part in judged.groupby(codes):
        here = part["score"].to_numpy(float), part["positive"].to_numpy(bool)
        within[number] = _auroc(*here, np.ones(len(part)))
    random = np.random.default_rng(0)
    count = max(len(names) - 1, 1)  # one draw fewer than there are, as in `stats`
    drawn = random.multinomial(count, np.full(len(names), 1 / len(names)), size=RESAMPLES)
    measures = {name: [] for name in ("accuracy", "majority", "AUROC", "pairwise")}
    for weights in (np.ones(len(names)), *drawn):
        rows = weights[codes]
        right = np.average(positive, weights=rows)
        measures["accuracy"].append(np.average((values > 0.5) == positive, weights=rows))
        measures["majority"].append(max(right, 1 - right))
        measures["AUROC"].append(_auroc(values, positive, rows))
        both = ~np.isnan(within) & (weights > 0)
        mean = np.average(within[both], weights=weights[both]) if both.any() else np.nan
        measures["pairwise"].append(mean)
    ends = [0.025, 0.975]
    table = {name: [found[0], *_quantiles(found[1:], ends)] for name, found in measures.items()}
    return pd.DataFrame.from_dict(table, orient="index", columns=["value", "low", "high"])


def _quantiles(values: list[float], ends: list[float]) -> np.ndarray:
    there = np.array(values)[~np.isnan(values)]
    return np.quantile(there, ends) if len(there) else np.full(len(ends), np.nan)


def _auroc(values: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
    """Weighted share of the pairs of a right and a wrong row that the values order rightly, ties half."""
    _, level = np.unique(values, return_inverse=True)
    right = np.bincount(level, weights * positive)
    wrong = np.bincount(level, weights * ~positive)
    total = right.sum() * wrong.sum()
    return float(right @ (wrong.cumsum() - wrong / 2) / total) if total else float("nan")


def calibration(judged: pd.DataFrame, bins: int = 10) -> pd.DataFrame:
    """Share of right rationales against score: a row per bin of equal width that holds one.

    Columns: bin (from 0), rationales (count), score (mean), share (of right ones), and low and high of its
    Wilson interval; rationales of one question are alike, so it is a little narrow.
    """
    _require(judged)
    if bins < 1:
        raise ValueError(f"bins must be at least 1; got {bins}")
    number = (judged["score"] * bins).astype(int).clip(0, bins - 1).rename("bin")
    groups = judged.groupby(number)
    table = pd.DataFrame(
        {"rationales": groups.size(), "score": groups["score"].mean(), "share": groups["positive"].mean()}
    )
    ends = [wilson(share * n, n) for share, n in zip(table["share"], table["rationales"], strict=True)]
    return table.assign(low=[low for low, _ in ends], high=[high for _, high in ends]).reset_index()


def _require(judged: pd.DataFrame) -> None:
    if judged.empty or not {"problem_id", "positive", "score"} <= set(judged):
        raise ValueError(
            "judged must be a frame with the columns problem_id, positive and score and at least one row; "
            f"got {len(judged)} rows of {', '.join(judged) or 'nothing'}"
        )
    if not (there := judged["score"].between(0, 1)).all():
        row = judged[~there].iloc[0]
        raise ValueError(f"score must lie between 0 and 1; got {row.score} for {row.problem_id!r}")
