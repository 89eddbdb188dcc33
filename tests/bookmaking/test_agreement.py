"""Agreement: kappa by its definition, and the point of a path at a given accuracy."""

import numpy as np
import pandas as pd
import pytest

from negdistill.bookmaking.agreement import at_accuracy, kappa, kappa_difference, kappa_share


def answers(solved, questions=40, seeds=(0, 1)):
    rows = [(seed, f"q{n}", solved(n, seed)) for seed in seeds for n in range(questions)]
    return pd.DataFrame(rows, columns=["seed", "problem_id", "correct"])


def test_kappa_is_one_for_equal_sets_and_zero_for_independent_ones():
    half = answers(lambda n, seed: n % 2 == 0)
    assert kappa(half, half).value == pytest.approx(1)
    assert kappa(half, answers(lambda n, seed: n % 4 < 2)).value == pytest.approx(0)
    assert kappa(half, answers(lambda n, seed: n % 2 == 1)).value == pytest.approx(-1)
    assert kappa(answers(lambda n, seed: False), half).value == 0
    assert kappa(answers(lambda n, seed: False), answers(lambda n, seed: False)).value == 0


def test_kappa_does_not_fall_with_accuracy_where_the_overlap_does():
    chance = np.random.default_rng(0).random((3, 4000))
    for rate in (0.5, 0.05):
        one, other = (answers(lambda n, seed, p=p, r=rate: p[n] < r, 4000, (0,)) for p in chance[:2])
        assert abs(kappa(one, other).value) < 0.06


def test_unequal_students_reach_the_largest_kappa_where_one_solves_all_that_the_other_does():
    half, third = answers(lambda n, seed: n % 12 < 6, 48), answers(lambda n, seed: n % 12 < 4, 48)
    assert kappa(half, third).value == pytest.approx(2 / 3) and kappa_share(
        half, third
    ).value == pytest.approx(1)
    few = answers(lambda n, seed: n % 12 in (0, 1, 6, 7), 48)  # as many, half of them in common
    found = kappa_share(half, few)
    assert found.value == pytest.approx(0) and found.low < 0 < found.high <= 1
    assert kappa_share(half, half).value == 1
    assert kappa_share(answers(lambda n, seed: False), answers(lambda n, seed: False)).value == 0


def test_the_difference_is_resampled_together():
    one, other = answers(lambda n, seed: n % 2 == 0), answers(lambda n, seed: n % 3 == 0)
    found = kappa_difference(one, one, other)
    assert found.value == pytest.approx(1 - kappa(one, other).value)
    assert found.low <= found.value <= found.high and found.p < 0.01
    same = kappa_difference(one, other, other)
    assert same[:3] == (0, 0, 0) and same.p == 1


def test_the_point_of_a_path_whose_accuracy_is_nearest():
    rows = []
    for epoch, right in enumerate((1, 4, 4, 9), 1):
        for split in ("valid", "test"):
            for n in range(10):
                rows.append(("m", 0, 0.1, epoch, 5 * epoch, 100, split, f"{split}{n}", n < right))
    names = ["method", "seed", "lr", "epoch", "steps", "tokens", "split", "problem_id", "correct"]
    path = pd.DataFrame(rows, columns=names)
    for wanted, epoch in ((0.0, 1), (0.38, 2), (0.7, 4), (1.0, 4)):
        found = at_accuracy(path, wanted)
        assert set(found["epoch"]) == {epoch} and set(found["split"]) == {"test"} and len(found) == 10
