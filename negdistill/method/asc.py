"""Voting: one answer out of many.

    y* = argmax_y  sum_i [y_i ~ y] w_i         y_i ~ y: equivalent under rule "math", closed transitively

    sc    w_i = 1                              self-consistency
    ws    w_i = probability of the sequence    weighted self-consistency, see `sequence_weights`
    asc   w_i = score of the ranker            adaptive self-consistency, book/method.md, step 3
    lr    w_i = p+(y_i | x) / p-(y_i | x)      likelihood ratio of two adapters, see `ratio_weights`

A missing answer (None) never wins. Equal sums go to the larger group, then to the group seen first; returned
is the group's most frequent spelling, of equally frequent ones the first.

`Panel` holds the candidates of many questions as arrays, Q questions by n candidates, and gives the accuracy
of a rule for every number of candidates up to n: the average over subsets of the n, not over fresh draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb, fsum

import numpy as np

from negdistill.checks import check_each, check_number
from negdistill.data.answers import equal_pairs

TIE = 1e-9  # sums closer than this share of the largest are equal: their order of summation is no vote

# --- one question -------------------------------------------------------------------------------------


def vote(answers: Sequence[str | None], weights: Sequence[float] | None = None) -> str | None:
    """The answer that the candidates elect, eq-asc of book/method.md; None only where all are missing.

    answers  final answers of the candidates, None where there is none
    weights  one per candidate, at least 0; only their ratios count. None: each counts 1, self-consistency

    ValueError for weights that are negative, not finite, or not as many as the answers; TypeError for an
    answer that is neither a text nor None, and for a weight that is no number.
    """
    answers = check_each(
        "answers", answers, (str, type(None)), "a list of texts, or None for one that is missing"
    )
    used = np.ones(len(answers)) if weights is None else check_weights(weights, (len(answers),))
    ids = groups([answers])[0]
    members: dict[int, list[int]] = {}
    for place, group in enumerate(ids):
        if group >= 0:
            members.setdefault(int(group), []).append(place)
    if not members:
        return None
    totals = {group: fsum(used[places]) for group, places in members.items()}
    enough = max(totals.values()) * (1 - TIE)
    winner = max((group for group in members if totals[group] >= enough), key=lambda g: len(members[g]))
    spellings = [answers[place] for place in members[winner]]
    return max(spellings, key=spellings.count)


def best_of_n(answers: Sequence[str | None], weights: Sequence[float]) -> str | None:
    """The answer with the largest weight, of equal ones the first; None only where all are missing.

    Weights as in `vote`, also for what is refused.
    """
    checked = check_weights(weights, (len(answers),))
    present = [place for place, answer in enumerate(answers) if answer is not None]
    return answers[max(present, key=lambda place: checked[place])] if present else None


def pass_at_n(right: Sequence[bool], n: int) -> float:
    """Probability that n of the candidates, drawn without replacement, hold a right one.

        1 - C(N - c, n) / C(N, n),   N candidates, c of them right

    For candidates that are independent samples this is unbiased for n fresh ones (Chen et al., 2021).
    ValueError unless n lies between 1 and the number of candidates.
    """
    check_size("n", n, len(right))
    return 1 - comb(len(right) - sum(map(bool, right)), n) / comb(len(right), n)


def sequence_weights(log_probs: Sequence[float], lengths: Sequence[int] | None = None) -> np.ndarray:
    """Weights of rule "ws": probabilities of the sequences, normalised over the last axis to a sum of 1.

    log_probs  natural logarithms, (..., n)
    lengths    tokens of each, (..., n): the weight is then the geometric mean of the token probabilities

    ValueError for lengths below 1 or of another shape, for logarithms above 0 or not finite, and for no
    candidate.
    """
    logs = np.asarray(log_probs, dtype=float)
    if not (np.isfinite(logs) & (logs <= 0)).all():
        raise ValueError("log_probs must be finite and at most 0, natural logarithms of probabilities")
    return _normalised(logs, lengths)


def ratio_weights(
    right: Sequence[float], wrong: Sequence[float], lengths: Sequence[int] | None = None
) -> np.ndarray:
    """Weights of rule "lr": p+ / p- of each candidate, normalised over the last axis to a sum of 1.

    right, wrong  natural logarithms of the candidates' probabilities under an adapter that was trained on
                  right rationales and under one that was trained on wrong ones, (..., n) each
    lengths       as in `sequence_weights`: the weight is then the geometric mean over tokens

    Errors as in `sequence_weights`.
    """
    sides = [np.asarray(side, dtype=float) for side in (right, wrong)]
    if sides[0].shape != sides[1].shape:
        raise ValueError(f"wrong must be as many as right, {sides[0].shape}; got {sides[1].shape}")
    for name, logs in zip(("right", "wrong"), sides, strict=True):
        if not (np.isfinite(logs) & (logs <= 0)).all():
            raise ValueError(f"{name} must be finite and at most 0, natural logarithms of probabilities")
    return _normalised(sides[0] - sides[1], lengths)


def _normalised(logs: np.ndarray, lengths: Sequence[int] | None) -> np.ndarray:
    if not logs.ndim or not logs.shape[-1]:
        raise ValueError(f"log_probs must hold at least one candidate; got the shape {logs.shape}")
    if lengths is not None:
        counts = np.asarray(lengths)
        if counts.shape != logs.shape or not (counts >= 1).all():
            raise ValueError("lengths must be at least 1, and as many as log_probs")
        logs = logs / counts
    weights = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def check_size(name: str, size: int, most: int) -> None:
    """ValueError unless a number of candidates lies between 1 and `most`."""
    if not 1 <= size <= most:
        raise ValueError(f"{name} must lie between 1 and {most}, the number of candidates; got {size}")


def check_weights(weights: Sequence[float] | np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The weights as floats of that shape; TypeError unless all are numbers, ValueError unless all are finite
    and at least 0."""
    checked = np.asarray(weights)
    if checked.dtype.kind not in "biuf":  # NumPy would read a number out of a text
        for one in checked.flat:
            check_number("weights", one)
    checked = checked.astype(float)
    if checked.shape != shape:
        raise ValueError(f"weights must be one per answer, {shape}; got {checked.shape}")
    if not (np.isfinite(checked) & (checked >= 0)).all():
        wrong = checked[~(np.isfinite(checked) & (checked >= 0))].flat[0]
        raise ValueError(
            f"weights must be finite and at least 0; got {wrong}; "
            "logarithms of probabilities go through sequence_weights first"
        )
    return checked


# --- groups -------------------------------------------------------------------------------------------


def groups(questions: Sequence[Sequence[str | None]]) -> list[np.ndarray]:
    """The group of every candidate: one int array per question, numbered as first seen, -1 where missing.

    Two answers are in one group if they are `equivalent` under rule "math" or if a chain of such pairs joins
    them. What takes algebra is asked of math-verify for all pairs of all questions together.
    """
    spellings = [list(dict.fromkeys(filter(_is_there, question))) for question in questions]
    equal = equal_pairs((pair for question in spellings for pair in combinations(question, 2)), "math")
    found = []
    for question, own in zip(questions, spellings, strict=True):
        leader = {answer: answer for answer in own}
        for one, other in combinations(own, 2):
            if (one, other) in equal:
                first, second = leader[one], leader[other]
                leader = {answer: first if top == second else top for answer, top in leader.items()}
        numbers = {name: number for number, name in enumerate(dict.fromkeys(leader.values()))}
        group = [-1 if answer is None else numbers[leader[answer]] for answer in question]
        found.append(np.array(group, dtype=int))
    return found


def _is_there(answer: str | None) -> bool:
    return answer is not None
