"""EPUB: a book of two pages becomes one file of well-formed pages; formulas are MathML and read as in TeX."""

import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from tree import write_files

from negdistill.bookmaking.epub import as_xml, epub, plainer
from negdistill.bookmaking.planning import Failure

BOOK = Path(__file__).parents[2] / "book"
CONFIG = """title: Two pages
only_build_toc_files: true
execute: {execute_notebooks: "off"}
parse: {myst_enable_extensions: [amsmath, dollarmath]}
bibtex_bibfiles: [book/references.bib]
launch_buttons: {binderhub_url: https://mybinder.org}
repository: {url: https://example.org/two}
"""
TABLE = "<table border=1 class=dataframe><tr><td>a&nbsp;b<br>c<td hidden>d</table>"


@pytest.fixture
def root(tmp_path):
    texts = {
        "_config.yml": CONFIG,
        "_toc.yml": "format: jb-book\nroot: book/index\nchapters: [{file: book/executed/00_one}]\n",
        "book/references.bib": "@misc{one, title={One}, author={A. B.}, year={2020}}\n",
        "book/index.md": "# Home\n\nHalf is $\\tfrac12 \\alpha$. See [](executed/00_one.ipynb).\n",
    }
    write_files(tmp_path, texts)
    (tmp_path / "book/executed").mkdir()
    shown = new_output("execute_result", {"text/html": TABLE, "text/plain": "a"}, execution_count=1)
    cell = new_code_cell("1", execution_count=1, outputs=[shown])
    heading = nbformat.v4.new_markdown_cell("# One")
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    notebook = new_notebook(cells=[heading, cell], metadata=metadata)
    nbformat.write(notebook, tmp_path / "book/executed/00_one.ipynb")
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
