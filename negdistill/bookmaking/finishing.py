"""Finishing: what is mended in rendered pages that the theme and its extensions leave no option for.

launch_sources  buttons that open a chapter elsewhere open its source
name_toggles    the arrows of the sidebar have names
name_language   Japanese pages say that they are Japanese
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from negdistill.runs.files import atomic_write_text

LAUNCH = re.compile(r'(href="https://(?:mybinder\.org|colab\.research\.google\.com)/[^"]*?)book/executed/')
TOGGLE = re.compile(r'(<a class="[^"]*reference internal" href="[^"]*">([^<]*)</a><details[^>]*><summary)>')
LANGUAGE = re.compile(r'(<html\b[^>]*\blang=)"en"')
BUNDLE = re.compile(r"mathjax/([\w-]+\.js)")


def launch_sources(html: Path) -> None:
    """Let the launch buttons of a chapter open its source in notebooks/, which runs in seconds.

    What is rendered is the executed notebook, whose parameters may take hours.
    """
    _replace(html.glob("book/executed/*.html"), LAUNCH, r"\1notebooks/")


def name_toggles(html: Path) -> None:
    """Say what an arrow of the sidebar opens, to who does not see beside which page it stands."""
    _replace(html.rglob("*.html"), TOGGLE, r'\1 aria-label="Pages below \2">')


def name_language(html: Path) -> None:
    """Let pages below book/ja have lang="ja": what reads them aloud, and chooses their glyphs, goes by it."""
    _replace(html.glob("book/ja/*.html"), LANGUAGE, r'\1"ja"')


def drop_bundles(html: Path) -> None:
    """Remove the bundles of MathJax, which overlap, that no page loads: a third of the site."""
    loaded = {name for page in html.rglob("*.html") for name in BUNDLE.findall(page.read_text("utf-8"))}
    for path in (html / "_static" / "mathjax").glob("*-*.js"):
        if path.name not in loaded:
            path.unlink()


def _replace(pages: Iterable[Path], pattern: re.Pattern[str], by: str) -> None:
    for page in pages:
        text = page.read_text("utf-8")
        changed = pattern.sub(by, text)
        if changed != text:
            atomic_write_text(page, changed)
