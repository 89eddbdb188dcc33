"""EPUB: a book of two pages becomes one file of well-formed pages; formulas are MathML and read as in TeX."""

import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tree import TABLE, two_pages, write_files

from negdistill.bookmaking.epub import as_xml, epub, plainer
from negdistill.bookmaking.planning import Failure

BOOK = Path(__file__).parents[2] / "book"


@pytest.fixture
def root(tmp_path):
    two_pages(tmp_path)
    write_files(tmp_path, {"notebooks/profiles/book.yml": ""})
    return tmp_path


def test_every_page_of_the_file_is_xml_and_needs_no_script(root):
    lines = []
    path = epub(root, "book", lines.append)
    assert path == root / "_build" / "two-pages.epub" and lines[-1] == f"epub: {path}"
    assert not (root / "_build" / "epub").exists()
    with zipfile.ZipFile(path) as file:
        assert file.namelist()[0] == "mimetype" and file.read("mimetype") == b"application/epub+zip"
        pages = {name: file.read(name).decode() for name in file.namelist() if name.endswith(".xhtml")}
        content = file.read("content.opf").decode()
    for text in pages.values():
        ElementTree.fromstring(text)
        assert "<script" not in text
    assert "<mfrac>" in pages["book/index.xhtml"] and "dataframe" in pages["book/executed/00_one.xhtml"]
    assert "<dc:title>Two pages</dc:title>" in content and "https://example.org/two" in content


def test_a_warning_ends_it(root, capfd):
    (root / "book/index.md").write_text("# Home\n\n[](nowhere.md)\n")
    with pytest.raises(Failure, match="the EPUB was not made"):
        epub(root, "book")
    assert "nowhere" in capfd.readouterr().err
    assert not list((root / "_build").glob("*.epub"))


@pytest.mark.parametrize(
    ("tex", "said"),
    [
        (r"\tfrac12 \mathrm{CE}", r"\frac{1}{2} \mathrm{CE}"),
        (r"\frac1{|r|} \sum", r"\frac{1}{|r|} \sum"),
        (r"\frac{a}{b}\ \tfrac{1}{3}", r"\frac{a}{b}\ \tfrac{1}{3}"),
        (r"\bigl( x \Bigr)", r"( x )"),
        (r"\operatorname*{arg\,max}_y", r"\operatorname{arg\,max}_y"),
        (r"\bigoplus a \dots b \dotsb", r"\bigoplus a \ldots b \dotsb"),
    ],
)
def test_formulas_in_plainer_commands(tex, said):
    assert plainer(tex) == said


def test_html_becomes_xml():
    root = ElementTree.fromstring(f"<div>{as_xml(TABLE)}</div>")
    assert "".join(root.itertext()) == "a\N{NO-BREAK SPACE}bcd"


def test_every_formula_of_the_pages_is_known():
    from docutils.utils.math.latex2mathml import tex2mathml

    found = 0
    for path in BOOK.rglob("*.md"):
        text = re.sub(r"```.*?```|`[^`\n]+`", "", path.read_text("utf-8"), flags=re.DOTALL)
        for block, inline in re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", text, re.DOTALL):
            tex2mathml(plainer(block or inline).strip(), as_block=bool(block))
            found += 1
    assert found > 50
