"""Right beginnings of wrong rationales, by hand, and the training sets made of them."""

import pytest

from negdistill import load_task
from negdistill.data.arithmetic import first_wrong_step, generate
from negdistill.data.records import Problem, Rationale
from negdistill.training.beginnings import beginnings, halves, right_shares, steps_right, words_shared
from negdistill.training.dataset import TrainingSet, taught

QUESTION = "There are 38 apples. Eva drops 28. Only one of 5 equal parts is left. Eva puts 60 back."
PROBLEM = Problem("a", QUESTION + " How many apples are left?", "62", "", "apples", 3, "arithmetic")
OTHER = Problem("b", "2 + 3?", "5", "I say 5", "", None, "own")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Eva drops 28, so 38 - 28 = 11. 11 / 5 = 2. So the answer is 2.", ""),
        ("There are 38. Eva drops 28: 38 - 28 = 10. 10 / 5 = 3. 3 + 60 = 63. That makes 63.",
         "There are 38. Eva drops 28: 38 - 28 = 10."),
        ("38 - 28 = 10. 10 / 5 = 2. The answer is 2.", "38 - 28 = 10. 10 / 5 = 2."),
        ("38 - 28 = 10. 10 / 5 = 2. 2 + 60 = 62. 62 + 1 = 63. The answer is 63.",
         "38 - 28 = 10. 10 / 5 = 2. 2 + 60 = 62."),
        ("38 - 28 = 10. 10 / 5 = 2. 60 + 2 = 62. The answer is 62.",
         "38 - 28 = 10. 10 / 5 = 2. 60 + 2 = 62. The answer is 62."),
    ],
    ids=["first step", "second step", "a step left out", "a step too many", "no step"],
)  # fmt: skip
def test_steps_before_the_first_wrong_one(text, right):
    assert steps_right(PROBLEM, text) == right


def test_steps_are_those_of_the_embedded_benchmark_alone():
    with pytest.raises(ValueError):
        steps_right(OTHER, "2 + 3 = 6")


def test_every_beginning_of_a_teacher_has_right_steps_only():
    data = taught(load_task("arithmetic"), "weak", 60, 4, seed=3)
    problems = {one.id: one for one in data.problems}
    for one in data.negatives:
        problem, wrong = problems[one.problem_id], first_wrong_step(problems[one.problem_id], one.text)
        kept = steps_right(problem, one.text)
        assert one.text.startswith(kept)
        if wrong is not None:
            assert kept.count("=") == wrong and first_wrong_step(problem, kept) in (wrong, None)
    right = [steps_right(problems[one.problem_id], one.text) for one in data.positives]
    assert right == [one.text for one in data.positives]


@pytest.mark.parametrize(
    ("text", "right", "shared"),
    [
        ("so 2 + 3 = 6", ["so  2 +\n3 = 5", "so 2"], "so 2 + 3 ="),
        ("we add", ["So we add"], ""),
        ("all of it", ["all of it and more"], "all of it"),
        ("anything", [], ""),
        ("", ["a"], ""),
        ("  so it is", ["so it was"], "  so it"),
    ],
)
def test_words_that_a_right_rationale_begins_with_too(text, right, shared):
    assert words_shared(OTHER, text, right) == shared


def wrong(index, text, problem="b"):
    return Rationale(problem, index, text, "somebody")


DATA = TrainingSet(
    (OTHER,),
    (wrong(9, "I add two and three"),),
    (
        wrong(0, "I add two or more"),
        wrong(1, "You ask"),
        wrong(2, "I guess"),
        wrong(3, "I say 4"),
        wrong(4, "No"),
    ),
)


def test_halves_are_those_that_go_wrong_soon_and_late():
    assert right_shares(DATA, words_shared) == [9 / 17, 0, 1 / 7, 5 / 7, 0]
    soon, late = halves(DATA, words_shared)
    assert [one.index for one in soon.negatives] == [1, 4]
    assert [one.index for one in late.negatives] == [0, 2, 3]
    assert soon.positives == late.positives == DATA.positives and soon.problems == DATA.problems


def test_halves_of_the_embedded_benchmark_are_equal_and_differ_in_where_they_go_wrong():
    data = taught(load_task("arithmetic"), "strong", 80, 4, seed=1)
    problems = {one.id: one for one in data.problems}

    def share(one):
        return len(steps_right(problems[one.problem_id], one.text)) / len(one.text)

    soon, late = halves(data, steps_right)
    assert len(late.negatives) - len(soon.negatives) in (0, 1)
    assert set(soon.negatives) | set(late.negatives) == set(data.negatives)
    assert max(map(share, soon.negatives)) <= min(map(share, late.negatives))


def test_beginnings_are_cut_and_what_is_wrong_from_the_start_is_left_out():
    cut = beginnings(DATA, words_shared)  # the solution counts as a right rationale
    assert [(one.index, one.text) for one in cut.negatives] == [(0, "I add two"), (2, "I"), (3, "I say")]
    assert cut.positives == DATA.positives


def test_a_set_without_wrong_rationales_stays_one():
    (problem,) = generate("train", 1)
    data = TrainingSet((problem,), (), ())
    assert beginnings(data, steps_right) == data and halves(data, steps_right) == (data, data)
