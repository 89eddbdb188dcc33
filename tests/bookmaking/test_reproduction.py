"""Reproduction: a tiny chapter made again through papermill, and what is said where its answers differ."""

import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from negdistill.__main__ import main
from negdistill.bookmaking.documents import put_rows
from negdistill.bookmaking.pipeline import run
from negdistill.bookmaking.planning import Failure
from negdistill.bookmaking.provenance import Execution
from negdistill.bookmaking.reproduction import compare, holding, listing, reproduce
from negdistill.runs.folder import Manifest

PARAMETERS = "seeds = [2]\nwrong = 0\nrun_dir = '../_runs/smoke/00_one'"
ANSWERS = """import pandas as pd
from negdistill.runs.folder import RunFolder
folder = RunFolder.start(run_dir)
rows = [("NAT", s, p, None if s == wrong else str(s)) for s in seeds for p in "abc"]
frame = pd.DataFrame(rows, columns=["method", "seed", "problem_id", "answer"]).assign(correct=False)
with folder.create("predictions.parquet") as path:
    frame.to_parquet(path, index=False)
print("wrote")"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """A repository of a chapter with answers of two seeds, and one without answers, run under quick."""
    tmp_path = tmp_path_factory.mktemp("repository")
    folder = tmp_path / "notebooks"
    (folder / "profiles").mkdir(parents=True)
    (folder / "profiles" / "quick.yml").write_text("00_one: {seeds: [1, 2]}\n")
    (tmp_path / "book").mkdir()
    (tmp_path / "negdistill" / "runs").mkdir(parents=True)
    (tmp_path / "negdistill" / "runs" / "folder.py").write_text("x = 1\n")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    tags = {"tags": ["parameters"]}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for name, parameters, code in (("00_one", PARAMETERS, ANSWERS), ("01_two", "a = 1", "print(a)")):
        cells = [new_code_cell(parameters, id="given", metadata=tags), new_code_cell(code, id="work")]
        nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / f"{name}.ipynb")
    run(tmp_path, "quick")
    return tmp_path


@pytest.fixture
def root(ran, tmp_path, monkeypatch) -> Path:
    """A copy of it, to change, as the working directory."""
    copy = Path(shutil.copytree(ran, tmp_path / "repository"))
    monkeypatch.chdir(copy)
    return copy


def kept(root: Path) -> dict[Path, bytes]:
    folders = (root / "_build" / "quick" / "executed", root / "_runs" / "quick")
    return {path: path.read_bytes() for one in folders for path in one.rglob("*") if path.is_file()}


def test_answers_made_again_stand_beside_what_changed_until_something_else_does(root, capsys):
    before, code = kept(root), root / "negdistill" / "runs" / "folder.py"
    code.write_text("x = 2\n")
    (record,) = reproduce(root, "quick", ["00"], {"seeds": [2]})
    assert (record["answers"], record["equal"], record["of"]) == (3, 3, 6)
    assert kept(root) == before
    assert holding(root, "quick") == {"00_one": "made again: 3 of 6 answers, all the same"}
    assert main(["status", "--profile", "quick"]) == 0
    said = capsys.readouterr().out
    assert "package changed; made again: 3 of 6 answers, all the same" in said
    code.write_text("x = 3\n")
    assert holding(root, "quick") == {}


def test_what_was_made_is_made_once_and_kept_for_each_chapter(root, capsys):
    command = ["reproduce", "--profile", "quick", "--only", "00", "-p", "seeds=[2, 1]"]
    assert main(command) == main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("running" in line for line in lines) == 1 and sum("up to date" in line for line in lines) == 1
    assert lines.count("00_one: made again, 6 of 6 answers, all the same") == 2
    written = pd.read_csv(root / "book" / "reproduced.csv")
    assert len(written) == 1 and written["changed"].tolist() == ['{"seeds": [2, 1]}']


def test_a_different_answer_is_counted_and_its_row_named(root):
    lines = []
    (record,) = reproduce(root, "quick", ["00"], {"wrong": 2}, lines.append)
    assert (record["answers"], record["equal"]) == (6, 3)
    assert "00_one: different: 3 of 6 answers of NAT" in lines
    assert holding(root, "quick")["00_one"] == "made again: 6 of 6 answers, 3 of them different"


def test_missing_values_are_equal_in_answers_and_in_what_tells_them_apart():
    rows = {"method": "NAT", "problem_id": ["a", "b"], "level": [None, 2.0]}
    frame = pd.DataFrame(rows | {"answer": [None, "1"], "tokens": [3, 4]})
    assert compare("05", frame, frame) == {"answers": 2, "equal": 2, "of": 2}
    assert compare("05", frame, frame.assign(tokens=[3, 5]))["equal"] == 1
    with pytest.raises(ValueError, match="05: an answer must stand once; .*'problem_id': 'a'.* repeats"):
        compare("05", frame, pd.concat([frame, frame]))
    with pytest.raises(
        ValueError, match="05: columns must be method, .*; got method, problem_id, level, answer$"
    ):
        compare("05", frame, frame.drop(columns="tokens"))


def test_a_record_ends_with_other_parameters_and_with_other_predictions(root):
    assert reproduce(root, "quick", ["00"], {"seeds": [2]})
    profile = root / "notebooks" / "profiles" / "quick.yml"
    before = profile.read_text()
    profile.write_text("00_one: {seeds: [1, 2], wrong: 1}\n")
    assert holding(root, "quick") == {}
    profile.write_text(before)
    assert set(holding(root, "quick")) == {"00_one"}
    path = root / "_build" / "quick" / "executed" / "00_one.parquet"
    pd.read_parquet(path).assign(answer="9").to_parquet(path)
    assert holding(root, "quick") == {}


def test_what_ran_is_kept_where_another_chapter_fails(root):
    """And parameters that a chapter does not know are not said of it."""
    code = root / "notebooks" / "01_two.ipynb"
    book = nbformat.read(root / "notebooks" / "00_one.ipynb", as_version=4)
    book.cells[0].source = PARAMETERS.replace("00_one", "01_two") + "\nfails = False"
    book.cells[1].source = f"assert not fails\n{ANSWERS}"
    nbformat.write(book, code)
    run(root, "quick")
    with pytest.raises(Failure, match="01_two failed"):
        reproduce(root, "quick", ["00", "01"], {"fails": True})
    assert pd.read_csv(root / "book" / "reproduced.csv")[["chapter", "changed"]].to_numpy().tolist() == [
        ["00_one", "{}"]
    ]


def test_a_run_that_fails_leaves_the_record_of_an_earlier_one(root):
    """Kind: answers of before, recorded as made with the code of now."""
    path = root / "notebooks" / "00_one.ipynb"
    book = nbformat.read(path, as_version=4)
    book.cells[1].source = f"assert seeds != [1]\n{ANSWERS}"
    nbformat.write(book, path)
    assert reproduce(root, "quick", ["00"], {"seeds": [2]})
    before = (root / "book" / "reproduced.csv").read_bytes()
    (root / "negdistill" / "runs" / "folder.py").write_text("x = 2\n")
    with pytest.raises(Failure, match="00_one failed"):
        reproduce(root, "quick", ["00"], {"seeds": [1]})
    assert (root / "book" / "reproduced.csv").read_bytes() == before and holding(root, "quick") == {}


@pytest.mark.parametrize(
    ("only", "overrides", "message"),
    [
        (["01"], {}, "01_two has no predictions to compare .*; run it with the profile instead"),
        (["00"], {"seeds": [7]}, "none of the answers made is among those compared with"),
    ],
)
def test_what_cannot_be_compared_is_refused(root, only, overrides, message):
    with pytest.raises(ValueError, match=message):
        reproduce(root, "quick", only, overrides)
    assert not (root / "book" / "reproduced.csv").exists()


def test_the_page_lists_what_was_made_again_of_what_it_shows(tmp_path):
    assert listing(tmp_path, []) == "Nothing was made again yet."
    (tmp_path / "book").mkdir()
    made = Manifest(inputs={}, parameters={}, seed=0, artifacts={"predictions.parquet": "b"}, seconds=1.0)
    for chapter, digest in (("05_one", "b"), ("06_two", "of an earlier run")):
        about = {"scale": "book", "chapter": chapter, "inputs": "a", "predictions": digest}
        counts = {"answers": 5, "equal": 4, "of": 9}
        row = about | {"date": "2026-11-27", "changed": '{"seeds": [0]}'} | counts
        put_rows(tmp_path / "book" / "reproduced.csv", [row], ("scale", "chapter"))
    lines = listing(tmp_path, [Execution("05_one.ipynb", "One", made)]).splitlines()
    link = "[One](executed/05_one.ipynb)"
    assert lines[2:] == [f"| {link} | 2026-11-27 | `seeds=[0]` | 5 of 9 answers, 1 of them different |"]
