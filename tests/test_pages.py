"""Pages: a book of two pages is really rendered; every kind of complaint ends the build."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from negdistill.pages import render, stage
from negdistill.planning import Failure

CONFIG = """title: A book
only_build_toc_files: true
execute: {execute_notebooks: "off"}
"""
TOC = """format: jb-book
root: book/index
chapters:
  - file: book/executed/00_one
"""


def write_notebook(path: Path, *outputs) -> None:
    cells = [
        new_markdown_cell("# One"),
        new_code_cell("print('it ran')", execution_count=1, outputs=list(outputs)),
    ]
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)


@pytest.fixture
def root(tmp_path) -> Path:
    for name, text in {
        "_config.yml": CONFIG,
        "_toc.yml": TOC,
        "constraints.txt": "",
        "notebooks/profiles/quick.yml": "",
        "notebooks/profiles/book.yml": "",
        "book/index.md": "# Home\n\nSee [](executed/00_one.ipynb).\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
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


def test_pages_are_rendered_once(root, capfd):
    lines = []
    html = render(root, "quick", lines.append)
    assert html == root / "_build/quick/html"
    page = (html / "book/executed/00_one.html").read_text()
    assert "from quick" in page and "from book" not in page
    assert "url=book/index.html" in (html / "index.html").read_text()

    before = (html / "index.html").stat().st_mtime_ns
    render(root, "quick", lines.append)
    assert lines == [f"pages: {html}/index.html", f"pages: up to date in {html}"]
    assert (html / "index.html").stat().st_mtime_ns == before

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


def test_an_unknown_profile_is_refused(root):
    with pytest.raises(ValueError, match="profile must be one of book, quick; got 'slow'"):
        render(root, "slow")
