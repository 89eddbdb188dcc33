import itertools
import math
import time
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negdistill.data.answers import equivalent
from negdistill.data.records import Problem, Rationale
from negdistill.inference.panel import curves, draw_subsets, panel, sampled
from negdistill.method.asc import best_of_n, groups, pass_at_n, ratio_weights, sequence_weights, vote

HALVES = ("1/2", r"\frac{1}{2}", "0.5", r"\frac12", r"\dfrac{2}{4}")  # one value
OTHERS = ("1", "7", "x=7", "1,000", "1000", "-3")
TEXTS = st.sampled_from((*HALVES, *OTHERS))
ANSWERS = st.lists(st.one_of(st.none(), TEXTS), min_size=1, max_size=9)
WEIGHTS = st.integers(0, 6).map(float)
PATIENT = settings(deadline=None, max_examples=60)  # a first verdict of math-verify takes a second
BALLOTS = st.lists(st.tuples(st.one_of(st.none(), TEXTS), WEIGHTS), min_size=1, max_size=9)


def same(one: str, other: str) -> bool:
    return equivalent(one, other, "math") or equivalent(other, one, "math")


def elect(answers, weights):
    """The rules of the vote one after the other, with exact numbers."""
    parties: list[list[int]] = []
    for place, answer in enumerate(answers):
        if answer is None:
            continue
        mine = [party for party in parties if any(same(answer, answers[other]) for other in party)]
        parties = [party for party in parties if party not in mine]
        parties.append(sorted([place, *itertools.chain(*mine)]))
    if not parties:
        return None
    parties.sort(key=lambda party: (-sum(Fraction(weights[i]) for i in party), -len(party), party[0]))
    counts = Counter(answers[i] for i in parties[0])
    most = max(counts.values())
    return next(answers[i] for i in parties[0] if counts[answers[i]] == most)


# --- one question -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answers, weights, winner",
    [
        (["7", "1", "7"], None, "7"),
        (["7", "1", "7"], [0.2, 0.9, 0.3], "1"),  # weights: asc
        ([None, None, "1"], None, "1"),
        ([None, "1"], [9.0, 0.0], "1"),  # a missing answer never wins, whatever it weighs
        ([None, None], None, None),
        ([], None, None),
        (["0.5", "7", "1/2", "7", r"\frac12"], None, "0.5"),  # three spellings of one value beat two
        (["1/2", "0.5", "7", "0.5"], None, "0.5"),  # the most frequent spelling
        (["1/2", "0.5"], None, "1/2"),  # the first of equally frequent ones
        (["1", "7"], None, "1"),  # first seen
        (["1", "7", "7"], [2, 1, 1], "7"),  # the larger group
        (["1", "7", "7"], [0.3, 0.1, 0.2], "7"),  # a tie in exact numbers, not in floating point
        (["1", "7"], [0, 0], "1"),
        (["x=7", "1", "7"], None, "x=7"),
    ],
)
def test_votes_by_hand(answers, weights, winner):
    assert vote(answers, weights) == winner


@PATIENT
@given(BALLOTS)
def test_equals_the_rules_one_after_the_other(ballots):
    answers, weights = map(list, zip(*ballots, strict=True))
    assert vote(answers, weights) == elect(answers, weights)
    assert vote(answers) == elect(answers, [1] * len(answers))


@PATIENT
@given(BALLOTS, st.randoms())
def test_order_decides_only_ties(ballots, random):
    answers, weights = zip(*ballots, strict=True)
    ids = groups([answers])[0]
    sums = [
        (sum(w for w, g in zip(weights, ids, strict=True) if g == k), sum(ids == k)) for k in set(ids) - {-1}
    ]
    shuffled = random.sample(ballots, len(ballots))
    one, other = vote(answers, weights), vote(*zip(*shuffled, strict=True))
    if one is None or other is None:
        assert one is other
    elif sums.count(max(sums)) == 1:
        assert same(one, other)
        held = Counter(answers)
        assert held[one] == held[other]


@PATIENT
@given(BALLOTS, st.sampled_from([2.0**-40, 0.5, 8.0, 2.0**30, 0.1, 3.0, 1e-200]))
def test_only_ratios_of_weights_count(ballots, factor):
    answers, weights = zip(*ballots, strict=True)
    assert vote(answers, weights) == vote(answers, [factor * weight for weight in weights])


@PATIENT
@given(st.sampled_from(OTHERS), st.lists(WEIGHTS, min_size=1, max_size=8))
def test_unanimity_wins_whatever_the_weights(answer, weights):
    answers = [answer] * len(weights)
    assert vote(answers, weights) == vote(answers) == answer
    assert best_of_n(answers, weights) == answer


@PATIENT
@given(ANSWERS)
def test_equal_weights_are_no_weights(answers):
    assert vote(answers) == vote(answers, [0.25] * len(answers)) == vote(answers, [3] * len(answers))


@PATIENT
@given(BALLOTS, st.lists(WEIGHTS, max_size=3))
def test_missing_answers_change_nothing(ballots, more):
    answers, weights = map(list, zip(*ballots, strict=True))
    assert vote(answers, weights) == vote([None] * len(more) + answers, more + weights)


@PATIENT
@given(BALLOTS)
def test_equivalent_spellings_are_one_candidate(ballots):
    answers, weights = map(list, zip(*ballots, strict=True))
    plain = ["0.5" if answer in HALVES else answer for answer in answers]
    one, other = vote(answers, weights), vote(plain, weights)
    assert one == other or same(one, other)


def test_equality_is_closed_transitively():
    # to six digits 0.333333 is a third, and so is 0.3333333; the two are joined by the third
    chain = ["0.333333", r"\frac{1}{3}", r"\frac{2}{6}", "3"]
    assert groups([chain])[0].tolist() == [0, 0, 0, 1]
    assert groups([[chain[3], None, chain[0]], chain[::-1], []])[1].tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "a, b", [*itertools.combinations(["3", r"\frac{6}{2}", "-3", "0", r"\frac{1}{0}"], 2)]
)
def test_numbers_compared_here_are_those_of_math_verify(a, b):
    assert (groups([[a, b]])[0].tolist() == [0, 0]) == same(a, b)


@pytest.mark.parametrize("call", [vote, best_of_n])
@pytest.mark.parametrize(
    "weights, message",
    [
        ([1.0], r"weights must be one per answer, \(2,\); got \(1,\)"),
        ([1.0, -0.5], "weights must be finite and at least 0; got -0.5; logarithms"),
        ([1.0, math.nan], "weights must be finite and at least 0; got nan"),
        ([math.inf, 1.0], "weights must be finite and at least 0; got inf"),
    ],
)
def test_bad_weights_are_refused(call, weights, message):
    with pytest.raises(ValueError, match=message):
        call(["1", "7"], weights)


def test_best_of_n_by_hand():
    assert best_of_n(["1", "7", "1"], [0.4, 0.5, 0.4]) == "7"
    assert best_of_n(["1", "7"], [0.4, 0.4]) == "1"
    assert best_of_n([None, "7"], [0.9, 0.0]) == "7"
    assert best_of_n([None, None], [0.9, 0.1]) is None


@pytest.mark.parametrize("right", [[1, 0, 0, 1, 0], [0, 0, 0], [1, 1], [True]])
def test_pass_at_n_is_the_share_of_subsets(right):
    for n in range(1, len(right) + 1):
        subsets = list(itertools.combinations(right, n))
        assert pass_at_n(right, n) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_n_refuses_more_than_there_are():
    for n in (0, 3):
        with pytest.raises(ValueError, match=f"n must lie between 1 and 2, .*; got {n}"):
            pass_at_n([True, False], n)


def test_ratio_weights_by_hand():
    right, wrong, lengths = [-2.0, -6.0, -9.0], [-3.0, -5.0, -12.0], [2, 2, 3]
    ratios = np.exp([1.0, -1.0, 3.0])
    assert ratio_weights(right, wrong) == pytest.approx(ratios / ratios.sum())
    roots = np.exp([0.5, -0.5, 1.0])
    assert ratio_weights(right, wrong, lengths) == pytest.approx(roots / roots.sum())
    assert ratio_weights([right], [wrong]).shape == (1, 3)
    answers = ["1", "2", "2"]
    assert vote(answers, ratio_weights(right, wrong)) == "2"
    assert vote(answers, ratio_weights([-1.0, -9.0, -9.0], [-5.0, -9.0, -9.0])) == "1"
    with pytest.raises(ValueError, match=r"wrong must be as many as right, \(3,\); got \(2,\)"):
        ratio_weights(right, wrong[:2])
    for sides, name in (([[0.1], [-1.0]], "right"), ([[-1.0], [np.nan]], "wrong")):
        with pytest.raises(ValueError, match=f"{name} must be finite and at most 0"):
            ratio_weights(*sides)
    with pytest.raises(ValueError, match="lengths must be at least 1"):
        ratio_weights(right, wrong, [1, 0, 1])


def test_sequence_weights_by_hand():
    logs, lengths = [[-1.0, -3.0], [-800.0, -802.0]], [[1, 4], [8, 2]]
    plain = sequence_weights(logs)
    assert plain.sum(axis=1) == pytest.approx([1, 1])
    assert plain[:, 0] / plain[:, 1] == pytest.approx([math.e**2, math.e**2])  # no underflow
    per_token = sequence_weights(logs, lengths)
    assert per_token[0, 0] / per_token[0, 1] == pytest.approx(math.exp(-1 + 0.75))
    for wrong in ([0.1], [math.nan], [-math.inf]):
        with pytest.raises(ValueError, match="log_probs must be finite and at most 0"):
            sequence_weights(wrong)
    for none in ([], [[], []], -1.0):
        with pytest.raises(ValueError, match="log_probs must hold at least one candidate; got the shape"):
            sequence_weights(none)
    for wrong in ([0, 1], [1]):
        with pytest.raises(ValueError, match="lengths must be at least 1"):
            sequence_weights([-1.0, -1.0], wrong)


# --- many questions -----------------------------------------------------------------------------------


def candidates(questions: int, n: int, seed: int = 0):
    """Random candidates with missing ones, ties and several spellings."""
    random = np.random.default_rng(seed)
    texts = np.array(["7", "0.5", "1/2", "1", "x=7", None], dtype=object)
    answers = [list(texts[random.integers(0, 6, n)]) for _ in range(questions)]
    return (
        answers,
        random.choice(["7", r"\frac12"], questions).tolist(),
        random.integers(0, 4, (questions, n)),
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_panel_votes_as_one_question_after_the_other(size, weighted):
    answers, references, weights = candidates(25, 5)
    cast = panel([str(q) for q in range(25)], answers, references)
    share = cast.voted(size, weights if weighted else None)
    for q, row in enumerate(answers):
        found = []
        for chosen in itertools.combinations(range(5), size):
            winner = vote([row[i] for i in chosen], [weights[q, i] if weighted else 1 for i in chosen])
            found.append(equivalent(winner, references[q], "math"))
        assert share[q] == pytest.approx(np.mean(found)), row
    if size == 5:
        assert (cast.elected(weights if weighted else None) == share).all()


def test_a_panel_returns_the_candidate_with_the_spelling_of_the_vote():
    answers, references, weights = candidates(200, 6, seed=1)
    winners = panel([str(q) for q in range(200)], answers, references).winners(weights)[:, 0]
    for row, weight, winner in zip(answers, weights, winners, strict=True):
        assert vote(row, weight) == (row[winner] if winner >= 0 else None)
    assert (winners == -1).sum() == sum(set(row) == {None} for row in answers)


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_best_and_passed_are_the_averages_over_all_subsets(size):
    answers, references, weights = candidates(25, 5, seed=2)
    cast = panel([str(q) for q in range(25)], answers, references)
    best, passed = cast.best(size, weights), cast.passed(size)
    for q, row in enumerate(answers):
        winners = [
            best_of_n([row[i] for i in chosen], [weights[q, i] for i in chosen])
            for chosen in itertools.combinations(range(5), size)
        ]
        assert best[q] == pytest.approx(np.mean([equivalent(w, references[q], "math") for w in winners]))
        assert passed[q] == pytest.approx(pass_at_n(cast.right[q], size))
        assert (passed >= best - 1e-12).all()


def test_subsets_are_different_and_even():
    assert draw_subsets(4, 2).sum() == 12 and len(draw_subsets(4, 2)) == 6
    many = draw_subsets(16, 8)
    assert many.shape == (256, 16) and (many.sum(axis=1) == 8).all() and len(np.unique(many, axis=0)) == 256
    assert (many == draw_subsets(16, 8)).all() and (many != draw_subsets(16, 8, seed=1)).any()
    assert (abs(many.mean(axis=0) - 0.5) < 0.15).all()


def test_curves_hold_every_rule_and_size():
    answers, references, weights = candidates(12, 4)
    cast = panel([str(q) for q in range(12)], answers, references)
    frame = curves(cast, {"SC": None, "ASC": weights}, {"best of n": weights})
    assert frame.groupby("rule").size().to_dict() == dict.fromkeys(("SC", "ASC", "best of n", "pass@n"), 48)
    for n in range(1, 5):
        part = frame[frame.n == n].pivot(index="problem_id", columns="rule", values="correct")
        part = part.loc[list(cast.ids)]
        assert (part["SC"] == cast.voted(n)).all() and (part["best of n"] == cast.best(n, weights)).all()
        assert (part["ASC"] == cast.voted(n, weights)).all() and (part["pass@n"] == cast.passed(n)).all()
    single = frame[frame.n == 1].groupby("rule").correct.mean()
    assert np.ptp(single) < 1e-12  # one candidate: nothing to choose


def test_thousands_of_questions_are_quick():
    answers, references, weights = candidates(2000, 16)
    cast = panel([str(q) for q in range(2000)], answers, references)
    start = time.process_time()
    cast.voted(8, weights)
    assert time.process_time() - start < 5


def test_bad_panels_are_refused():
    with pytest.raises(ValueError, match="must be equally long; got 1, 2 and 1"):
        panel(["a"], [["1"], ["2"]], ["1"])
    for answers in ([["1"], ["1", "2"]], [[], []]):
        with pytest.raises(ValueError, match="answers must hold equally many candidates"):
            panel(["a", "b"], answers, ["1", "1"])
    cast = panel(["a"], [["1", "2"]], ["1"])
    for call in (cast.voted, cast.passed, lambda size: cast.best(size, np.ones((1, 2)))):
        for size in (0, 3):
            with pytest.raises(ValueError, match=f"must lie between 1 and 2, .*; got {size}"):
                call(size)
    with pytest.raises(ValueError, match=r"weights must be one per answer, \(1, 2\); got \(2,\)"):
        cast.voted(1, np.ones(2))


def test_samples_become_a_panel():
    problems = [Problem(name, "", answer, "", "", None, "") for name, answer in (("b", "7"), ("a", "1/2"))]
    texts = [r"\boxed{7}", "7", r"\boxed{x=7}", r"\boxed{2}", r"is \boxed{0.5}", r"\boxed{0.5}"]
    drawn = [Rationale("ba"[i // 3], i % 3, text, "student") for i, text in enumerate(texts)]
    cast = sampled(problems, drawn)
    assert cast.ids == ("b", "a")
    assert cast.group.tolist() == [[0, -1, 0], [0, 1, 1]]
    assert cast.right.tolist() == [[True, False, True], [False, True, True]]
    assert sampled(problems, drawn, "lenient").group.tolist()[0] == [0, 0, 0]
    for wrong in (drawn[::-1], drawn[:5], drawn[:1], []):
        with pytest.raises(
            ValueError, match="samples must be equally many per problem, .*; got . of 2 problems"
        ):
            sampled(problems, wrong)


def test_votes_are_the_answers_that_win():
    cast = panel(
        ["a", "b", "c"], [["1/2", "7", "0.5"], ["7", "8", "8"], [None, None, None]], ["1/2", "7", "1"]
    )
    plain = cast.votes()
    assert plain["problem_id"].tolist() == ["a", "b", "c"]
    assert plain["answer"].tolist() == [vote(["1/2", "7", "0.5"]), "8", None]
    assert plain["correct"].tolist() == [True, False, False] == cast.elected().tolist()
    weighed = cast.votes(np.array([[0.1, 0.9, 0.1], [0.9, 0.1, 0.1], [1.0, 1.0, 1.0]]))
    assert weighed["answer"].tolist() == ["7", "7", None] and weighed["correct"].tolist() == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("abc",), "answers must be a list of texts, .*; got 'abc', a str"),
        (([1, 2],), "answers must be a list of texts, .*; got 1, a int"),
        ((["1"], ["1"]), r"weights must be a number; got .*'1'.*, a str_"),
        ((["1"], [None]), "weights must be a number; got None, a NoneType"),
    ],
)
def test_a_vote_of_other_kinds_is_refused(given, message):
    with pytest.raises(TypeError, match=message):
        vote(*given)


def test_weights_may_be_any_numbers():
    for weights in ([1, 3], [Fraction(1, 2), Fraction(2)], np.array([0.5, 1], np.float32), (False, True)):
        assert vote(("1", "2"), weights) == "2"
