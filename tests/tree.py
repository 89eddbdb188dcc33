"""Folders that tests work in."""

from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

CONFIG = """title: Two pages
author: A. B.
only_build_toc_files: true
execute: {execute_notebooks: "off"}
parse: {myst_enable_extensions: [amsmath, dollarmath]}
bibtex_bibfiles: [book/references.bib]
launch_buttons: {binderhub_url: https://mybinder.org}
repository: {url: https://example.org/two}
"""
TOC = """format: jb-book
root: book/index
parts: [{caption: Chapters, chapters: [{file: book/executed/00_one}]}]
"""
TABLE = "<table border=1 class=dataframe><tr><td>a&nbsp;b<br>c<td hidden>d</table>"


def write_files(root: Path, texts: Mapping[str, str]) -> None:
    """Write each text below the root, with the folders that it needs."""
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")


def two_pages(root: Path) -> None:
    """Write what a book of a first page and one executed chapter is made from."""
    texts = {
        "_config.yml": CONFIG,
        "_toc.yml": TOC,
        "book/references.bib": "@misc{one, title={One}, author={A. B.}, year={2020}}\n",
        "book/index.md": "# Home\n\nHalf is $\\tfrac12 \\alpha$. See [](executed/00_one.ipynb).\n",
    }
    write_files(root, texts)
    (root / "book/executed").mkdir()
    shown = new_output("execute_result", {"text/html": TABLE, "text/plain": "a"}, execution_count=1)
    cell = new_code_cell("1", execution_count=1, outputs=[shown])
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    notebook = new_notebook(cells=[new_markdown_cell("# One"), cell], metadata=metadata)
    nbformat.write(notebook, root / "book/executed/00_one.ipynb")
