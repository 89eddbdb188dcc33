"""Finishing: what is mended in rendered pages, and what is left as it is."""

import re

from negdistill.bookmaking.finishing import drop_bundles, launch_sources, name_language, name_toggles


def test_launch_buttons_open_the_source(tmp_path):
    page = tmp_path / "book" / "executed" / "00_one.html"
    page.parent.mkdir(parents=True)
    there = "github/a/b/blob/main/book/executed/00_one.ipynb"
    binder = "v2/gh/a/b/main?urlpath=lab/tree/book/executed/00_one.ipynb"
    links = [f"https://colab.research.google.com/{there}", f"https://mybinder.org/{binder}"]
    other = ["https://github.com/a/b/blob/main/book/executed/00_one.ipynb", "../book/executed/01_two.html"]
    page.write_text("".join(f'<a class="btn" href="{link}">\n' for link in links + other))
    launch_sources(tmp_path)
    expected = [link.replace("book/executed", "notebooks") for link in links] + other
    assert re.findall(r'href="([^"]+)"', page.read_text()) == expected


def test_an_arrow_of_the_sidebar_has_the_name_of_its_page(tmp_path):
    arrow = '<span class="toctree-toggle" role="presentation"></span></summary>'
    link = '<a class="{}" href="api.html">This &amp; that</a>'
    inside = [link.format(kind) for kind in ("reference internal", "current reference internal")]
    page = tmp_path / "book" / "index.html"
    page.parent.mkdir()
    page.write_text(
        f"{inside[0]}<details><summary>{arrow}</details>"
        f'{inside[1]}<details open="open"><summary>{arrow}</details>'
        "<details><summary>A dropdown</summary></details>"
    )
    name_toggles(tmp_path)
    named = '<summary aria-label="Pages below This &amp; that">'
    assert page.read_text() == (
        f"{inside[0]}<details>{named}{arrow}</details>"
        f'{inside[1]}<details open="open">{named}{arrow}</details>'
        "<details><summary>A dropdown</summary></details>"
    )


def test_japanese_pages_have_their_language(tmp_path):
    page = '<!DOCTYPE html>\n<html lang="en" data-content_root="../../" >\n<p lang="en">One</p></html>'
    for name in ("index.html", "book/index.html", "book/ja/index.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(page)
    name_language(tmp_path)
    assert (tmp_path / "book/ja/index.html").read_text() == page.replace('<html lang="en"', '<html lang="ja"')
    assert (tmp_path / "index.html").read_text() == (tmp_path / "book/index.html").read_text() == page


def test_bundles_that_no_page_loads_are_dropped(tmp_path):
    folder = tmp_path / "_static" / "mathjax"
    folder.mkdir(parents=True)
    for name in ("tex-chtml.js", "tex-chtml-full.js", "mml-svg.js", "core.js"):
        (folder / name).touch()
    (tmp_path / "index.html").write_text('<script defer src="_static/mathjax/tex-chtml.js"></script>')
    drop_bundles(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["core.js", "tex-chtml.js"]
