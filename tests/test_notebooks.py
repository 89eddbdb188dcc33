"""Notebooks: what nbval, papermill and the reader count on, read from the files; and that nbval is strict."""

import ast
import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from statistics import median

import nbformat
import papermill
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook, new_output

from negdistill.bookmaking.claims_plan import read_plan
from negdistill.bookmaking.damage import is_run
from negdistill.bookmaking.planning import known_parameters, notebooks, plan

ROOT = Path(__file__).parents[1]
WAITING = read_plan(ROOT / "book" / "plan.yml").waiting  # executed before their notebooks changed
SOURCES = notebooks(ROOT / "notebooks")
EXECUTED = notebooks(ROOT / "book" / "executed")
PACKAGE = {
    node.name
    for path in (ROOT / "negdistill").rglob("*.py")
    for node in ast.parse(path.read_text("utf-8")).body
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
}


def read(path: Path):
    return nbformat.read(path, as_version=4)


def code(book) -> list:
    """The code cells that are run: all but the one that installs."""
    return [cell for cell in book.cells if is_run(cell)]


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def each(paths: list[Path]):
    return pytest.mark.parametrize("path", paths, ids=lambda path: f"{path.parent.name}/{path.stem}")


def test_chapters_are_numbered_without_gaps_and_in_the_book():
    names = [path.stem for path in SOURCES]
    assert [int(name[:2]) for name in names] == list(range(len(names))) and names[:1] == ["00_start_here"]
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))["parts"]
    pages = [chapter["file"] for part in parts for chapter in part["chapters"]]
    assert [page for page in pages if page.startswith("book/executed/")] == [
        f"book/executed/{name}" for name in names
    ]
    assert [path.stem for path in EXECUTED] == names


def test_every_figure_has_a_label_of_its_own():
    figures = [cell.metadata.get("mystnb", {}).get("figure") for path in SOURCES for cell in code(read(path))]
    names = [figure["name"] for figure in figures if figure]
    assert names and len(set(names)) == len(names)


@each(SOURCES + EXECUTED)
def test_a_notebook_is_valid_and_was_run_from_top_to_bottom(path):
    book = read(path)
    nbformat.validate(book)
    assert book.metadata.kernelspec.name == "python3"
    assert [cell.execution_count for cell in code(book)] == list(range(1, len(code(book)) + 1))
    for cell in code(book):
        assert not [output for output in cell.outputs if output.output_type == "error"]


@each(SOURCES + EXECUTED)
def test_no_output_names_a_machine_or_an_address_in_memory(path):
    for cell in code(read(path)):
        for output in cell.outputs:
            shown = output.get("text", "") + "".join(
                str(v) for k, v in output.get("data", {}).items() if "text" in k
            )
            assert not re.search(r"(?<![\w.:/])/(?:root|home|work|Users|tmp|usr)/|\bat 0x[0-9a-f]{6,}", shown)


@each(SOURCES)
def test_a_notebook_that_is_opened_alone_says_what_to_install(path, capsys, monkeypatch):
    """Its first code cell does nothing unless asked, and is never run here."""
    first = next(cell for cell in read(path).cells if cell.cell_type == "code")
    assert set(tags(first)) == {"setup", "remove-cell", "nbval-skip"}
    assert first.execution_count is None and first.outputs == []
    address = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]
    called = []
    monkeypatch.setattr(subprocess, "run", lambda line, **options: called.append(line))
    exec(first.source, {})
    assert called == [] and capsys.readouterr().out == ""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exec(first.source, {})
    assert called == [] and f"pip install 'negdistill[notebooks] @ git+{address}'" in capsys.readouterr().out
    exec(first.source.replace("install = False", "install = True"), {})
    assert called[0][:4] == [sys.executable, "-m", "pip", "install"] and called[0][-1].endswith(address)


@each(SOURCES)
def test_a_cell_that_is_not_run_installs_or_is_an_exercise(path):
    left = [cell for cell in read(path).cells if cell.cell_type == "code" and not is_run(cell)]
    assert all({"setup", "exercise"} & set(tags(cell)) for cell in left)
    assert all("nbval-skip" in tags(cell) for cell in left)


@each(SOURCES)
def test_parameters_are_one_plain_cell_that_papermill_understands(path):
    (cell,) = [cell for cell in code(read(path)) if "parameters" in tags(cell)]
    assert cell is not None and cell.source == code(read(path))[0].source, "the first code cell"
    known = known_parameters(path)
    told = papermill.inspect_notebook(path)  # stumbles over = in a comment
    assert known and set(told) == set(known)
    assert all(row["help"] for row in told.values()), "each with a comment: unit or meaning"
    if "run_dir" in known:
        assert known["run_dir"] == f"../_runs/smoke/{path.stem}"


@pytest.mark.parametrize(
    "profile", sorted((ROOT / "notebooks" / "profiles").glob("*.yml")), ids=lambda p: p.stem
)
def test_profiles_fit_the_notebooks(profile):
    jobs = plan(ROOT, profile.stem)
    assert [job.source for job in jobs] == SOURCES
    if profile.stem == "smoke":
        assert not any(job.given for job in jobs)


@each(SOURCES)
def test_cells_are_short_python_that_calls_the_package(path):
    lengths = []
    for cell in code(read(path)):
        lengths.append(
            len(cell.source.splitlines()) - ("parameters" in tags(cell))
        )  # a line for each of these
        assert not re.search(r"^\s*[%!]", cell.source, re.MULTILINE), "no magics, no shell"
        defined = {
            n.name for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.FunctionDef | ast.ClassDef)
        }
        assert not defined & PACKAGE, "the package has it"
    assert max(lengths) <= 25 and median(lengths) <= 12


@each(SOURCES)
def test_a_chapter_opens_with_a_title_and_explains_as_it_goes(path):
    cells = read(path).cells
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    assert sum(cell.source.startswith("# ") for cell in cells if cell.cell_type == "markdown") == 1
    assert cells[-1].cell_type == "markdown"
    kinds = "".join(cell.cell_type[0] for cell in cells)
    assert "ccc" not in kinds.removeprefix("c"), "at most two code cells in a row"


@each(SOURCES)
def test_sources_carry_no_trace_of_a_run(path):
    book = read(path)
    assert set(book.metadata) <= {"kernelspec", "language_info", "negdistill"}
    assert set(book.metadata.get("negdistill", {})) <= {"needs", "predictions", "work"}
    assert not [
        cell for cell in book.cells if "papermill" in cell.metadata or "injected-parameters" in tags(cell)
    ]


@each(EXECUTED)
def test_results_carry_their_provenance(path):
    manifest = read(path).metadata.negdistill.manifest
    assert manifest.seconds > 0 and {"cpu", "cores", "gpu"} == set(manifest.machine) - {"peak_mib"}
    assert manifest.machine.get("peak_mib", 1) > 0  # runs from before it was recorded lack it
    assert {"python", "torch", "negdistill"} <= set(manifest.versions)
    if read(path).metadata.negdistill.get("predictions") not in WAITING:
        assert set(manifest.parameters) == set(known_parameters(ROOT / "notebooks" / path.name))


def test_nbval_sees_one_changed_number_and_a_new_warning(tmp_path):
    shutil.copy(ROOT / "notebooks" / "conftest.py", tmp_path)
    glue = "application/papermill.record/image/png"
    show = f"from IPython.display import display\ndisplay({ {glue: 'QUJD', 'image/png': 'REVG'} }, raw=True)"
    warn = "import sys\nprint('careful', file=sys.stderr)"
    cells = [
        new_code_cell("print(41)", execution_count=1, outputs=[new_output("stream", text="42\n")]),
        new_code_cell("print(42)", execution_count=2, outputs=[new_output("stream", text="42\n")]),
        new_code_cell(warn, execution_count=3, outputs=[new_output("stream", text="")]),
        new_code_cell(show, execution_count=4, outputs=[
            new_output("display_data", {glue: "R0hJ", "image/png": "SktM"})
        ]),
    ]  # fmt: skip
    nbformat.write(new_notebook(cells=cells), tmp_path / "00_x.ipynb")
    line = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--color=no",
        "-q",
        "-p",
        "no:cacheprovider",
        "00_x.ipynb",
    ]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    failed = re.findall(r"^FAILED 00_x.ipynb::(Cell \d)", done.stdout, re.MULTILINE)
    assert failed == ["Cell 0", "Cell 2"], done.stdout
    assert "2 failed, 2 passed" in done.stdout


def test_data_that_nobody_named_is_named_to_no_test(monkeypatch):
    """Or tests that need the real data would fail where there is none, in place of being skipped."""
    monkeypatch.setattr(os, "environ", {**os.environ})
    for given in ("", "/somewhere"):
        os.environ["NEGDISTILL_DATA"] = given
        runpy.run_path(str(ROOT / "notebooks" / "conftest.py"))
        assert os.environ.get("NEGDISTILL_DATA", "") == given
