"""Other tasks: a chapter's run on another task becomes tables, a figure and a section, and no claim."""

import json
import shutil

import pandas as pd
import pytest

from negdistill.bookmaking.claims_plan import comparisons, read_plan
from negdistill.bookmaking.evidence import other_figures
from negdistill.bookmaking.other_tasks import ALL, compared, folders, gains, sections, table
from negdistill.bookmaking.pages import with_other_teachers
from negdistill.bookmaking.planning import executed_folder, find_root
from negdistill.bookmaking.predictions import chapters, predictions
from negdistill.runs.digests import digest_file

PLAN = read_plan(find_root() / "book" / "plan.yml")._replace(elsewhere={}, real_floor=0.0)
RIGHT = {  # which of six questions a method solves
    "as it is": "000000",
    "CoT KD": "110010",
    "NAT": "111110",
}


@pytest.fixture
def executed(tmp_path):
    """A folder of executed notebooks with one run on another task."""
    folder = tmp_path / "book" / "executed" / "word-problems"
    folder.mkdir(parents=True)
    rows = [
        {"set": "test", "method": name, "seed": 0, "problem_id": f"q{place}", "level": None}
        | {"subject": "addsub" if place < 4 else "svamp", "answer": "1", "correct": right == "1"}
        for name, several in RIGHT.items()
        for place, right in enumerate(several)
    ]
    path = folder / "11_real_student.parquet"
    pd.DataFrame(rows).to_parquet(path, index=False)
    made = {"inputs": {}, "parameters": {"steps": 128}, "seed": 0, "machine": {}, "seconds": 60.0}
    declare(path, made)
    return folder.parent


def declare(path, made):
    """A notebook beside predictions that declares them and says how they were made."""
    made |= {"versions": {}, "artifacts": {"predictions.parquet": digest_file(path)}}
    cell = {"cell_type": "markdown", "metadata": {}, "source": "# A student", "id": "a"}
    notebook = {"cells": [cell], "metadata": {"negdistill": {"predictions": "real", "manifest": made}}}
    path.with_suffix(".ipynb").write_text(json.dumps(notebook | {"nbformat": 4, "nbformat_minor": 5}))


def test_a_run_stands_beside_the_chapters_and_is_none_of_them(executed):
    (executed / "empty").mkdir()
    shutil.copytree(executed / "word-problems", executed / ".ipynb_checkpoints")
    assert [path.name for path in folders(executed)] == ["word-problems"] and chapters(executed) == {}
    root = executed.parents[1]
    assert executed_folder(root, "word-problems") == executed / "word-problems"
    assert executed_folder(root, "book") == executed
    assert executed_folder(root, "quick") == root / "_build" / "quick" / "executed"


def test_all_questions_and_each_subject_have_rows(executed):
    rows = table(executed / "word-problems").set_index(["set", "method"])
    assert list(rows.index.unique("set")) == [ALL, "addsub", "svamp"] and (rows["baseline"] == "CoT KD").all()
    assert rows.loc[(ALL, "NAT"), "accuracy"] == pytest.approx(5 / 6)
    assert rows.loc[("addsub", "NAT"), "difference"] == pytest.approx(1 / 2)
    assert rows.loc[("svamp", "NAT"), "difference"] == 0
    drawn = gains(executed / "word-problems", PLAN).set_index("label")["value"]
    assert drawn.to_dict() == {"as it is − CoT KD": -0.5, "NAT − CoT KD": pytest.approx(1 / 3)}
    assert list(other_figures(executed, PLAN)) == ["word-problems.png"]


@pytest.mark.parametrize(
    ("task", "student", "joins"),
    [("math", "small", True), ("gsm8k", "small", False), ("math", "large", False)],
)
def test_a_run_with_another_teacher_joins_its_chapter_and_no_other_run_does(executed, task, student, joins):
    one = executed / "word-problems" / "11_real_student.parquet"
    frame, made = pd.read_parquet(one), {"inputs": {}, "seed": 0, "machine": {}, "seconds": 1.0}
    own, other = executed / one.name, executed / "strong-teacher" / one.name
    other.parent.mkdir()
    for path, given in ((own, ("math", "small", "weak")), (other, (task, student, "strong"))):
        frame.assign(correct=path == other).to_parquet(path, index=False)
        declare(path, made | {"parameters": dict(zip(("task", "student", "teacher"), given, strict=True))})
    apart = {"strong-teacher", "word-problems"} - ({"strong-teacher"} if joins else set())
    assert {path.name for path in folders(executed)} == apart
    if joins:
        kept = other.read_bytes()
        other.write_bytes(own.read_bytes())
        with pytest.raises(ValueError, match="strong-teacher.* is not what its notebook left"):
            predictions(executed, "real")
        other.write_bytes(kept)
    found = predictions(executed, "real")
    assert len(found) == (2 if joins else 1) * len(frame)
    if joins:
        solved = found.groupby("teacher")["correct"].mean()
        assert solved.to_dict() == {"weak": 0.0, "strong": 1.0}
        (run,) = with_other_teachers(executed.parents[1], [])
        assert run.title == "A student, strong teacher"


def test_the_section_has_every_number_and_where_it_came_from(executed):
    text = sections(executed, PLAN)
    assert text.startswith("| method | all | − CoT KD | addsub | svamp |\n| --- |")
    (line,) = (line for line in text.splitlines() if line.startswith("| NAT |"))
    cells = [cell.strip().partition(" ")[0] for cell in line.strip("|").split("|")]
    assert cells == ["NAT", "83.3", "33.3", "100.0", "50.0"]
    (line,) = (line for line in text.splitlines() if line.startswith("| CoT KD |"))
    assert line.split("|")[3].strip() == ""
    assert "````{dropdown} 11_real_student.ipynb" in text and "| parameter | `steps` | `128` |" in text
    shutil.rmtree(executed / "word-problems")
    assert sections(executed, PLAN) == ""


def test_what_the_plan_asks_of_a_run_stands_in_place_of_every_method_against_cot_kd(executed):
    lines = [{"one": "CoT KD", "other": "as it is"}, {"one": "MIX", "other": "CoT KD"}]
    asked = tuple(of for line in lines for of in comparisons({"chapter": "real", **line}))
    plan, folder = PLAN._replace(elsewhere={"word-problems": asked}), executed / "word-problems"
    rows = compared(folder, plan).set_index("label")
    assert rows.index.tolist() == ["CoT KD − as it is", "MIX − CoT KD"]
    assert rows.loc["CoT KD − as it is", "value"] == 0.5
    assert rows["holm"].iloc[0] == rows["p"].iloc[0]  # what has not been run does not count
    assert gains(folder, plan)["label"].tolist() == ["CoT KD − as it is"]
    text = sections(executed, plan)
    assert "| CoT KD − as it is | +50.0 [" in text and "| MIX − CoT KD |  | not run yet |" in text
    both = compared(folder, PLAN)
    assert (both["holm"] >= both["p"]).all() and (both["holm"] > both["p"]).any()
    floor = compared(folder, PLAN._replace(real_floor=0.9))
    assert set(floor["state"]) == {"not asked here"}


def test_names_from_the_data_are_shown_as_they_are(executed):
    path = executed / "word-problems" / "11_real_student.parquet"
    rows = pd.read_parquet(path)
    rows["subject"] = rows["subject"].replace({"svamp": "<b>a|b</b>"})
    rows.to_parquet(path, index=False)
    book = json.loads(path.with_suffix(".ipynb").read_text())
    book["metadata"]["negdistill"]["manifest"]["artifacts"] = {"predictions.parquet": digest_file(path)}
    path.with_suffix(".ipynb").write_text(json.dumps(book))
    header = sections(executed, PLAN).splitlines()[0]
    assert header.count("|") == 6 and "<" not in header and "&#124;" in header


def test_a_run_of_several_chapters_says_how_to_run_one(executed):
    path = executed / "word-problems" / "11_real_student.ipynb"
    other = path.read_text().replace('"predictions": "real"', '"predictions": "nce"')
    path.with_name("06_nce.ipynb").write_text(other)
    with pytest.raises(
        ValueError, match="must hold one chapter; it holds 06_nce, 11_real_student: .* --only"
    ):
        sections(executed, PLAN)


def test_a_run_without_what_the_plan_asks_has_no_figure(executed):
    asked = {"word-problems": comparisons({"chapter": "real", "one": "UL", "other": "CoT KD"})}
    assert other_figures(executed, PLAN._replace(elsewhere=asked)) == {}
    waiting = PLAN._replace(waiting={"real": "few seeds"})  # of the chapter's own run
    assert set(compared(executed / "word-problems", waiting)["state"]) == {""}
