import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from negdistill.data import arithmetic
from negdistill.data.answers import final_answer, grade
from negdistill.data.formats import write_records
from negdistill.data.records import Rationale, Reply
from negdistill.data.sources import load_problems, load_rationales
from negdistill.data.tasks import GRADINGS, SPLITS, load_task
from negdistill.training.dataset import training_set

ROOT = Path(__file__).parents[2]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def mine(tmp_path):
    rows = [
        {"question": f"What is {n} plus {n}?", "answer": 2 * n, "rationales": [f"It is {2 * n}", "It is 7."]}
        for n in range(100)
    ]
    return write(tmp_path / "mine.jsonl", *rows)


def test_arithmetic_is_the_embedded_benchmark():
    task = load_task()
    problems = task.questions("train", 5, seed=3)
    assert problems == arithmetic.generate("train", 5, 3)
    assert task.rationales(problems, "strong", 2, seed=1) == arithmetic.teach(problems, "strong", n=2, seed=1)
    assert task.grading == {"extract": "boxed", "rule": "exact"} and task.generated


def test_shifted_questions_of_the_embedded_benchmark_are_its_other_splits():
    task = load_task(grading="latex")
    assert set(task.shifted) == set(arithmetic.SPLITS) - set(SPLITS)
    for name, other in task.shifted.items():
        assert other.questions("test", 5, seed=3) == arithmetic.generate(name, 5, 3)
        assert other.questions("train", 5, seed=3) == task.questions("train", 5, seed=3)
        assert other.grading == task.grading and other.generated


def test_shifted_questions_of_other_tasks_are_the_four_word_problem_sets(mine, data_dir, monkeypatch):
    monkeypatch.setenv("NEGDISTILL_DATA", str(data_dir))
    assert list(load_task(mine).shifted) == ["gsm8k", "asdiv", "multiarith", "svamp"]
    assert list(load_task("gsm8k").shifted) == ["asdiv", "multiarith", "svamp"]
    for name, other in load_task("math").shifted.items():
        assert other == load_task(name) and other.grading == {"extract": "lenient", "rule": "number"}
        assert {problem.source for problem in other.questions("test", 3)} == {name}


def test_math_holds_out_a_tenth_of_its_training_questions(data_dir, monkeypatch):
    monkeypatch.setenv("NEGDISTILL_DATA", str(data_dir))
    task = load_task("math")
    splits = {split: task.questions(split) for split in SPLITS}
    assert {len(splits["train"]) + len(splits["valid"]), len(splits["test"])} == {7500, 5000}
    assert 0.08 < len(splits["valid"]) / 7500 < 0.12
    texts = [" ".join(problem.question.split()) for problem in splits["valid"]]
    assert not set(texts) & {" ".join(problem.question.split()) for problem in splits["train"]}
    assert splits["train"] + splits["valid"] != load_problems("math", "train")  # not just the last tenth
    some = task.questions("train", 20, seed=1)
    assert some == [problem for problem in splits["train"] if problem in some]
    assert some != task.questions("train", 20, seed=2)


def test_released_rationales_of_the_questions_asked(data_dir, monkeypatch):
    monkeypatch.setenv("NEGDISTILL_DATA", str(data_dir))
    task = load_task("math")
    problems = task.questions("train", 10, seed=1)
    found = task.rationales(problems, "tdg-gpt-4", 3)
    assert [(r.problem_id, r.index) for r in found] == [(p.id, i) for p in problems for i in range(3)]
    assert set(found) <= set(load_rationales("tdg-gpt-4"))


def test_a_file_runs_by_its_path(mine):
    task = load_task(mine, "number")
    splits = {split: task.questions(split) for split in SPLITS}
    assert sum(map(len, splits.values())) == 100 and all(splits.values())
    assert len(splits["train"]) > 65
    assert [p.id for split in splits.values() for p in split] != []
    train = task.questions("train", 30, seed=1)
    data = training_set(train, task.rationales(train, "file", 2), **task.grading)
    assert len(data.positives) == 30 and len(data.negatives) == 30
    assert {r.teacher for r in data.positives} == {"file"} and train[0].source == "mine.jsonl"
    assert all(problem.solution == rf"\boxed{{{problem.answer}}}" for problem in train)


def test_the_split_of_a_question_follows_from_its_text(mine, tmp_path):
    rows = [json.loads(line) for line in open(mine, encoding="utf-8")]
    again = load_task(write(tmp_path / "again.jsonl", *reversed(rows)))
    for split in SPLITS:
        assert {p.question for p in again.questions(split)} == {
            p.question for p in load_task(mine).questions(split)
        }


def test_a_file_may_say_its_own_splits_and_ids(tmp_path):
    row = {"question": "1 + 1?", "answer": "2", "split": "test", "id": "one", "level": 1, "subject": "sums"}
    task = load_task(write(tmp_path / "mine.jsonl", row))
    (problem,) = task.questions("test")
    assert (problem.id, problem.level, problem.subject) == ("one", 1, "sums")
    with pytest.raises(ValueError, match="split must be one that .*mine.jsonl has, test; got 'train'"):
        task.questions("train")


def test_a_teacher_may_be_a_file_of_what_it_said(mine, tmp_path):
    task = load_task(mine)
    problems = task.questions("train", 2)
    said = [Rationale(p.id, i, f"text {i}", "somebody") for p in problems for i in (1, 0)]
    write_records(tmp_path / "said.jsonl", said)
    found = task.rationales(problems, str(tmp_path / "said.jsonl"), 2)
    assert [r.text for r in found] == ["text 0", "text 1"] * 2 and found[0].teacher == "somebody"
    replies = [Reply(r.problem_id, r.index, r.text, "t", "stop", 1, 1, "0" * 64) for r in said]
    write_records(tmp_path / "replies.jsonl", replies)
    assert [r.text for r in task.rationales(problems, str(tmp_path / "replies.jsonl"), 1)] == ["text 0"] * 2
    found = task.rationales(problems, str(tmp_path / "said.jsonl"), 3)  # as many as there are
    assert [r.text for r in found] == ["text 0", "text 1"] * 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "1 + 1?"}, "line 2.*answer"),
        ({"question": " ", "answer": "2"}, "line 2.*question must be a text that is not empty"),
        ({"question": "1 + 1?", "answer": "2", "answers": []}, "line 2.*unknown field 'answers'"),
        ({"question": "1 + 1?", "answer": "2", "rationales": "two"}, "line 2.*must be a list of texts"),
        ({"question": "1 + 1?", "answer": "2", "level": "easy"}, "line 2.*level must be a whole number"),
        ({"question": "1 + 1?", "answer": "2", "split": "dev"}, "line 2.*split must be one of"),
        ({"question": "2 + 2?", "answer": "4"}, "every question once"),
    ],
)
def test_what_is_wrong_in_a_file(tmp_path, row, message):
    path = write(tmp_path / "mine.jsonl", {"question": "2 + 2?", "answer": "4"}, row)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        load_task(path).questions("train")


def test_what_is_refused(mine, tmp_path):
    with pytest.raises(ValueError, match="task must be one of .*mathe"):
        load_task("mathe")
    with pytest.raises(ValueError, match="grading must be one of"):
        load_task(mine, "numbers")
    for place in ("os.path:nothing", "no.such.module:f"):
        with pytest.raises(ValueError, match="a function that can be imported"):
            load_task(mine, place)
    with pytest.raises(ValueError, match="n must lie between 1 and"):
        load_task(mine).questions("test", 101)
    problems = load_task(mine).questions("train", 1)
    with pytest.raises(ValueError, match="teacher of .*mine.jsonl must be one of 'file'"):
        load_task(mine).rationales(problems, "gpt", 1)
    with pytest.raises(ValueError, match="n must be at least 1"):
        load_task(mine).rationales(problems, "file", 0)
    with pytest.raises(ValueError, match="it is empty"):
        load_task(write(tmp_path / "empty.jsonl")).questions("train")
    with pytest.raises(FileNotFoundError):
        load_task(str(tmp_path / "none.jsonl")).questions("train")


def test_a_function_may_grade(mine):
    task = load_task(mine, "operator:eq")
    assert task == load_task(mine, "operator:eq") != load_task(mine, "operator:ne")
    assert (task.rule.__module__, task.rule.__qualname__) == ("operator", "eq")  # part of the key of results
    problem = task.questions("train", 1)[0]
    texts = [f"{problem.answer}", f"The answer is {problem.answer}.", f"{problem.answer} apples"]
    grades = grade([problem], [Rationale(problem.id, i, t, "t") for i, t in enumerate(texts)], **task.grading)
    assert [one.positive for one in grades] == [True, True, False]


def test_who_names_a_function_is_told_that_it_is_code():
    """Kind: a name in a setting that runs code; as in SII-FUSC/AME_Locomotion#1.

    Every page that teaches it says so, and so does the call.
    """
    pages = [path.read_text("utf-8") for path in sorted((ROOT / "book").rglob("*.md"))]
    taught = [text for text in pages if "grading=module:function" in text]
    assert len(taught) >= 2
    for text in taught:
        assert re.search(r"is code: naming it imports (its|the) module", text)
        assert "Name only what you would run yourself" in text
    assert "whose module's code" in load_task.__doc__


@pytest.mark.parametrize("place", ["os:getcwd", "os:system", "json:JSONDecoder", "math:pi"])
def test_a_function_that_cannot_grade_is_refused(mine, place):
    with pytest.raises(
        ValueError, match=f"grading must name a function of answer and reference; got '{place}'"
    ):
        load_task(mine, place)


@pytest.mark.parametrize("place", [":", "os:", ":eq", ".os:popen", "os:path:join", "a b:c"])
def test_a_function_that_cannot_be_found_is_refused(mine, place):
    with pytest.raises(ValueError, match=f"grading must name a function that can be imported; got '{place}'"):
        load_task(mine, place)


@pytest.mark.parametrize(
    ("place", "verdict"),
    [
        ("operator:add", "'22'"),
        ("builtins:max", "'2'"),
        ("operator:concat", "'22'"),
        ("builtins:print", None),
    ],
)
def test_a_function_must_say_true_or_false(mine, place, verdict):
    task = load_task(mine, place)
    message = (
        f"grading '{place}' must return True or False; got {verdict} for the answer '2' and the reference '2'"
    )
    with pytest.raises(TypeError, match=message):
        task.rule("2", "2")
    with pytest.raises(TypeError, match=f"grading '{place}' must return True or False; got"):
        grade(
            *(task.questions("train", 3), task.rationales(task.questions("train", 3), "file", 2)),
            **task.grading,
        )


@pytest.mark.parametrize("verdict", [None, 1, "yes"])
def test_a_rule_must_say_true_or_false(mine, verdict):
    """One that forgets its return would call every answer wrong."""
    task = load_task(mine)
    problems = task.questions("train", 3)
    with pytest.raises(TypeError, match=f"rule must return True or False; got {verdict!r} for answer"):
        grade(problems, task.rationales(problems, "file", 2), "text", lambda answer, reference: verdict)


def test_a_module_that_cannot_be_read_is_refused(mine, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torn_grading.py").write_text("def same(a, b) return a == b\n")
    with pytest.raises(ValueError, match="grading must name a function that can be imported; got 'torn_gr"):
        load_task(mine, "torn_grading:same")


@pytest.mark.parametrize("text", ["undefined\n", "raise SystemExit(0)\n", "1 / 0\n"])
def test_a_module_that_fails_when_it_is_imported_is_named(mine, tmp_path, monkeypatch, text):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "failing_grading.py").write_text(text)
    with pytest.raises(ValueError, match="function that can be imported; got 'failing_grading:same': "):
        load_task(mine, "failing_grading:same")


def test_problems_may_come_one_by_one_and_a_seed_from_numpy(mine):
    task = load_task(mine)
    problems = task.questions("train", 2, np.int64(1))
    assert problems == task.questions("train", 2, 1)
    said = task.rationales(problems, "file", 2)
    assert said and task.rationales(iter(problems), "file", 2) == said
    with pytest.raises(TypeError, match="problems must be a list of Problem"):
        task.rationales(problems[0], "file", 2)
    with pytest.raises(TypeError, match="answer of problem 'x' must be a text; got 5, a int"):
        grade([replace(problems[0], id="x", answer=5)], [])


def test_a_teacher_may_be_a_path(mine, tmp_path):
    task = load_task(Path(mine))
    problems = task.questions("train", 3)
    said = write(
        tmp_path / "said.jsonl",
        {"problem_id": problems[0].id, "index": 0, "text": "It is 4.", "teacher": "me"},
    )
    with pytest.warns(UserWarning, match="2 of 3 questions have no rationale"):
        assert len(task.rationales(problems, Path(said), 2)) == 1
    with pytest.raises(TypeError, match="teacher must be a path, as a text or a Path; got None"):
        task.rationales(problems, None, 2)


def test_a_function_may_return_a_truth_value_of_numpy(mine):
    verdict = load_task(mine, "numpy:equal").rule(2, 2)
    assert verdict is True


@pytest.mark.parametrize(
    ("grading", "text", "reference", "right"),
    [
        ("number", "so $1,000.00", "1000", True),
        ("number", "The answer is 50%.", "50", True),
        ("number", r"\boxed{1/2}", "0.5", True),
        ("number", "The answer is many.", "12", False),
        ("number", "\N{MINUS SIGN}3", "-3", True),
        ("number", "1/0", "1/0", False),
        ("choice", "A box and a bag. The answer is (C).", "C", True),
        ("choice", "Of A and B, it is (B)", "B", True),
        ("choice", "I think A is not it, so D", "D", True),
        ("choice", r"\boxed{\text{E}}", "E", True),
        ("choice", "A train leaves.", "A", False),
        ("text", "Some thought\nParis", "Paris", True),
        ("text", "The answer is Paris.", "Paris", True),
        ("text", "Paris or Rome", "Paris", False),
        ("boxed", r"\boxed{\frac12}", r"\frac{1}{2}", True),
        ("latex", r"The answer is $\dfrac{2}{4}$.", r"\frac{1}{2}", True),
    ],
)
def test_gradings(grading, text, reference, right):
    extract, rule = GRADINGS[grading]
    problem = arithmetic.generate("train", 1, 0)[0]
    problem = type(problem)(problem.id, "?", reference, "", "", None, "mine")
    (one,) = grade([problem], [Rationale(problem.id, 0, text, "t")], extract, rule)
    assert one.positive is right, final_answer(text, extract)


def test_arguments_of_another_kind_are_refused(mine):
    with pytest.raises(ValueError, match="grading must be one of 'boxed', .*; got None"):
        load_task("arithmetic", None)
    for task in (load_task(), load_task(mine)):
        with pytest.raises(TypeError, match="n must be a whole number; got 1.5, a float"):
            task.questions("train", 1.5)
        with pytest.raises(TypeError, match="seed must be a whole number; got '0', a str"):
            task.questions("train", 1, "0")
        with pytest.raises(TypeError, match="n must be a whole number; got '2', a str"):
            task.rationales(task.questions("train", 1), "weak", "2")
