"""Exercises: whether an answer to an exercise of a chapter is right, in words.

    answer, what the question gives  --the package's own functions-->  right value  -->  a sentence

A cell of an exercise ends with `print(exercises.name(answer, ...))`. What follows the answer is what the
question gives. No solution stands here: each is computed from that. `...` in place of an answer, or of a part
of it, is no answer yet. Numbers are right when they agree to two decimals, counts when they are equal. What
cannot be read as an answer is told so in words too, and raises nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import fsum

import numpy as np
import pandas as pd
import torch
from torch import nn

from negdistill.bookmaking.tables import solved_table
from negdistill.data.answers import equivalent
from negdistill.data.arithmetic_world import LARGEST, calculate, read_steps
from negdistill.data.finding import final_answer
from negdistill.data.records import Problem
from negdistill.method.asc import best_of_n, groups, vote
from negdistill.method.nat import attach
from negdistill.method.nat_unit import Integrate, NATConfig, integrate_plain
from negdistill.method.nce import calibration_beta, kd_weights
from negdistill.method.rivals import preference, rationale_unlikelihood
from negdistill.stats import Difference, verdict, wilson
from negdistill.training.batching import Encoded, batches
from negdistill.training.beginnings import words_shared
from negdistill.training.method_table import trainings
from negdistill.training.steps import TrainConfig, steps

CLOSE = 0.005 + 1e-9  # two decimals, and the rounding of what is computed
OPEN = "No answer yet: put yours in place of the three dots and run the cell again."
RIGHT = "Right."
MOST = 1000  # largest factor or power that is tried

Count = tuple[float, int]  # right ones, and of how many

# --- words --------------------------------------------------------------------------------------------


def _open(answer: object) -> bool:
    return answer is ... or (isinstance(answer, list | tuple) and any(map(_open, answer)))


def _shape(sizes: Sequence[int], kind: str) -> str:
    """As "a number", "a list of 1 number", "a list of 2 lists of 3 numbers"."""
    kinds = ["list"] * (len(sizes) - 1) + [kind]
    inner = (f" of {size} {one}{'s' * (size > 1)}" for size, one in zip(sizes, kinds, strict=True))
    return "a list" + "".join(inner) if sizes else f"a {kind}"


def _read(answer: object, sizes: Sequence[int]) -> np.ndarray | None:
    """The numbers of an answer; None where it is not so many finite ones."""
    try:
        found = np.asarray(answer, dtype=float)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # texts, unequal lists, gradients
        return None
    return found if found.shape == tuple(sizes) and np.isfinite(found).all() else None


def _numbers(answer: object, right: object, close: float = CLOSE) -> str:
    """Which numbers are how far off; `close` is what may be between."""
    wanted = np.asarray(right, dtype=float)
    if _open(answer):
        return OPEN
    if (found := _read(answer, wanted.shape)) is None:
        return f"An answer here is {_shape(wanted.shape, 'number')}; got {answer!r}."
    apart = (found - wanted).ravel()
    off = [
        f"{f'number {place} is ' if wanted.ndim else 'it is '}{round(abs(by), 3):,g} "
        f"too {'large' if by > 0 else 'small'}"
        for place, by in enumerate(apart, 1)
        if abs(by) > close
    ]
    return f"Not yet: {', '.join(off)}." if off else RIGHT


def _counts(answer: object, right: object) -> str:
    return _numbers(answer, right, close=0)


def _texts(answer: object, right: Sequence[str]) -> str:
    """Which of several texts are others than the right ones."""
    if _open(answer):
        return OPEN
    listed = isinstance(answer, list | tuple) and all(isinstance(one, str) for one in answer)
    if not listed or len(answer) != len(right):
        return f"An answer here is {_shape([len(right)], 'text')}; got {answer!r}."
    pairs = enumerate(zip(answer, right, strict=True), 1)
    off = [f"text {place} is another" for place, (said, wanted) in pairs if said.strip() != wanted]
    return f"Not yet: {', '.join(off)}." if off else RIGHT


# --- grading and data ---------------------------------------------------------------------------------


def positives(answer: object, texts: Sequence[str], reference: str, rules: Sequence[tuple[str, str]]) -> str:
    """How many of the texts are graded right, a count for each pair of rules: finding, and comparing."""
    right = [
        sum(equivalent(final_answer(text, extract), reference, rule) for text in texts)
        for extract, rule in rules
    ]
    return _counts(answer, right)


def facts(answer: object, op: str) -> str:
    """How many pairs of whole numbers in 0 ... 199 have a result of "+", "-", "*" or "/" there: a count."""
    numbers = range(LARGEST + 1)
    return _counts(
        answer, sum(calculate(one, op, other) is not None for one, other in product(numbers, numbers))
    )


def cut_short(answer: object, question: str, after: int) -> str:
    """How many equations a question of the embedded benchmark takes, and the result of number `after`: two
    counts."""
    _, told = read_steps(Problem("exercise", question, "", "", "", None, "arithmetic"))
    return _counts(answer, [len(told), told[after - 1].result])


def right_words(answer: object, text: str, right: Sequence[str]) -> str:
    """How many words a text begins with that one of the right ones begins with too."""
    problem = Problem("one", "one", "1", "", "", None, "")
    return _counts(answer, len(words_shared(problem, text, right).split()))


# --- intervals and overlaps ---------------------------------------------------------------------------


def wilson_interval(answer: object, counts: Sequence[Count]) -> str:
    """Low and high end of the 95 % Wilson interval of each share, in percent: a list of two for each."""
    return _numbers(answer, [[100 * end for end in wilson(*count)] for count in counts])


def times_wider(answer: object, wide: Count, narrow: Count) -> str:
    """How many times as wide the 95 % Wilson interval of the one share is as that of the other."""
    widths = [np.diff(wilson(*count)).item() for count in (wide, narrow)]
    return _numbers(answer, widths[0] / widths[1])


def _chance(one: float, other: float, questions: int = 1000) -> float:
    """Intersection over union of independent students of these accuracies."""
    shares, names = {"one": one, "other": other}, ["method", "seed", "problem_id", "subject", "correct"]
    rows = [
        (name, 0, n, "", n < round(shares[name] * questions)) for name in shares for n in range(questions)
    ]
    return solved_table(pd.DataFrame(rows, columns=names), *shares).loc["all", "chance"]


def overlap_by_chance(answer: object, accuracies: Sequence[tuple[float, float]]) -> str:
    """Intersection over union of two independent students, in percent, for each pair of accuracies."""
    return _numbers(answer, [100 * _chance(*pair) for pair in accuracies])


def accuracy_for_overlap(answer: object, wanted: float) -> str:
    """The accuracy, in (0, 1], at which two independent students of it have this intersection over union."""
    share = None if _open(answer) else _read(answer, ())
    if share is None or not 0 < share <= 1:
        return OPEN if _open(answer) else f"An answer here is a number above 0 and at most 1; got {answer!r}."
    found = _chance(float(share), float(share))
    if abs(found - wanted) <= CLOSE:
        return RIGHT
    return f"Not yet: two such students have an intersection over union of {found:.3f}."


def verdicts(answer: object, intervals: Sequence[tuple[float, float]]) -> str:
    """What each 95 % interval of a difference says, in the words of `stats.VERDICTS`: a text for each."""
    found = [verdict(Difference((low + high) / 2, low, high, 1.0)) for low, high in intervals]
    return _texts(answer, found)


def chance_of_any(answer: object, level: float, tests: int) -> str:
    """Chance that at least one of so many independent p-values falls below a level by luck."""
    return _numbers(answer, 1 - (1 - level) ** tests)


# --- NAT ----------------------------------------------------------------------------------------------


def indifferent_query(answer: object) -> str:
    """W_Q (2, 2) of a unit that gives alpha = (1, 0) for every input and all branches, W_K the identity."""
    if _open(answer):
        return OPEN
    if (query := _read(answer, (2, 2))) is None:
        return f"An answer here is {_shape((2, 2), 'number')}; got {answer!r}."
    drawn = torch.randn(3, 1, 50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    eye = torch.eye(2, dtype=torch.float64)
    _, alpha = integrate_plain(drawn[0], *drawn, torch.from_numpy(query), eye, eye, eye)
    low, high = alpha.min().item(), alpha.max().item()
    if max(-low, high) <= 1e-6:
        return RIGHT
    return f"Not yet: over 50 inputs the weight of the negative branch runs from {low:.3f} to {high:.3f}."


def negative_weight(answer: object, gaps: Sequence[float], shifts: Sequence[float]) -> str:
    """alpha- where the negative branch scores higher by a gap, under a shift: a number for each pair."""
    x, nothing = torch.tensor([[[1.0, 0.0]]]), torch.zeros(1, 1, 2)
    found = []
    for gap, shift in zip(gaps, shifts, strict=True):
        reads = torch.tensor([[1.0, 0.0], [0.0, 0.0], [gap, 0.0], [0.0, 0.0]])  # A+, A-, and N, which scores
        mixes, w1, w2 = (torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(2, 1))
        _, alpha = Integrate.apply(x, nothing, None, 1.0, reads, mixes, 1, w1, w2, shift)
        found.append(alpha.item())
    return _numbers(answer, found)


def trained_numbers(answer: object, d_in: int, d_out: int, r: int, unit_dim: int) -> str:
    """How many numbers NAT trains in one projection, and how many of them where W_Q is held at 0 still do
    anything: two counts."""
    model = nn.Sequential()
    with torch.random.fork_rng(devices=[]):  # the reader's random numbers stay as they are
        model.add_module("projection", nn.Linear(d_in, d_out))
        attach(model, NATConfig(r=r, unit_dim=unit_dim, target_modules=("projection",)))
    sizes = {name: one.numel() for name, one in model.named_parameters() if one.requires_grad}
    scoring = sum(size for name, size in sizes.items() if "query" in name or "key" in name)
    return _counts(answer, [sum(sizes.values()), sum(sizes.values()) - scoring])


def product_cosine(answer: object, before: Sequence, after: Sequence) -> str:
    """Cosine of the products B A of an adapter before and after: each is (B, A), lists of rows."""
    found = [np.asarray(b, dtype=float) @ np.asarray(a, dtype=float) for b, a in (before, after)]
    norms = [np.linalg.norm(one) for one in found]
    return _numbers(answer, (found[0] * found[1]).sum() / (norms[0] * norms[1]))


# --- training -----------------------------------------------------------------------------------------


def own_steps(answer: object, budget: int, methods: Sequence[str]) -> str:
    """Steps of each row's own training, where a budget is shared equally with all that it uses: counts."""
    return _counts(answer, [budget // trainings(name) for name in methods])


def optimiser_steps(answer: object, rows: Sequence[int], batch_size: int, epochs: int) -> str:
    """Optimiser steps of trainings on so many rationales each: counts."""
    config = TrainConfig(epochs=epochs, batch_size=batch_size)
    row = Encoded("", np.zeros(2, np.int32), np.array([False, True]), 1, 2, True, 0)
    return _counts(answer, [len(steps([row] * size, config, batches)) for size in rows])


def beta(answer: object, p_neg: Sequence[Sequence[float]], p_nat: Sequence[Sequence[float]]) -> str:
    """beta of rationales of one token each, from the distributions of both views: a number for each."""
    logs = [torch.tensor(p, dtype=torch.float64)[:, None].log() for p in (p_neg, p_nat)]
    return _numbers(answer, calibration_beta(*logs, torch.ones(len(p_neg), 1, dtype=torch.bool)))


def weights(answer: object, betas: Sequence[float], modes: Sequence[str]) -> str:
    """Weights of the distillation term of each rationale: a list for each mode, of `nce.BETA_MODES`."""
    return _numbers(answer, [kd_weights(torch.tensor(betas), mode).tolist() for mode in modes])


def dpo(answer: object, gains: Sequence[tuple[float, float]], strength: float = 0.1) -> str:
    """Loss of DPO of each pair, from what the log probabilities of its right and wrong rationale have gained
    over the reference; `strength` is its beta: a number for each."""
    right, wrong = torch.tensor(gains, dtype=torch.float64).T
    return _numbers(answer, preference(right, wrong, strength))


def unlikelihood_slope(answer: object, probabilities: Sequence[float]) -> str:
    """How fast -log(1 - P) grows with log P, at each probability P of a rationale: a number for each."""
    log_prob = torch.tensor(probabilities, dtype=torch.float64).log().requires_grad_()
    (slope,) = torch.autograd.grad(rationale_unlikelihood(log_prob).sum(), log_prob)
    return _numbers(answer, slope)


# --- votes --------------------------------------------------------------------------------------------


def tally(answer: object, answers: Sequence[str], scores: Sequence[float]) -> str:
    """Votes of each value and the sum of their scores: a list of two each, in the order of first answers."""
    ids = groups([answers])[0]
    found = [[(ids == one).sum(), fsum(np.asarray(scores)[ids == one])] for one in range(ids.max() + 1)]
    return _numbers(answer, found)


def turning_factor(answer: object, answers: Sequence[str], scores: Sequence[float]) -> str:
    """The smallest k above which weights 1 + k s elect another answer than one vote each, s the scores."""
    scores, first = np.asarray(scores), vote(answers)
    low, high = 0.0, float(MOST)
    if vote(answers, 1 + high * scores) == first:
        raise ValueError(f"scores must elect another answer than one vote each; got {first!r} for both")
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if vote(answers, 1 + middle * scores) == first else (low, middle)
    return _numbers(answer, high)


def smallest_power(answer: object, answers: Sequence[str], scores: Sequence[float]) -> str:
    """The smallest whole power of the scores under which the vote is that of best of n: a count."""
    scores, best = np.asarray(scores), best_of_n(answers, scores)
    powers = (power for power in range(MOST) if vote(answers, scores**power) == best)
    return _counts(answer, next(powers))
