"""The two panels of the method page: what they show is what the package computes, for every reader.

Skipped where the book cannot be rendered or there is no Chromium.
"""

import json
import re
from pathlib import Path

import browser
import pytest
import torch
import torch.nn.functional as F

from negdistill import calibration_beta, integrate_plain
from negdistill.bookmaking import plots

NUMBERS = """form => {
    const found = {};
    for (const span of form.querySelectorAll("span[class]"))
        (found[span.className] ??= []).push(Number(span.dataset.value));
    return found;
}"""
MOVE = """((form, wanted) => {
    for (const [name, values] of Object.entries(wanted))
        form.querySelectorAll(`input[name="${name}"]`).forEach((input, i) => input.value = values[i]);
    form.querySelector("input").dispatchEvent(new Event("input", {bubbles: true}));
})"""
CONTRASTS = """(form => {
    const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const light = colour => {
        paint.fillStyle = colour;
        paint.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...paint.getImageData(0, 0, 1, 1).data].map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const page = light(getComputedStyle(document.body).backgroundColor);
    const least = (selector, property) => Math.min(...[...form.querySelectorAll(selector)].map(one => {
        const pair = [light(getComputedStyle(one)[property]), page];
        return Math.max(...pair) / Math.min(...pair);
    }));
    return {
        text: Math.min(least("legend, label, button, th, td, p, code", "color"), least("svg text", "fill")),
        marks: Math.min(...[[".sign", "color"], ["path.step", "stroke"], ["td i", "backgroundColor"]]
            .map(pair => least(...pair))),
    };
})"""
INSIDE = """(form => {
    const inside = (one, box) => one.width === 0 || one.left >= box.left - 1 && one.right <= box.right + 1
        && one.top >= box.top - 1 && one.bottom <= box.bottom + 1;
    const within = (box, parts) => [...parts].every(one => inside(one.getBoundingClientRect(), box));
    const plane = form.querySelector("svg");
    return within(form.getBoundingClientRect(), form.querySelectorAll("*"))
        && (!plane || within(plane.getBoundingClientRect(), plane.querySelectorAll("*")));
})"""
DRAWN = """form => [...form.querySelectorAll("g, path, td i")].map(one =>
    one.getAttribute("transform") ?? one.getAttribute("d") ?? one.style.width)"""
UNIT_AT = {  # x, h+, h-, and what the page says of the negative branch
    "start": ((1, -0.5), (1.2, 0.4), (0.4, 1.5), "subtracted"),
    "it fits better": ((1, -0.5), (1.2, 0.4), (1.5, 0), "added"),
    "on the other": ((1, -0.5), (1.2, 0.4), (1.2, 0.4), "left out"),
    "no query": ((0, 0), (-1.3, 0.7), (0.2, 1.1), "left out"),
    "a corner": ((-1.5, -1.5), (1.5, 1.5), (-1.5, -1.5), "added"),
    "another corner": ((1.5, 1.5), (1.5, 1.5), (-1.5, -1.5), "subtracted"),
}
BETA_AT = {  # weights of p_neg and p_nat, and beta as the page says it, where it does
    "start": ((20, 70, 10), (80, 10, 10), 0.795),
    "exchanged": ((80, 10, 10), (20, 70, 10), 0.723),
    "the same": ((20, 70, 10), (20, 70, 10), 0),
    "ten times": ((2, 7, 1), (20, 70, 10), 0),
    "sure of what is rare": ((1, 100, 1), (100, 1, 1), 1),
    "somewhere": ((33, 51, 7), (12, 64, 90), None),
}


def unit(x, h_pos, h_neg, w):
    """What the package makes of a position of the first panel, w as {"w_0": rows, ...}."""
    w = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in w.items()}
    x, h_pos, h_neg = (torch.tensor([[v]], dtype=torch.float64) for v in (x, h_pos, h_neg))
    base = x @ w["w_0"].t()
    weights = (w["w_q"], w["w_k"], w["w_1"], w["w_2"])
    out, alpha = integrate_plain(x, base, h_pos - base, h_neg - base, *weights)
    query, both = x @ w["w_q"].t(), torch.cat([h_pos, h_neg])
    value = F.gelu(both @ w["w_1"].t()) @ w["w_2"].t()
    return {
        "score": (both @ w["w_k"].t() @ query[0, 0]).flatten().tolist(),
        "alpha_pos": [1 - alpha.item()],
        "alpha_neg": [alpha.item()] * 2,
        "value": value.flatten().tolist(),
        "out": out.flatten().tolist(),
    }


def beta(neg, nat):
    """What the package makes of a position of the second panel."""
    p_neg, p_nat = (torch.tensor(v, dtype=torch.float64) / sum(v) for v in (neg, nat))
    one = torch.ones(1, 1, dtype=torch.bool)
    found = calibration_beta(p_neg.log().view(1, 1, -1), p_nat.log().view(1, 1, -1), one).item()
    return {
        "p_neg": p_neg.tolist(),
        "p_nat": p_nat.tolist(),
        "term": F.kl_div(p_nat.log(), p_neg, reduction="none").tolist(),
        "kl": [F.kl_div(p_nat.log(), p_neg, reduction="sum").item()] * 2,
        "beta": [found],
        "weight": [0.5 + found],
    }


class Panel:
    """One of the two forms, as a window shows it."""

    def __init__(self, window, name):
        self.window, self.form = window, f'document.getElementById("{name}")'

    def run(self, script):
        return self.window.run(f"({script})({self.form})")

    def move(self, **wanted):
        """Sliders to these values; then numbers with all digits by the name of what they are."""
        self.window.run(f"{MOVE}({self.form}, {json.dumps(wanted)})")
        return self.run(NUMBERS)

    def text(self):
        """What is read, in one line: without what only the sliders show, or only who has no JavaScript."""
        text = """form => [...form.children].filter(part => !part.matches(".controls, noscript"))
            .map(part => part.textContent).join(" ")"""
        return " ".join(self.run(text).split())


@pytest.fixture(scope="module")
def method(html, tmp_path_factory):
    """A window with the method page; what it complains of until the last test is a failure."""
    profile = tmp_path_factory.mktemp("panels") / "profile"
    with browser.served(html) as address, browser.browser(profile) as window:
        window.open(f"{address}/book/method.html")
        window.resize(1280)
        yield window
        window.run("new Promise(done => setTimeout(done, 50))")
        assert not browser.complaints(window.events, address)


@pytest.fixture
def unit_panel(method):
    return Panel(method, "panel-nat")


@pytest.fixture
def beta_panel(method):
    return Panel(method, "panel-nce")


def matrices(panel):
    """The matrices that a reader sees, by name."""
    return panel.run(
        """form => Object.fromEntries([...form.querySelectorAll("code")]
            .map(code => [code.className, JSON.parse(code.textContent)]))"""
    )


def shown(number):
    """As a panel writes it."""
    return f"{round(number, 3) + 0.0:.3f}".replace("-", "−")


def same(found, expected):
    """Every number to 1e-6."""
    assert set(expected) <= set(found)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=1e-6), name


@pytest.mark.parametrize("place", UNIT_AT)
def test_the_panel_of_the_unit_is_the_package(unit_panel, place):
    x, h_pos, h_neg, verdict = UNIT_AT[place]
    expected = unit(x, h_pos, h_neg, matrices(unit_panel))
    found = unit_panel.move(x=x, h_pos=h_pos, h_neg=h_neg)
    same(found, expected | {"x": x, "h_pos": h_pos, "h_neg": h_neg})
    alpha, one, other = map(shown, (expected["alpha_neg"][0], *expected["out"]))
    said = f"α− = {alpha}: the negative branch is {verdict}."
    assert f"{said} ◆ out = ({one}, {other})." in unit_panel.text()
    assert (verdict == "left out") == (abs(expected["alpha_neg"][0]) < 1e-6)
    assert -0.5 <= found["alpha_neg"][0] <= 0.5 <= found["alpha_pos"][0] <= 1.5


def test_the_panel_of_the_unit_computes_with_the_matrices_that_it_shows(unit_panel):
    x, h_pos, h_neg, _ = UNIT_AT["start"]
    seen = matrices(unit_panel)
    others = {
        "w_0": [[0.5, -1], [2, 0.3]],
        "w_q": [[1, -2], [0.5, 0.1]],
        "w_k": [[0.2, 1], [-0.7, 0.4]],
        "w_1": [[9, 0.2], [-0.6, 1.1]],
        "w_2": [[0.3, -0.8], [1.2, 0.7]],
    }
    assert set(seen) == set(others)
    write = """form => Object.entries(%s).forEach(([name, rows]) =>
        form.querySelector("code." + name).textContent = JSON.stringify(rows).replaceAll(",", ", "))"""
    try:
        unit_panel.run(write % json.dumps(others))
        same(unit_panel.move(x=x, h_pos=h_pos, h_neg=h_neg), unit(x, h_pos, h_neg, others))
    finally:
        unit_panel.run(write % json.dumps(seen))


def test_what_the_plane_shows_is_what_the_numbers_say(unit_panel):
    x, h_pos, h_neg, _ = UNIT_AT["it fits better"]
    found = unit_panel.move(x=x, h_pos=h_pos, h_neg=h_neg)
    places = unit_panel.run(
        """form => Object.fromEntries([...form.querySelectorAll("g")].map(g => [g.className.baseVal,
            [g.transform.baseVal[0].matrix.e, -g.transform.baseVal[0].matrix.f]]))"""
    )
    same(places, {"base": pytest.approx(x), "pos": pytest.approx(h_pos), "neg": pytest.approx(h_neg)})
    assert places["out"] == pytest.approx(found["out"], abs=1e-3)


@pytest.mark.parametrize("place", BETA_AT)
def test_the_panel_of_beta_is_the_package(beta_panel, place):
    neg, nat, said = BETA_AT[place]
    expected, found = beta(neg, nat), beta_panel.move(neg=neg, nat=nat)
    same(found, expected)
    assert said is None or found["beta"][0] == pytest.approx(said, abs=5e-4)
    kl, b, weight = (shown(expected[name][0]) for name in ("kl", "beta", "weight"))
    text = beta_panel.text()
    assert f"KL is {kl} nats, so β = {b}." in text and f"½ + β = {weight};" in text
    widths = beta_panel.run(
        "form => [...form.querySelectorAll('td i')].map(bar => parseFloat(bar.style.width))"
    )
    pairs = zip(found["p_neg"], found["p_nat"], strict=True)
    assert widths == pytest.approx([100 * p for pair in pairs for p in pair], abs=0.05)


def test_buttons_exchange_and_lead_back(beta_panel, unit_panel):
    wait = "new Promise(done => setTimeout(done, 20))"
    first = beta_panel.move(neg=BETA_AT["start"][0], nat=BETA_AT["start"][1])
    beta_panel.run("form => form.querySelector('.exchange').click()")
    same(beta_panel.run(NUMBERS), beta(*BETA_AT["exchanged"][:2]))
    for panel, away in ((beta_panel, {}), (unit_panel, {"x": (0, 0)})):
        panel.move(**away)
        panel.run("form => form.querySelector('[type=reset]').click()")
        panel.window.run(wait)
    assert beta_panel.run(NUMBERS) == first
    same(unit_panel.run(NUMBERS), unit(*UNIT_AT["start"][:3], matrices(unit_panel)))


def test_every_slider_has_a_name_and_follows_the_keyboard(unit_panel, beta_panel):
    window = unit_panel.window
    window.call("Accessibility.enable")
    for panel, steps in ((unit_panel, 0.1), (beta_panel, 1)):
        node = window.call("Runtime.evaluate", expression=panel.form)["result"]["objectId"]
        tree = window.call("Accessibility.queryAXTree", objectId=node, role="slider")["nodes"]
        assert len(tree) == 6 and all(one["name"]["value"].strip() for one in tree)
        groups = window.call("Accessibility.queryAXTree", objectId=node, role="group")["nodes"]
        assert all(one["name"]["value"].strip() for one in groups)
        panel.run("form => form.reset()")
        window.run("new Promise(done => setTimeout(done, 20))")
        panel.run("form => form.querySelector('input').focus()")
        for place in range(6):
            read = f"form => Number(form.querySelectorAll('input')[{place}].value)"
            before, numbers = panel.run(read), panel.run(NUMBERS)
            window.press("ArrowLeft")
            assert panel.run(read) == pytest.approx(before - steps)
            assert panel.run(NUMBERS) != numbers
            beside = panel.run(f"form => form.querySelectorAll('label span')[{place}].textContent")
            assert float(beside.replace("−", "-")) == pytest.approx(before - steps)
            window.press("Tab")
        panel.run("form => form.requestSubmit()")  # as some browsers do on Enter
    assert not window.run("new Promise(done => setTimeout(() => done(location.search), 100))")


def test_what_changes_is_announced(unit_panel, beta_panel):
    for panel in (unit_panel, beta_panel):
        (live,) = panel.run("form => [...form.querySelectorAll('[aria-live]')].map(one => one.ariaLive)")
        assert live == "polite"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_panels_can_be_read_in_every_position(unit_panel, beta_panel, theme, width):
    window = unit_panel.window
    window.theme(theme)
    window.resize(width)
    assert window.run(browser.FOLLOWED.replace("THEME", theme)) == theme
    for places, panel, names in (
        (UNIT_AT, unit_panel, ("x", "h_pos", "h_neg")),
        (BETA_AT, beta_panel, ("neg", "nat")),
    ):
        for place in places.values():
            panel.move(**dict(zip(names, place, strict=False)))
            assert window.run("document.documentElement.scrollWidth - innerWidth") <= 0
            assert panel.run(INSIDE)
        contrast = panel.run(CONTRASTS)
        assert contrast["text"] >= 4.5 and contrast["marks"] >= 3, contrast


def test_without_javascript_the_page_shows_the_first_position_in_text(html, method, tmp_path):
    live = {}
    for name in ("panel-nat", "panel-nce"):
        panel = Panel(method, name)
        panel.run("form => form.reset()")
        method.run("new Promise(done => setTimeout(done, 20))")
        live[name] = panel.text(), panel.run(DRAWN)
    with browser.served(html) as address, browser.browser(tmp_path / "profile") as window:
        window.call("Emulation.setScriptExecutionDisabled", value=True)
        window.open(f"{address}/book/method.html")
        for name, expected in live.items():
            panel = Panel(window, name)
            assert (panel.text(), panel.run(DRAWN)) == expected
            assert panel.run("form => form.querySelector('.controls').offsetHeight") == 0
            assert panel.run("form => form.querySelector('noscript').textContent").strip()


def test_the_japanese_panel_answers_in_japanese(html, tmp_path):
    words = {"subtracted": "引かれる", "left out": "使われない", "added": "足される"}
    with browser.served(html) as address, browser.browser(tmp_path / "profile") as window:
        found = window.open(f"{address}/book/ja/method.html")
        panel = Panel(window, "panel-nat")
        for x, h_pos, h_neg, verdict in UNIT_AT.values():
            numbers = panel.move(x=x, h_pos=h_pos, h_neg=h_neg)
            same(numbers, unit(x, h_pos, h_neg, matrices(panel)))
            alpha = shown(numbers["alpha_neg"][0])
            assert f"α− = {alpha}：負のブランチは{words[verdict]}。" in panel.text()
        assert not browser.complaints(found, address)


def test_the_script_is_loaded_where_it_is_needed(html):
    pages = [path for path in sorted(html.rglob("*.html")) if "panel.js" in path.read_text("utf-8")]
    assert [path.relative_to(html).as_posix() for path in pages] == [
        "book/ja/method.html",
        "book/method.html",
    ]


def test_the_colours_are_those_of_the_figures():
    style = (Path(__file__).parents[1] / "book/_static/book.css").read_text("utf-8")
    marks = re.findall(r"^\.panel \.\w+ \{ --mark: (#\w+); \}", style, re.MULTILINE)
    assert len(marks) == 4 and {mark.upper() for mark in marks} <= {plots.TEXT, *plots.COLOURS}
