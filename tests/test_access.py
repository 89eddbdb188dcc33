"""Pages of every kind for who does not see them, or sees little: axe-core finds nothing serious in them.

Skipped where the book cannot be rendered or there is no Chromium.
"""

from importlib.metadata import files

import browser
import pytest

PAGES = ("index", "method", "claims", "results", "answers", "executed/04_nat", "ja/method", "ja/claims")
LOOKS = (("light", 1280), ("dark", 390))
SIDEBARS = (("dark", 1280),)  # they are the same on every page
SETTLED = """new Promise(done => {
    document.querySelectorAll("details").forEach(one => one.open = true);
    setTimeout(() => { document.getAnimations().forEach(one => one.finish()); done(); }, 500);
})"""  # everything unfolded; the theme waits 0.3 s before it looks at what scrolls
FOUND = """axe.run(document, {resultTypes: ["violations"]}).then(found => found.violations
    .filter(one => ["serious", "critical"].includes(one.impact))
    .flatMap(one => one.nodes.map(node => `${one.id}: ${node.html.slice(0, 200)}`)))"""


@pytest.fixture(scope="module")
def axe():
    """The script of axe-core, which a package brings; the package itself is not needed."""
    (path,) = (path for path in files("axe-playwright-python") if path.name == "axe.min.js")
    return path.locate().read_text("utf-8")


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser.browser(tmp_path_factory.mktemp("axe") / "profile") as one:
        yield one


@pytest.mark.parametrize("name", PAGES)
def test_nothing_serious_stands_in_the_way(html, window, axe, name):
    wrong = []
    with browser.served(html) as address:
        for theme, width in LOOKS + (SIDEBARS if name == "index" else ()):
            window.theme(theme)
            window.resize(width)
            window.open(f"{address}/book/{name}.html")
            assert window.run(browser.FOLLOWED.replace("THEME", theme)) == theme
            window.run(SETTLED)
            window.run(f"{axe}; 0")
            wrong += [f"{theme}, {width}: {text}" for text in window.run(FOUND)]
    assert not wrong


def test_axe_would_see_what_is_wrong(window, axe, tmp_path):
    body = '<main><h1>One</h1><button></button><p style="color: #bbb; background: #fff">pale</p></main>'
    (tmp_path / "index.html").write_text(f'<!doctype html><html lang="en"><title>t</title><body>{body}')
    with browser.served(tmp_path) as address:
        window.open(f"{address}/index.html")
        window.run(f"{axe}; 0")
        found = window.run(FOUND)
    assert {text.partition(":")[0] for text in found} == {"button-name", "color-contrast"}
