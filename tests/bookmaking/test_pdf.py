"""PDF: a book of a few pages becomes one file, each time the same, that has its text, links and formulas."""

import ctypes
import sys

import pytest
from tree import two_pages, write_files

from negdistill.__main__ import main
from negdistill.bookmaking.pdf import pdf, to_typst, typeset

pytest.importorskip("pypandoc", reason="needs the extra pdf")
pytest.importorskip("typst", reason="needs the extra pdf")
pypdfium2 = pytest.importorskip("pypdfium2", reason="reads PDF back")

HOME = """# Home

Half is $\\tfrac12 \\alpha$, and [](#eq) is a sum.
See [](executed/00_one.ipynb), [](answers.md) and [](ja/two.md).

$$\\beta = \\tanh\\bigl( \\mathrm{KL}(p \\,\\big\\|\\, q) \\bigr)$$ (eq)

<form class="panel"><input></form>

```{dropdown} More
- `inside`
```

{bdg-success}`holds`

| a | b |
| --- | --- |
| = | + |
"""
TOC = """format: jb-book
root: book/index
parts:
- {caption: Chapters, chapters: [{file: book/executed/00_one}, {file: book/answers}]}
- {caption: More, chapters: [{file: book/ja/two}]}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pdf")
    two_pages(folder)
    texts = {
        "book/index.md": HOME,
        "book/answers.md": "# Left out\n",
        "book/ja/two.md": "# 二つ\n\n**太字**\n",
        "notebooks/profiles/book.yml": "",
    }
    write_files(folder, {"_toc.yml": TOC, **texts})
    return folder


@pytest.fixture(scope="module")
def made(root):
    """The file, what was said, and its pages."""
    lines = []
    path = pdf(root, "book", lines.append)
    return path, lines, pypdfium2.PdfDocument(path.read_bytes())


def texts(document):
    return [page.get_textpage().get_text_bounded() for page in document]


def test_the_file_stands_beside_the_pages_and_nothing_else_is_left(root, made):
    path, lines, _ = made
    assert path == root / "_build" / "two-pages.pdf" and lines[-1] == f"pdf: {path}"
    assert not (root / "_build" / "pdf").exists()


def test_title_contents_parts_and_chapters_are_there_in_order(made):
    _, _, document = made
    assert document.get_metadata_dict()["Title"] == "Two pages"
    assert document.get_metadata_dict()["Author"] == "A. B."
    found = [(mark.level, mark.get_title()) for mark in document.get_toc()]
    assert found == [(0, "Home"), (0, "Chapters"), (1, "One"), (0, "More"), (1, "二つ")]
    pages = texts(document)
    assert "Two pages" in pages[0] and "Contents" in pages[1] and "Home" in pages[2] and "太字" in pages[-1]


def test_formulas_notes_dropdowns_badges_and_tables_are_laid_out(made):
    home = texts(made[2])[2]
    for said in ("𝛼", "tanh", "∥", "(1)", "The pages on the web have a panel", "inside", "holds"):
        assert said in home, said
    assert "$" not in home and "\\" not in home and "#badge" not in home and "parallel" not in home
    assert "=" in home.split("holds")[1] and "+" in home.split("holds")[1]


def test_links_lead_to_pages_of_the_file_and_left_out_pages_are_text(made):
    raw, document = pypdfium2.raw, made[2]
    place, link, pages = ctypes.c_int(0), raw.FPDF_LINK(), []
    while raw.FPDFLink_Enumerate(document[2], place, link):
        pages.append(raw.FPDFDest_GetDestPageIndex(document, raw.FPDFLink_GetDest(document, link)))
    assert sorted(set(pages)) == [2, 4, 6]  # the formula, the chapter, the page in Japanese
    assert "Left out" in texts(document)[2] and not any("Left out" in text for text in texts(document)[3:])


def test_the_same_pages_are_the_same_bytes(root, made):
    before = made[0].read_bytes()
    assert pdf(root, "book").read_bytes() == before


def test_what_pandoc_or_typst_cannot_read_ends_it(tmp_path):
    write_files(tmp_path, {"a.html": r"<p>\(\frac{a\)</p>", "b.html": "<p><a href='#x'>x</a></p>"})
    with pytest.raises(RuntimeError, match="Could not convert TeX math"):
        to_typst(tmp_path / "a.html")
    with pytest.raises(RuntimeError, match="label `<x>` does not exist"):
        typeset(to_typst(tmp_path / "b.html"), {"title": "T", "author": "A"})


def test_a_missing_tool_is_named_with_what_to_type(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(ValueError, match=r"not installed: typst; type `pip install 'negdistill\[pdf\]'`"):
        pdf(root, "book")


def test_one_file_at_a_time(capsys):
    with pytest.raises(SystemExit):
        main(["render", "--pdf", "--epub"])
    assert "not allowed with argument" in capsys.readouterr().err
