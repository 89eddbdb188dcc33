"""The rendered book as a reader gets it: every link and picture, and every page in a browser.

The crawler reads files alone. The browser run is skipped where there is no Chromium. Both are skipped where
the tools that render are not installed.
"""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import browser
import pytest

from negdistill.bookmaking.moved import MOVED
from negdistill.bookmaking.planning import notebooks

ROOT = Path(__file__).parents[1]
OWN = ("_static", "_sources")  # folders of the theme and of sources, which hold no pages
LOADING = {  # what a browser fetches without being asked
    **{
        tag: "src"
        for tag in ("script", "img", "iframe", "audio", "video", "source", "embed", "track", "input")
    },
    "object": "data",
    "image": "href",
}
LOADED = ("stylesheet", "icon", "shortcut", "preload", "prefetch", "preconnect", "dns-prefetch", "manifest")


class Page(HTMLParser):
    """Anchors, links, pictures, what is loaded, and the language of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.classes: set[str] = set()
        self.relations: set[str] = set()
        self.language = ""
        self.feed(text)

    def handle_starttag(self, tag, pairs):
        attributes = dict(pairs)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        self.classes |= set((attributes.get("class") or "").split())
        if tag == "html":
            self.language = attributes["lang"]
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag == "meta" and (attributes.get("http-equiv") or "").lower() == "refresh":
            self.links.append(attributes["content"].partition("url=")[2])
        if tag == "link":
            kinds = set((attributes.get("rel") or "").split())
            self.relations |= kinds
            if kinds & set(LOADED):
                self.loads.append(attributes["href"])
        if address := attributes.get(LOADING.get(tag, "")):
            self.loads.append(address)
        self.loads += [
            part.split()[0] for part in (attributes.get("srcset") or "").split(",") if part.strip()
        ]
        self.loads += re.findall(r"url\(['\"]?([^'\")]+)", attributes.get("style") or "")
        if tag == "img":
            self.pictures.append(attributes)


@pytest.fixture(scope="session")
def site(html):
    """Every page by its path below the site; those that only lead on left out."""
    paths = [path.relative_to(html) for path in sorted(html.rglob("*.html"))]
    return {
        path.as_posix(): Page((html / path).read_text("utf-8"))
        for path in paths
        if path.parts[0] not in OWN and path.as_posix() not in MOVED
    }


def target(html, page, address):
    """File and anchor that a link of a page leads to; None for one that leaves the book."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    path = (html / page).parent / unquote(parts.path) if parts.path else html / page
    return path.resolve(), unquote(parts.fragment)


# --- crawler ------------------------------------------------------------------------------------------


def test_every_page_of_the_table_of_contents_is_there(html, site):
    sources = [path.relative_to(ROOT) for path in (ROOT / "book").rglob("*.md")]
    pages = {path.with_suffix(".html").as_posix() for path in sources if "artifacts" not in path.parts}
    pages |= {f"book/executed/{path.stem}.html" for path in notebooks(ROOT / "book/executed")}
    pages |= {f"book/api/{path.stem}.html" for path in (ROOT / "negdistill").glob("[!_]*.py")}
    assert site["index.html"].links == ["book/index.html"]
    assert pages <= set(site) and {"search.html", "genindex.html", "py-modindex.html"} <= set(site)


def test_no_link_is_dead(html, site):
    dead = set()
    for name, page in site.items():
        for address in page.links + page.loads:
            if (found := target(html, name, address)) is None or address.startswith("data:"):
                continue
            path, anchor = found
            path = path / "index.html" if path.is_dir() else path
            inside = (
                path.relative_to(html.resolve()).as_posix() if path.is_relative_to(html.resolve()) else ""
            )
            known = inside in site and anchor
            if not path.is_file() or not inside or (known and anchor not in site[inside].anchors):
                dead.add(f"{name}: {address}")
    assert not dead


def test_every_picture_has_an_alternative_text(site):
    bare = {
        f"{name}: {picture.get('src', '')[:80]}"
        for name, page in site.items()
        for picture in page.pictures
        if not (picture.get("alt") or "").strip() or "_images/" in picture["alt"]
    }
    assert not bare
    assert sum(len(page.pictures) for page in site.values()) > 50


def test_nothing_is_loaded_from_elsewhere(html, site):
    outside = {
        f"{name}: {address}"
        for name, page in site.items()
        for address in page.loads
        if not address.startswith("data:") and target(html, name, address) is None
    }
    for path in html.rglob("*.css"):
        for address in re.findall(
            r"(?:url\(|@import)\s*['\"]?([^'\")\s;]+)", path.read_text("utf-8", errors="replace")
        ):
            if not address.startswith(("data:", "#")) and re.match(r"(?:\w+:)?//", address):
                outside.add(f"{path.name}: {address}")
    assert not outside


def test_the_site_is_small_enough_to_be_copied_around(html):
    assert sum(path.stat().st_size for path in html.rglob("*") if path.is_file()) < 40e6


def test_every_page_has_what_a_reader_expects(site):
    for name, page in site.items():
        if not name.startswith("book/"):
            continue
        assert {"icon", "search"} <= page.relations, name
        assert any("logo" in (picture.get("src") or "") for picture in page.pictures), name
        assert any(load.endswith("copybutton.js") or "copybutton.js?" in load for load in page.loads), name
        assert "theme-switch-button" in page.classes and "search-button__button" in page.classes, name
        assert name == "book/index.html" or "prev" in page.relations, name
        assert name == "book/ja/claims.html" or "next" in page.relations, name
    for path in notebooks(ROOT / "book/executed"):
        page = site[f"book/executed/{path.stem}.html"]
        assert f"../../_sources/book/executed/{path.name}" in page.links, "the notebook can be downloaded"
        launched = {urlsplit(link).netloc: unquote(link) for link in page.links}
        for host in ("mybinder.org", "colab.research.google.com"):
            assert launched[host].endswith(f"/notebooks/{path.name}"), "the source, which runs in seconds"


def test_every_page_names_its_language(site):
    pages = {name: page.language for name, page in site.items() if name.startswith("book/")}
    assert pages == {name: "ja" if name.startswith("book/ja/") else "en" for name in pages}


def test_every_page_outside_the_reference_has_a_card(html, site):
    for name in site:
        if name.startswith("book/"):
            text = (html / name).read_text("utf-8")
            image = re.search(r'<meta property="og:image" content="[^"]*/(_images/[^"]+)"', text)
            assert bool(image) != name.startswith("book/api/"), name
            assert not image or ((html / image[1]).is_file() and 'property="og:description"' in text), name


# --- browser ------------------------------------------------------------------------------------------


def test_every_page_fits_desktop_and_phone_in_light_and_dark(html, site, tmp_path):
    wrong, looks = [], [("light", 1280), ("dark", 1280), ("dark", 390), ("light", 390)]
    with browser.served(html) as address, browser.browser(tmp_path / "profile") as window:
        for name in sorted(set(site) - {"index.html"}):  # that one leads on at once
            events = window.open(f"{address}/{name}")
            wrong += [f"{name}: {text}" for text in browser.complaints(events, address)]
            for theme, width in looks:
                window.theme(theme)
                window.resize(width)
                shown = window.run(browser.FOLLOWED.replace("THEME", theme))
                wrong += [] if shown == theme else [f"{name}: {shown} for who wants {theme}"]
                beyond = window.run("document.documentElement.scrollWidth - innerWidth")
                wrong += [f"{name}: {beyond} px too wide for {width}, {theme}"] if beyond > 0 else []
            looks.reverse()  # the next page begins as this one ends: half as many changes
    assert not wrong


def test_a_large_figure_on_a_phone_leads_to_itself_in_full_size(html, tmp_path):
    links = "[...document.querySelectorAll('a.whole')].map(one => [one.href, one.querySelector('img').src])"
    figures = "document.querySelectorAll('.bd-content :is(div.cell_output, figure.plot) img').length"
    with browser.served(html) as address, browser.browser(tmp_path / "profile") as window:
        for name, large in (("executed/05_baselines", True), ("ja/claims", False)):
            window.resize(1280)
            window.open(f"{address}/book/{name}.html")
            assert window.run(links) == [] and window.run(figures) > 0
            window.resize(390)
            window.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            found = window.run(links)
            assert len(found) == large * window.run(figures) and all(to == image for to, image in found)


def test_a_table_that_goes_on_fades_until_it_is_scrolled_to_its_end(html, tmp_path):
    boxes = "document.querySelectorAll('div.cell_output .text_html:has(table)')"
    fades = f"[...{boxes}].map(one => [one.scrollWidth > one.clientWidth, getComputedStyle(one).maskImage])"
    ends = f"{boxes}.forEach(one => one.scrollTo(one.scrollWidth, 0))"
    drawn = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    with browser.served(html) as address, browser.browser(tmp_path / "profile") as window:
        window.resize(390)
        window.open(f"{address}/book/executed/05_baselines.html")
        window.run(drawn)
        found = window.run(fades)
        assert {wide for wide, _ in found} == {True, False}
        assert all(("rgb(0, 0, 0) 20px" in mask) == wide for wide, mask in found)
        window.run(f"{ends}, {drawn}")
        left = [float(re.search(r"([\d.e-]+)px\)$", mask)[1]) for _, mask in window.run(fades)]
        assert max(left) < 0.1


def test_the_browser_run_would_see_what_is_wrong(tmp_path):
    body = (
        '<div style="width: 500px">wide</div><img src="gone.png" alt="gone"><script>nothing.here()</script>'
    )
    (tmp_path / "index.html").write_text(f"<!doctype html><title>t</title><body>{body}")
    with browser.served(tmp_path) as address, browser.browser(tmp_path / "profile") as window:
        found = browser.complaints(window.open(f"{address}/index.html"), address)
        window.resize(390)
        assert window.run("document.documentElement.scrollWidth") > 390
    assert any(text.startswith("404 for") for text in found) and any("Uncaught" in text for text in found)
