"""Exercises: the right answer by hand, a wrong one and how far it is off, none, and what is no answer."""

import inspect
from functools import partial
from math import exp, log, sqrt

import numpy as np
import pytest
import torch

from negdistill.bookmaking import exercises as ex

ANSWERS, SCORES = ["57", "54", "57.0", "54", "57"], [0.2, 0.9, 0.3, 0.8, 0.1]
TEXTS = [r"so \boxed{54}", r"so \boxed{54.0}", "18 * 3 = 54. The answer is 54.", r"so \boxed{45}"]
CHAIN = "There are 61 apples. Ben drops 56. Ben drops 2. How many apples are left?"
BOTH = [("boxed", "exact"), ("lenient", "math")]
Z = 1.959964


def wilson(right, of):
    """The two solutions of |p - right / of| = z sqrt(p (1 - p) / of), in percent."""
    a, b, c = of + Z * Z, -(2 * right + Z * Z), right * right / of
    half = sqrt(b * b - 4 * a * c)
    return [100 * (-b - half) / (2 * a), 100 * (-b + half) / (2 * a)]


def width(right, of):
    low, high = wilson(right, of)
    return high - low


# check with what the question gives, right answer, wrong answer, what is said of that
CASES = [
    (partial(ex.positives, texts=TEXTS, reference="54", rules=BOTH), [1, 3], [1, 4], "number 2 is 1 too"),
    (partial(ex.facts, op="*"), 399 + sum(199 // n for n in range(1, 200)), 1500, "15 too large"),
    (partial(ex.facts, op="+"), 200 * 201 // 2, 20000, "100 too small"),
    (partial(ex.cut_short, question=CHAIN, after=1), (2, 5), (3, 5), "number 1 is 1 too large"),
    (partial(ex.wilson_interval, counts=[(3, 200), (0, 9)]), [wilson(3, 200), wilson(0, 9)],
     [wilson(3, 200), wilson(1, 9)], "number 3 is"),
    (partial(ex.times_wider, wide=(30, 50), narrow=(150, 250)), width(30, 50) / width(150, 250), 2.0,
     "it is 0.174 too small"),
    (partial(ex.overlap_by_chance, accuracies=[(0.3, 0.2)]), [100 * 0.06 / 0.44], [13.0], "0.636 too small"),
    (partial(ex.accuracy_for_overlap, wanted=0.5), 2 / 3, 0.5, "intersection over union of 0.333"),
    (partial(ex.verdicts, intervals=[(0.01, 0.03), (-0.01, 0.01)]), ["holds", "no difference that matters"],
     ["holds", "undecided"], "text 2 is another"),
    (ex.indifferent_query, [[0, 0], [0, 0]], [[0, 0.1], [0, 0]], "the negative branch runs from -0."),
    (partial(ex.negative_weight, gaps=[1.0, 0.0, -9.0], shifts=[0.5, 0.25, 0.0]),
     [1 / (1 + exp(-1)) - 0.5, 0.25, 0.0], [0.5, 0.25, 0.0], "number 1 is 0.269 too large"),
    (partial(ex.trained_numbers, d_in=6, d_out=4, r=2, unit_dim=3), [20 + 54, 20 + 24], [74, 74],
     "number 2 is 30 too large"),
    (partial(ex.product_cosine, before=([[1], [0]], [[1, 0]]), after=([[1], [1]], [[2, 0]])), 1 / sqrt(2), 1,
     "it is 0.293 too large"),
    (partial(ex.own_steps, budget=600, methods=["CoT KD", "NAT", "NCE"]), [600, 300, 200], [600, 600, 600],
     "number 2 is 300 too large, number 3 is 400 too large"),
    (partial(ex.optimiser_steps, rows=[100, 250], batch_size=32, epochs=2), [8, 16], [6, 14], "2 too small"),
    (partial(ex.beta, p_neg=[[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]], p_nat=[[0.25, 0.25, 0.5], [0.5, 0.5, 0.0]]),
     [0.6, 1.0], [1.0, 0.6], "number 1 is 0.4 too large, number 2 is 0.4 too small"),
    (partial(ex.weights, betas=[0.1, 0.3, 0.8], modes=["mean", "inverse"]), [[0.9] * 3, [1.3, 0.8, 0.6]],
     [[0.9] * 3, [0.6, 0.8, 1.3]], "number 4 is 0.7 too small"),
    (partial(ex.chance_of_any, level=0.1, tests=2), 0.19, 0.2, "0.01 too large"),
    (partial(ex.right_words, text="a b c d", right=["a b x", "a b  c e", "b"]), 3, 4, "1 too large"),
    (partial(ex.dpo, gains=[(0, 0), (2, -3)]), [log(2), log(1 + exp(-0.5))], [0, 0.474], "0.693 too small"),
    (partial(ex.unlikelihood_slope, probabilities=[0.5, 0.2]), [1, 0.25], [1, 0.2], "0.05 too small"),
    (partial(ex.tally, answers=ANSWERS, scores=SCORES), [[3, 0.6], [2, 1.7]], [[2, 0.3], [2, 1.7]],
     "number 1 is 1 too small, number 2 is 0.3 too small"),
    (partial(ex.turning_factor, answers=ANSWERS, scores=SCORES), 10 / 11, 1.7, "it is 0.791 too large"),
    (partial(ex.smallest_power, answers=["8", "6", "6"], scores=[0.9, 0.8, 0.8]), 6, 2, "it is 4 too small"),
]  # fmt: skip
NAMES = [getattr(case[0], "func", case[0]).__name__ for case in CASES]

each = pytest.mark.parametrize(("check", "right", "wrong", "said"), CASES, ids=NAMES)


def opened(answer):
    return [*answer[:-1], ...] if isinstance(answer, list | tuple) else ...


@each
def test_right_wrong_and_open(check, right, wrong, said):
    assert check(right) == "Right."
    assert check(wrong).startswith("Not yet: ") and said in check(wrong)
    assert check(...) == check(opened(right)) == ex.OPEN


@each
def test_what_is_no_answer_is_told_so(check, right, wrong, said):
    for answer in ("x", None, {}, [], [[right]], [[1], [2, 3]], float("nan"), object(), 10**400):
        assert check(answer).startswith("An answer here is "), answer


def test_every_check_is_tested():
    public = {
        name for name, one in vars(ex).items() if inspect.isfunction(one) and one.__module__ == ex.__name__
    }
    assert {name for name in public if name[0] != "_"} == set(NAMES)


def test_what_an_answer_looks_like_is_said_in_words():
    check = partial(ex.weights, betas=[0.1, 0.3], modes=["mean", "inverse"])
    assert check(1) == "An answer here is a list of 2 lists of 2 numbers; got 1."
    assert ex.facts("many", "*") == "An answer here is a number; got 'many'."
    assert ex.accuracy_for_overlap(2, 0.5) == "An answer here is a number above 0 and at most 1; got 2."
    assert ex.verdicts("holds", [(0.01, 0.02)]) == "An answer here is a list of 1 text; got 'holds'."


def test_numbers_count_to_two_decimals_and_counts_exactly():
    assert ex.dpo([0.69], [(0, 0)]) == ex.dpo([0.698], [(0, 0)]) == ex.RIGHT != ex.dpo([0.7], [(0, 0)])
    assert ex.own_steps([600.001], 600, ["CoT KD"]) != ex.RIGHT


@pytest.mark.parametrize("kind", [tuple, np.array, torch.tensor])
def test_answers_may_be_arrays(kind):
    assert ex.dpo(kind([log(2), 0.474]), [(0, 0), (2, -3)]) == ex.RIGHT


def test_the_random_numbers_of_a_reader_are_left_alone():
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    ex.trained_numbers([0, 0], 6, 4, 2, 3)
    ex.indifferent_query([[0, 0], [0, 0]])
    assert torch.equal(torch.rand(3), wanted)


def test_scores_that_never_turn_a_vote_are_refused():
    with pytest.raises(
        ValueError, match="scores must elect another answer than one vote each; got '57' for both"
    ):
        ex.turning_factor(1, ANSWERS, [1.0] * 5)
