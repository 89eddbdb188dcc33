"""PDF: the same pages as one file to print.

    _build/src as for the pages  --sphinx, builder epub-->  pages without a theme  --one_page-->  book.html
    --pandoc, pdf.lua-->  book.typ, behind pdf.typ  --typst-->  _build/turning-dust-into-gold.pdf

Typst lays out formulas, tables and Japanese, and comes as a wheel. It sees no clock and no fonts of the
system, only its own, matplotlib's and one for Japanese: equal pages are equal bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from negdistill.bookmaking.epub import KEPT, bare_pages, file_name, staged
from negdistill.bookmaking.pages import rendering
from negdistill.runs.files import remove

TOOLS = ("matplotlib_fontja", "pypandoc", "typst")
FILTER, LOOK = (Path(__file__).with_suffix(suffix) for suffix in (".lua", ".typ"))


def pdf(root: Path, profile: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """Write the pages of a profile as a PDF and return its path; Failure where Sphinx warns.

    Without the API reference and the answers. ValueError where a tool is not installed, and for an unknown
    profile; FileNotFoundError where the profile was not run; RuntimeError where pandoc or Typst cannot read
    what it is given.
    """
    check_tools()
    with rendering(root, profile, say) as build:
        return _made(root, profile, build, say)


def check_tools() -> None:
    """ValueError where a package that makes the PDF is not installed."""
    if missing := [name for name in TOOLS if find_spec(name) is None]:
        raise ValueError(
            f"a PDF needs {', '.join(TOOLS)}; not installed: {', '.join(missing)}; "
            "type `pip install 'negdistill[pdf]'`, or leave out --pdf"
        )


def _made(root: Path, profile: str, build: Path, say: Callable[[str], None]) -> Path:
    from negdistill.bookmaking.one_page import one_page  # brings Beautiful Soup

    work = build / "pdf"
    config = staged(root, profile, work)
    say(f"pdf: rendering profile {profile}")
    values = {"html_math_renderer": "mathjax"}  # formulas stay TeX, which pandoc reads
    pages = bare_pages(work, config, "PDF", KEPT, values)
    text = pages / "book.html"
    text.write_text(one_page(pages, work / "src" / "_toc.yml"), "utf-8")
    made = build / f"{file_name(config)}.pdf"
    os.replace(typeset(to_typst(text), config), made)
    remove(work)
    say(f"pdf: {made}")
    return made


def to_typst(page: Path) -> Path:
    """HTML as the source of Typst, in a file beside it; RuntimeError where pandoc warns."""
    import pypandoc

    options = [f"--lua-filter={FILTER}", "--wrap=none", "--fail-if-warnings"]
    options.append("--syntax-highlighting=idiomatic")  # by Typst
    read = "html+tex_math_single_backslash"  # as Sphinx writes formulas for MathJax
    chapters = pypandoc.convert_file(str(page), "typst", format=read, extra_args=options)
    source = page.with_suffix(".typ")
    source.write_text(LOOK.read_text("utf-8") + chapters, "utf-8")
    return source


def typeset(source: Path, config: Mapping[str, Any]) -> Path:
    """Lay out what is written for Typst, in a file beside it; RuntimeError where Typst cannot read it."""
    import matplotlib
    import typst

    fonts = [Path(matplotlib.get_data_path()) / "fonts" / "ttf"]
    fonts.append(Path(find_spec("matplotlib_fontja").origin).with_name("fonts"))
    made = source.with_suffix(".pdf")
    told = {"title": config["title"], "author": config["author"]}
    typst.compile(source, made, source.parent, fonts, ignore_system_fonts=True, sys_inputs=told)
    return made
