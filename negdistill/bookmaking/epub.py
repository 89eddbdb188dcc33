"""EPUB: the same pages as one file for a reading device.

    _build/src as for the pages  --sphinx, builder epub-->  _build/turning-dust-into-gold.epub

A device runs no scripts: formulas become MathML, and every page has to be XML, which tables of notebooks are
not. This module is the Sphinx extension that sees to both, with docutils and Beautiful Soup, which come with
jupyter-book. The theme and its buttons stay at home.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from negdistill.bookmaking.documents import read_yaml
from negdistill.bookmaking.pages import jupyter_book, rendering, stage
from negdistill.bookmaking.planning import Failure
from negdistill.runs.files import remove

KEPT = (  # of the extensions in _config.yml
    *("myst_nb", "jupyter_book", "sphinx_external_toc", "sphinx.ext.extlinks", "sphinx.ext.intersphinx"),
    *("sphinx_design", "sphinxcontrib.bibtex"),
)
PLAINER = (  # what docutils does not know, or reads otherwise than TeX
    (r"\\[bB]igg?[lr]?(?![a-zA-Z])", ""),
    (r"\\dots(?![a-zA-Z])", r"\\ldots"),
    (r"\\operatorname\*", r"\\operatorname"),
    (r"\\[td]?frac(\d)(\d)", r"\\frac{\1}{\2}"),
    (r"\\[td]?frac(\d)", r"\\frac{\1}"),
)


def epub(root: Path, profile: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """Write the pages of a profile as an EPUB and return its path; Failure where Sphinx warns.

    ValueError as `pages.rendering`; FileNotFoundError where the profile was not run.
    """
    with rendering(root, profile, say) as build:
        return _made(root, profile, build, say)


def _made(root: Path, profile: str, build: Path, say: Callable[[str], None]) -> Path:
    work = build / "epub"
    config = staged(root, profile, work)
    say(f"epub: rendering profile {profile}")
    made = build / f"{file_name(config)}.epub"
    values = {"html_math_renderer": "mathml"}
    os.replace(bare_pages(work, config, "EPUB", (*KEPT, __name__), values) / made.name, made)
    remove(work)
    say(f"epub: {made}")
    return made


# --- pages without a theme ----------------------------------------------------------------------------


def staged(root: Path, profile: str, work: Path) -> dict[str, Any]:
    """Copy what the pages are made from into `work`, and return what is in _config.yml."""
    stage(root, profile, work / "src")
    return read_yaml(root / "_config.yml")


def file_name(config: Mapping[str, Any]) -> str:
    """The title of a book as the name of a file, which ends as its format wants."""
    return re.sub(r"\W+", "-", config["title"].lower())


def bare_pages(
    work: Path, config: Mapping[str, Any], wanted: str, extensions: Sequence[str], values: Mapping[str, str]
) -> Path:
    """Render what is staged in `work`: an EPUB, its pages beside it, without a theme; return their folder.

    `values` go to Sphinx. Failure where it warns: that `wanted` was not made.
    """
    name, source, pages = file_name(config), work / "src", work / "out"
    values = {
        "extensions": ",".join(extensions),
        "project": config["title"],
        "version": "1",
        "epub_basename": name,
        "epub_identifier": config.get("repository", {}).get("url", name),
        "epub_scheme": "URL",
        "epub_show_urls": "no",
        "epub_exclude_files": "index.html",  # leads to the first page
        **values,
    }
    tool = [jupyter_book(), "config", "sphinx", source]
    make = [sys.executable, "-m", "sphinx", "-b", "epub", "-W", "-n", "-q", "--keep-going"]
    make += [text for item in values.items() for text in ("-D", "=".join(item))]
    for command in (tool, [*make, "-d", work / "doctrees", source, pages]):
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            raise Failure(f"the {wanted} was not made; the warnings above say where")
    return pages


# --- the extension ------------------------------------------------------------------------------------


def plainer(tex: str) -> str:
    """A formula in the commands that docutils knows."""
    for pattern, text in PLAINER:
        tex = re.sub(pattern, text, tex)
    return tex


def as_xml(html: str) -> str:
    """HTML as XML: elements closed, attributes with values, no named characters."""
    from bs4 import BeautifulSoup

    return BeautifulSoup(html, "html.parser").decode(formatter="minimal")


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    from docutils.nodes import SkipNode
    from docutils.utils.math.latex2mathml import tex2mathml

    def formula(block: bool) -> Callable[[Any, Any], None]:
        def visit(translator: Any, node: Any) -> None:
            translator.body.append(tex2mathml(plainer(node.astext()), as_block=block))
            raise SkipNode

        return visit

    def page(app: Any, name: str, template: str, context: dict[str, Any], tree: Any) -> None:
        if "body" in context:
            context["body"] = as_xml(context["body"])

    app.add_html_math_renderer("mathml", (formula(False), None), (formula(True), None))
    app.connect("html-page-context", page)
    return {"parallel_read_safe": True}
