"""Pages: a book of two pages is really rendered; every kind of complaint ends the build."""

import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from tree import write_files

from negdistill.bookmaking import epub, pages, pdf
from negdistill.bookmaking.pages import GENERATED, refresh_costs, render, stage
from negdistill.bookmaking.planning import Failure, find_root
from negdistill.runs.folder import Manifest

CONFIG = """title: A book
only_build_toc_files: true
execute: {execute_notebooks: "off"}
"""
TOC = """format: jb-book
root: book/index
chapters:
  - file: book/executed/00_one
"""


def write_notebook(path: Path, *outputs, made: Manifest | None = None) -> None:
    cells = [
        new_markdown_cell("# One"),
        new_code_cell("print('it ran')", execution_count=1, outputs=list(outputs)),
    ]
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    } | ({"negdistill": {"manifest": made.to_dict()}} if made else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)


@pytest.fixture
def root(tmp_path) -> Path:
    texts = {
        "_config.yml": CONFIG,
        "_toc.yml": TOC,
        "constraints.txt": "",
        "notebooks/profiles/quick.yml": "",
        "notebooks/profiles/book.yml": "",
        "book/index.md": "# Home\n\nSee [](executed/00_one.ipynb).\n",
    }
    write_files(tmp_path, texts)
    write_notebook(tmp_path / "book/executed/00_one.ipynb", new_output("stream", text="from book\n"))
    write_notebook(tmp_path / "_build/quick/executed/00_one.ipynb", new_output("stream", text="from quick\n"))
    return tmp_path


def test_stage_takes_the_notebooks_of_the_profile(root):
    (root / "_build/quick/executed/01_two.failed.ipynb").write_text("{}")
    (root / "_build/quick/src").mkdir()
    (root / "_build/quick/src/stale.md").touch()
    stage(root, "quick", root / "_build/quick/src")
    files = sorted(
        p.relative_to(root / "_build/quick/src").as_posix() for p in (root / "_build/quick/src").rglob("*.*")
    )
    assert files == ["_config.yml", "_toc.yml", "book/executed/00_one.ipynb", "book/index.md"]
    assert "from quick" in (root / "_build/quick/src/book/executed/00_one.ipynb").read_text()


def test_pages_are_rendered_once(root, capfd, monkeypatch):
    lines = []
    html = render(root, "quick", lines.append)
    assert html == root / "_build/quick/html"
    page = (html / "book/executed/00_one.html").read_text()
    assert "from quick" in page and "from book" not in page
    assert "url=book/index.html" in (html / "index.html").read_text()

    before = (html / "index.html").stat().st_mtime_ns
    render(root, "quick", lines.append)
    assert lines == [
        "pages: rendering profile quick",
        f"pages: {html}/index.html",
        f"pages: up to date in {html}",
    ]
    assert (html / "index.html").stat().st_mtime_ns == before

    with monkeypatch.context() as changed:  # code that finishes the pages
        changed.setattr(pages, "digest_code", lambda module: "other")
        render(root, "quick", lines.append)
    assert lines[3:] == lines[:2]

    before = (html / "index.html").stat().st_mtime_ns
    (root / "book/index.md").write_text("# Home\n\nSee [this](nowhere.md).\n")
    for _ in range(2):  # a second try must not take the first one's pages for finished
        with pytest.raises(Failure, match="the pages did not render; the warnings above say where"):
            render(root, "quick", lines.append)
        assert (
            "index.md:3: WARNING: 'myst' cross-reference target not found: 'nowhere.md'"
            in capfd.readouterr().err
        )
    assert (html / "index.html").stat().st_mtime_ns == before


def test_the_committed_notebooks_have_a_folder_of_their_own(root):
    stage(root, "book", root / "_build/src")
    assert "from book" in (root / "_build/src/book/executed/00_one.ipynb").read_text()


def test_a_stored_traceback_ends_the_build(root):
    error = new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])
    write_notebook(root / "book/executed/00_one.ipynb", error)
    with pytest.raises(
        ValueError, match=r"00_one.ipynb holds a traceback \(ValueError in cell \[1\]\): mend and"
    ):
        render(root, "book")
    assert not (root / "_build/html").exists()


def test_nothing_executed_says_what_to_type(root):
    (root / "book/executed/00_one.ipynb").unlink()
    with pytest.raises(FileNotFoundError, match="make them with `python -m negdistill run --profile book`"):
        render(root, "book")


@pytest.mark.parametrize("make", [render, epub.epub, pdf.pdf])
def test_an_unknown_profile_and_a_missing_tool_are_refused_and_leave_nothing(root, monkeypatch, make):
    monkeypatch.setattr(pdf, "TOOLS", ())  # of which another test tells
    before = sorted(root.rglob("*"))
    with pytest.raises(ValueError, match="profile must be one of 'book', 'quick'; got 'slow'"):
        make(root, "slow")
    monkeypatch.setattr(sys, "executable", str(root / "bin" / "python"))
    with pytest.raises(ValueError, match=r"jupyter-book in .*bin; type `pip install 'negdistill\[book\]'`"):
        make(root, "quick")
    assert sorted(root.rglob("*")) == before


# --- what is generated --------------------------------------------------------------------------------

MADE = Manifest(
    inputs={"notebook": "ab" * 32},
    parameters={"seeds": [3, 4], "rate": 0.1},
    seed=7,
    artifacts={"table.csv": "cd" * 32},
    versions={"python": "3.11.7", "torch": "2.13.0"},
    machine={"cpu": "x86_64", "cores": 2, "gpu": None},
    seconds=61.0,
)


def test_marks_give_way_to_what_notebooks_say_of_themselves(root):
    write_notebook(root / "book/executed/00_one.ipynb", made=MADE)
    newer = Manifest(**{**MADE.to_dict(), "versions": {"torch": "2.14.0"}, "seconds": 1.0, "parameters": {}})
    write_notebook(root / "book/executed/01_two.ipynb", made=newer)
    write_notebook(root / "book/executed/02_three.ipynb")  # does not say
    apart = ("modules", "plan", "parameters")  # of other sources
    shutil.copyfile(find_root() / "book/plan.yml", root / "book/plan.yml")  # which other tasks are asked by
    marks = "\n\n".join(f"<!-- generated: {name} -->" for name in GENERATED if name not in apart)
    (root / "book/environment.md").write_text(f"# Environment\n\n{marks}\n\nThe end.\n")
    refresh_costs(root)
    pages = []
    for _ in range(2):
        stage(root, "book", root / "_build/src")
        pages.append((root / "_build/src/book/environment.md").read_text())
    assert pages[0] == pages[1], "what is generated follows from the sources alone"
    lines = pages[0].splitlines()
    assert "| [One](executed/00_one.ipynb) | 1.0 min | x86_64, 2 cores | 7; training 3, 4 |" in lines
    assert "| [One](executed/01_two.ipynb) | 1 s | x86_64, 2 cores | 7 |" in lines
    assert "| all | 1.0 min |  |  |" in lines
    assert "| python | 3.11.7 |" in lines and "| torch | 2.13.0, 2.14.0 |" in lines
    assert "| parameter | `rate` | `0.1` |" in lines and "| parameter | `seeds` | `[3, 4]` |" in lines
    assert "| input | `notebook` | `abababababab` |" in lines
    assert "| artefact | `table.csv` | `cdcdcdcdcdcd` |" in lines
    assert lines[0] == "# Environment" and lines[-1] == "The end." and "generated:" not in pages[0]
    assert "02_three" not in pages[0]


def test_costs_are_kept_for_scales_that_were_not_run_here(root):
    old = "scale,chapter,seconds,peak_mib\nquick,00_one,5.0,\nsmoke,00_one,0.5,70\n"
    (root / "book/costs.csv").write_text(old)
    made = Manifest(**{**MADE.to_dict(), "machine": {"cores": 2, "peak_mib": 1234}})
    write_notebook(root / "book/executed/00_one.ipynb", made=made)
    assert refresh_costs(root) == root / "book/costs.csv"
    (root / "book/index.md").write_text("# Home\n\n<!-- generated: costs -->\n")
    stage(root, "book", root / "_build/src")
    assert (root / "_build/src/book/index.md").read_text().splitlines()[2:] == [
        "| chapter | smoke | quick | book |",
        "| --- | --- | --- | --- |",
        "| [One](executed/00_one.ipynb) | 0 s, 70 MiB | 5 s | 1.0 min, 1,234 MiB |",
    ]


def test_modules_are_listed_in_the_order_of_the_file_map(root):
    (root / "negdistill/attic").mkdir(parents=True)
    (root / "negdistill/cellar").mkdir()
    (root / "negdistill/cellar/upper.py").write_text('"""Upper: above `lower.f`."""\n')
    (root / "negdistill/attic/lower.py").write_text('"""Lower: below."""\ndef f():\n    """F."""\n')
    (root / "README.md").write_text("negdistill/\n\n  cellar/  first\n  attic/  then\n")
    (root / "book/api.md").write_text("# Reference\n\n<!-- generated: modules -->\n")
    stage(root, "book", root / "_build/src")
    assert (root / "_build/src/book/api.md").read_text().splitlines()[2:] == [
        "| module | what it is about |",
        "| --- | --- |",
        "| [`cellar.upper`](api/cellar.upper.md) | above {py:obj}`lower.f <negdistill.attic.lower.f>` |",
        "| [`attic.lower`](api/attic.lower.md) | below |",
    ]
    assert "{py:function} f()" in (root / "_build/src/book/api/attic.lower.md").read_text()


def test_an_unknown_mark_is_refused(root):
    (root / "book/index.md").write_text("# Home\n\n<!-- generated: weather -->\n")
    with pytest.raises(ValueError, match="generated in index.md must be one of .*; got 'weather'"):
        stage(root, "book", root / "_build/src")
    (root / "book/ja").mkdir()
    (root / "book/index.md").rename(root / "book/ja/index.md")
    with pytest.raises(ValueError, match="generated in ja/index.md must be one of .*; got 'weather'"):
        stage(root, "book", root / "_build/src")


def test_a_profile_that_lacks_chapters_is_not_rendered(root):
    for name in ("00_one", "01_two"):
        write_notebook(root / f"notebooks/{name}.ipynb")
    with pytest.raises(
        FileNotFoundError, match=r"need every chapter; profile quick has not run 01_two\.ipynb"
    ):
        render(root, "quick")
