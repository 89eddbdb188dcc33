"""Statistics against literal loops, closed forms, simulated coverage and the published counts."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from negdistill import stats
from negdistill.stats import (
    Difference,
    Interval,
    bootstrap_accuracy,
    holm,
    overlap,
    paired,
    verdict,
    wilson,
)


def frame_of(correct, method="A", first_seed=0):
    """Frame of a seeds x questions matrix."""
    return pd.DataFrame(
        [
            {"problem_id": f"q{q:03d}", "method": method, "seed": first_seed + s, "correct": bool(value)}
            for s, row in enumerate(np.asarray(correct))
            for q, value in enumerate(row)
        ]
    )


def loop_bootstrap(correct, statistic, resamples, seed):
    """Draw seeds and questions one by one, gather the answers, apply the statistic."""
    rng = np.random.default_rng(seed)
    seeds, questions = correct.shape[-2:]
    values = []
    for _ in range(resamples):
        rows = [rng.integers(seeds) for _ in range(max(seeds - 1, 1))]
        columns = [rng.integers(questions) for _ in range(max(questions - 1, 1))]
        values.append(statistic(np.stack([[layer[r][columns] for r in rows] for layer in correct])))
    return np.array(values)


@pytest.mark.parametrize(("successes", "n", "level"), list(product([0, 1, 7, 20], [20], [0.8, 0.95])))
def test_wilson_equals_scipy(successes, n, level):
    expected = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_edges():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == 1.0
    low, high = wilson(2.5, 10)
    assert wilson(2, 10)[0] < low < 0.25 < high < wilson(3, 10)[1]


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(
        ValueError, match=f"successes must lie between 0 and n; got successes={successes}, n=3"
    ):
        wilson(successes, n)


def test_level_is_checked():
    with pytest.raises(ValueError, match="level must lie between 0 and 1, such as 0.95; got 95"):
        wilson(1, 3, level=95)
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        bootstrap_accuracy(frame_of([[1, 0]]), level=1)
    with pytest.raises(TypeError, match="level must be a number; got '0.95', a str"):
        paired(frame_of([[1, 0]]), frame_of([[1, 1]]), level="0.95")


def test_shares_are_fine_and_other_numbers_are_refused():
    frame = frame_of([[1, 1]])
    assert bootstrap_accuracy(frame.assign(correct=[0.5, 1])).value == 0.75
    with pytest.raises(ValueError, match="correct of frame must be True or False, or a share .*; got 7"):
        bootstrap_accuracy(frame.assign(correct=[1, 7]))


def test_one_seed_has_the_textbook_standard_error():
    correct = np.array([[1] * 120 + [0] * 280])
    value, low, high = bootstrap_accuracy(frame_of(correct))
    error = correct.std(ddof=1) / np.sqrt(400)
    assert value == 0.3
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.05)


def test_variance_of_seeds_is_unbiased():
    """Seeds that are right everywhere or nowhere: the bootstrap variance of the mean is s^2 / S."""
    correct = np.repeat([[1], [0], [1], [1]], 30, axis=1)
    levels = np.linspace(0.01, 0.99, 99)
    quantiles = [bootstrap_accuracy(frame_of(correct), level=level)[1:] for level in levels]
    # the mean of 3 draws from {1, 0, 1, 1}: P(0) = 1/64, P(1/3) = 9/64, P(2/3) = 27/64, P(1) = 27/64
    lows, highs = np.array(quantiles).T
    assert set(np.round(np.concatenate([lows, highs]) * 3, 5)) <= {0, 1, 2, 3}
    assert {k: (np.round(lows * 3) == k).mean() for k in (0, 1)} == pytest.approx(
        {0: 2 / 64, 1: 18 / 64}, abs=0.04
    )


def test_interval_equals_the_loop():
    rng = np.random.default_rng(3)
    correct = rng.random((4, 60)) < rng.random(60) * 0.8 + rng.normal(0, 0.1, (4, 1))
    value, low, high = bootstrap_accuracy(frame_of(correct), resamples=20_000)
    expected = loop_bootstrap(correct[None], np.mean, 3000, seed=11)
    assert value == correct.mean()
    assert (low, high) == pytest.approx(np.quantile(expected, [0.025, 0.975]), abs=0.012)


def test_paired_equals_the_loop():
    rng = np.random.default_rng(4)
    hardness = rng.random(60)
    a, b = rng.random((3, 60)) < hardness, rng.random((3, 60)) < hardness * 0.8
    value, low, high, p = paired(frame_of(a), frame_of(b, "B"), resamples=20_000)
    expected = loop_bootstrap(np.stack([a, b]), lambda x: x[0].mean() - x[1].mean(), 3000, seed=12)
    assert value == pytest.approx(a.mean() - b.mean())
    assert (low, high) == pytest.approx(np.quantile(expected, [0.025, 0.975]), abs=0.015)
    assert p == pytest.approx(2 * min((expected <= 1e-9).mean(), (expected >= -1e-9).mean()), abs=0.03)


def test_paired_ignores_the_order_of_rows_and_is_antisymmetric():
    rng = np.random.default_rng(5)
    a, b = frame_of(rng.random((3, 40)) < 0.6), frame_of(rng.random((3, 40)) < 0.4, "B")
    forward = paired(a, b)
    assert paired(a.sample(frac=1, random_state=0), b) == forward
    backward = paired(b, a)
    assert (backward.value, backward.low, backward.high) == pytest.approx(
        (-forward.value, -forward.high, -forward.low)
    )
    assert backward.p == forward.p


def test_identical_methods_do_not_differ():
    a = frame_of([[1, 0, 1, 1], [0, 0, 1, 1]])
    most = wilson(0, 4)[1]
    assert paired(a, a) == (0.0, -most, most, 1.0)


def test_no_answer_that_differs_leaves_doubt():
    """With n equal answers a share d of differing ones goes unseen with probability (1 - d)^n."""
    n = 50
    one, other = frame_of([[1, 0] * 25]), frame_of([[1, 0] * 25], "B")
    _, low, high, p = paired(one, other)
    assert -low == high and 0.01 < (1 - high) ** n < 0.05 and p == 1


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 50])
def test_where_all_answers_differ_alike_their_number_decides(n):
    """The sign test of scipy: five questions of five may be chance, six are not."""
    signs = binomtest(n, n)
    exact = 2 * signs.proportion_ci(0.95, method="exact").low - 1
    all_right, all_wrong = frame_of([[1] * n] * 2), frame_of([[0] * n] * 2, "B")
    for one, other, sign in ((all_right, all_wrong, 1), (all_wrong, all_right, -1)):
        found = paired(one, other)
        assert found.value == sign and found.p == pytest.approx(max(signs.pvalue, 2 / 4001), abs=1e-4)
        assert sorted((found.low, found.high)) == pytest.approx(sorted((sign * exact, sign)))
        assert (verdict(found, sign) == "holds") == (found.p < 0.05) == (n > 5)


def test_what_is_no_answer_is_named_and_not_called_missing():
    for odd in (None, "yes", float("nan")):
        frame = frame_of([[1, 0]]).astype({"correct": object})
        frame.loc[1, "correct"] = odd
        with pytest.raises(ValueError, match=f"correct of frame must be True or False.* got {odd} for"):
            bootstrap_accuracy(frame)


def test_p_agrees_with_the_interval():
    rng = np.random.default_rng(6)
    for shift in (0.0, 0.03, 0.06, 0.1, 0.2):
        a, b = rng.random((5, 80)) < 0.4 + shift, rng.random((5, 80)) < 0.4
        _, low, high, p = paired(frame_of(a), frame_of(b))
        assert (low > 0 or high < 0) == (p < 0.05)


def test_pairing_beats_two_separate_intervals():
    rng = np.random.default_rng(7)
    a = rng.random((5, 300)) < np.where(rng.random(300) < 0.5, 0.95, 0.05)
    b = a & (rng.random((5, 300)) < 0.9)
    difference = paired(frame_of(a), frame_of(b))
    separate = bootstrap_accuracy(frame_of(a))
    assert difference.high - difference.low < (separate.high - separate.low) / 2


def test_coverage_over_seeds_and_questions():
    """The interval holds the accuracy over new seeds and questions; S Q independent answers would not."""
    rng = np.random.default_rng(8)

    def draw(seeds, questions):
        logit = rng.normal(0, 2, questions)[None] + rng.normal(0, 0.2, seeds)[:, None]
        return rng.random((seeds, questions)) < 1 / (1 + np.exp(-logit))

    inside = naive = 0
    for _ in range(200):
        correct = draw(5, 100)
        _, low, high = bootstrap_accuracy(frame_of(correct), resamples=400)
        inside += low <= 0.5 <= high  # the logits are symmetric, so the true accuracy is one half
        low, high = wilson(int(correct.sum()), correct.size)
        naive += low <= 0.5 <= high
    assert inside >= 0.92 * 200
    assert naive <= 0.85 * 200


def test_no_difference_is_rarely_found():
    rng = np.random.default_rng(9)
    found = 0
    for _ in range(150):
        logit = rng.normal(0, 2, 80)
        runs = [rng.random((4, 80)) < 1 / (1 + np.exp(-logit - rng.normal(0, 0.2, (4, 1)))) for _ in range(2)]
        found += paired(frame_of(runs[0]), frame_of(runs[1]), resamples=400).p < 0.05
    assert found <= 0.09 * 150


def test_overlap_of_the_papers_counts():
    a, b = np.arange(400) < 253, (np.arange(400) >= 224) & (np.arange(400) < 390)
    value, low, high = overlap(frame_of(a[None]), frame_of(b[None]))
    assert (a & b).sum() == 29 and value == pytest.approx(29 / 390) and round(value, 3) == 0.074
    assert low < value < high


def test_overlap_equals_the_loop():
    rng = np.random.default_rng(10)
    hardness = rng.random(60)
    a, b = rng.random((3, 60)) < hardness, rng.random((3, 60)) < hardness
    value, low, high = overlap(frame_of(a), frame_of(b), resamples=20_000)
    expected = loop_bootstrap(
        np.stack([a, b]), lambda x: (x[0] & x[1]).sum() / max((x[0] | x[1]).sum(), 1), 3000, seed=13
    )
    assert value == (a & b).sum() / (a | b).sum()
    assert (low, high) == pytest.approx(np.quantile(expected, [0.025, 0.975]), abs=0.02)


def test_overlap_of_one_seed_agrees_with_sets():
    rng = np.random.default_rng(11)
    a, b = rng.random((1, 500)) < 0.4, rng.random((1, 500)) < 0.3
    crossed = overlap(frame_of(a), frame_of(b))
    both, union = (a & b).sum(), (a | b).sum()
    assert crossed == pytest.approx((both / union, *wilson(both, union)), abs=0.01)
    nothing = frame_of(np.zeros((1, 5)))
    assert overlap(nothing, nothing) == Interval(0.0, 0.0, 1.0)


def test_nothing_but_right_or_wrong_answers_leave_doubt():
    for value in (0, 1):
        assert bootstrap_accuracy(frame_of([[value] * 20] * 3)) == (value, *wilson(20 * value, 20))
    left, right = frame_of([[1, 1, 0, 0], [1, 0, 0, 0]]), frame_of([[0, 0, 1, 0], [0, 1, 0, 0]])
    assert overlap(left, right) == (0.0, *wilson(0, 2.5))
    assert overlap(left, left) == (1.0, *wilson(1.5, 1.5))


def test_repeatable_and_seeded():
    frame = frame_of(np.random.default_rng(0).random((3, 200)) < 0.5)
    assert bootstrap_accuracy(frame) == bootstrap_accuracy(frame)
    assert bootstrap_accuracy(frame, seed=1) != bootstrap_accuracy(frame)


def test_bad_frames_are_refused():
    a = frame_of([[1, 0, 1]])
    with pytest.raises(ValueError, match="columns problem_id, seed, correct; missing seed"):
        bootstrap_accuracy(a.drop(columns="seed"))
    with pytest.raises(ValueError, match="frame must hold at least one row"):
        bootstrap_accuracy(a.iloc[:0])
    with pytest.raises(ValueError, match="frame must hold one method; got A, B; select one"):
        bootstrap_accuracy(pd.concat([a, frame_of([[1, 0, 1]], "B")]))
    with pytest.raises(ValueError, match="once per seed; 'q000' repeats, seed 0"):
        bootstrap_accuracy(pd.concat([a, a]))
    with pytest.raises(ValueError, match="seed 1 lacks 'q002'; evaluate all seeds"):
        bootstrap_accuracy(pd.concat([a, frame_of([[1, 0]], first_seed=1)]))
    with pytest.raises(ValueError, match="resamples must be at least 1; got 0"):
        bootstrap_accuracy(a, resamples=0)


def test_different_questions_or_seeds_are_refused():
    a = frame_of([[1, 0, 1]])
    with pytest.raises(
        ValueError, match="same questions; 1 are in one of them only, for example q002; evaluate both"
    ):
        paired(a, frame_of([[1, 0]], "B"))
    with pytest.raises(ValueError, match="same seeds; 2 are in one of them only, for example 0"):
        paired(a, frame_of([[1, 0, 1]], "B", first_seed=1))
    with pytest.raises(ValueError, match="baseline must hold at least one row"):
        paired(a, a.iloc[:0])


# --- verdicts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "sign", "expected"),
    [
        (0.001, 0.2, 1, "holds"),
        (0.001, 0.01, 1, "holds"),
        (-0.2, -0.001, 1, "opposite"),
        (-0.2, -0.001, -1, "holds"),
        (0.001, 0.2, -1, "opposite"),
        (-0.02, 0.02, 1, "no difference that matters"),
        (-0.019, 0.0, -1, "no difference that matters"),
        (0.0, 0.03, 1, "undecided"),
        (-0.03, 0.01, -1, "undecided"),
    ],
)
def test_a_verdict_is_read_off_the_interval(low, high, sign, expected):
    assert verdict(Difference((low + high) / 2, low, high, 0.5), sign) == expected


def test_an_interval_that_ends_at_zero_ends_there(monkeypatch):
    """Kind: an end of 2e-9, which is rounding, is taken for a difference; p says 0.051."""
    drawn = np.r_[np.full(200, 2e-9), np.full(3800, 0.05)]
    monkeypatch.setattr(stats, "_resampled_means", lambda *_: drawn.copy())
    one, other = np.random.default_rng(0).random((2, 3, 7)) < 0.6
    found = paired(frame_of(one), frame_of(other))
    assert found.low == 0 < found.high and found.p > 0.05 and stats.verdict(found) == "undecided"


def test_holm_by_hand():
    found = holm(pd.Series([0.01, None, 0.04, 0.03], dtype=float))
    assert found.tolist()[0] == pytest.approx(0.03) and pd.isna(found[1])
    assert found[3] == pytest.approx(0.06) and found[2] == pytest.approx(0.06)
    assert holm(pd.Series([0.6, 0.9])).max() == 1
