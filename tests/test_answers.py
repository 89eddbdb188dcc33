"""Reading answers on the rendered page: filter, open, leaf and go back, by keyboard, without a network.

Skipped where the book cannot be rendered or there is no Chromium.
"""

from pathlib import Path
from urllib.parse import quote

import browser
import pandas as pd
import pytest

from negdistill.bookmaking.texts import COLUMNS, UNPACKED_BY, listing, texts

STATIC = Path(__file__).parents[1] / "book" / "_static"
FILE = Path(__file__).parents[1] / "book" / "executed" / "11_real_student.texts.parquet"
STATE = """(() => {
    const list = document.querySelector(".answers"), leaf = document.querySelector(".leaf");
    const seen = [...list.children], open = seen.filter(one => one.open);
    const status = document.querySelector(`${leaf.hidden ? ".finder" : ".leaf"} [role=status]`);
    const own = one => one.querySelector("pre").previousSibling.textContent.match(/Question (.+?);/)[1];
    return {
        list: leaf.hidden ? seen.map(own) : null,
        open: open.map(own),
        said: status.textContent,
        at: decodeURIComponent(location.hash),
        focus: document.activeElement.matches("summary") ? own(document.activeElement.parentElement)
            : document.activeElement.textContent,
        inside: document.activeElement.getBoundingClientRect().top >= 0
            && document.activeElement.getBoundingClientRect().bottom <= innerHeight,
    };
})()"""
UNPACKED = """new Promise(done => {
    const look = () => document.querySelector(".finder") ? done() : setTimeout(look, 20);
    look();
})"""
SETTLED = """new Promise(done => {
    const look = before => setTimeout(() => scrollY === before ? done() : look(scrollY), 100);
    look(null);
})"""  # an address changes, then the page is told, and then it scrolls
FRAME = texts(FILE)
ASKED = list(FRAME["problem_id"].unique())
SHOWN = 50  # questions that the list shows at once


def solved(method):
    return set(FRAME.loc[(FRAME["method"] == method) & FRAME["correct"], "problem_id"])


@pytest.fixture(scope="module")
def window(html, tmp_path_factory):
    profile = tmp_path_factory.mktemp("answers") / "profile"
    with browser.served(html) as address, browser.browser(profile) as one:
        one.page = f"{address}/book/answers.html"
        one.address = address
        yield one


@pytest.fixture(params=browser.LOOKS, ids=lambda look: f"{look[0]}-{look[1]}")
def page(window, request):
    with browser.looking(window, window.address, "answers", request.param) as one:
        one.run(UNPACKED)
        yield one


def state(page):
    page.run(SETTLED)
    return page.run(STATE)


def press(page, key="Enter", on=None):
    """A key on what has the focus, or first on a button or the summary of a question that shows a text."""
    if on is not None:
        page.run(
            f"""[...document.querySelectorAll(".leaf button, .finder button, .more, .answers summary")]
                .find(one => one.checkVisibility() && (one.textContent === "{on}"
                    || one.nextSibling?.textContent.includes("Question {on};"))).focus()"""
        )
    page.press(key)
    return state(page)


def fill(page, name, value):
    page.run(
        f"""[...document.querySelectorAll(".finder label")].filter(one => one.firstChild.data === "{name}")
            .forEach(({{control}}) => {{
                control.value = "{value}";
                control.dispatchEvent(new Event(control.matches("select") ? "change" : "input"));
            }})"""
    )
    return page.run(STATE)  # the list is there at once: no address changes


def found(ids):
    """State of the list that begins with these questions, in the order of the file."""
    return {
        "list": [one for one in ASKED if one in ids][:SHOWN],
        "said": f"{len(ids)} of {len(ASKED)} questions",
    }


def test_questions_are_filtered_by_subject_level_words_and_by_who_solves_them(page):
    assert state(page).items() >= {**found(ASKED), "open": [], "at": ""}.items()
    for column in ("subject", "level"):
        for value in FRAME[column].unique():
            ids = set(FRAME.loc[FRAME[column] == value, "problem_id"])
            shown = value if isinstance(value, str) else f"{value:g}"  # a level, of a column with gaps 1.0
            assert fill(page, column, shown).items() >= found(ids).items()
        fill(page, column, "")
    for method in FRAME["method"].unique():
        assert fill(page, method, "✗ wrong").items() >= found({*ASKED} - solved(method)).items()
        assert fill(page, method, "✓ right").items() >= found(solved(method)).items()
        fill(page, method, "")

    somebody = set.union(*map(solved, FRAME["method"].unique()))
    assert fill(page, "solved by", "nobody").items() >= found({*ASKED} - somebody).items()
    assert fill(page, "solved by", "somebody").items() >= found(somebody).items()
    fill(page, "solved by", "")

    fill(page, "NAT", "✓ right")
    ids = solved("NAT") - solved("CoT KD")
    assert ids and fill(page, "CoT KD", "✗ wrong").items() >= found(ids).items()
    assert press(page, on="Show all").items() >= found(ASKED).items()

    said = FRAME.groupby("problem_id").agg({"question": "first", "text": " ".join}).agg(" ".join, axis=1)
    ids = {own for own, text in said.str.lower().items() if "remainder" in text and "modulo" in text}
    assert ids and fill(page, "any words", "MODULO  remainder").items() >= found(ids).items()
    assert fill(page, "any words", "xyzzyx")["list"] == []


def test_a_question_is_opened_leafed_from_and_left_by_keyboard(page):
    subject = FRAME["subject"].value_counts().index[-1]  # of few solved questions, all of which are shown
    wanted = solved("NAT") & set(FRAME.loc[FRAME["subject"] == subject, "problem_id"])
    ids = [one for one in ASKED if one in wanted]
    assert 2 <= len(ids) <= SHOWN
    fill(page, "subject", subject)
    fill(page, "NAT", "✓ right")
    one = press(page, on=ids[-2])
    here = {"list": None, "open": [ids[-2]], "said": f"{len(ids) - 1} of {len(ids)}", "focus": ids[-2]}
    assert one.items() >= {**here, "at": f"#11_real_student-{ids[-2]}", "inside": True}.items()
    texts = page.run("[...document.querySelectorAll('.answers [data-method]')].map(one => one.textContent)")
    answers = FRAME[FRAME["problem_id"] == ids[-2]]
    assert len(texts) == len(answers)
    for shown, (_, row) in zip(texts, answers.iterrows(), strict=True):
        verdict = "✓ right" if row["correct"] else "✗ wrong"
        assert shown.startswith(f"{row['method']}: {verdict}") and shown.endswith(row["text"])

    last = press(page, on="Next")
    assert (last["open"], last["said"], last["focus"]) == ([ids[-1]], f"{len(ids)} of {len(ids)}", "Next")
    end = press(page)  # there is no next one: nothing moves, and the focus stays
    assert end == last
    assert page.run("[...document.querySelectorAll('.leaf button')].map(one => one.ariaDisabled)") == [
        *(None, "false", "true"),
    ]
    assert press(page, on="Previous").items() >= {**here, "focus": "Previous"}.items()
    back = press(page, on="All questions")
    assert back["list"] == ids and back["open"] == [] and back["focus"] == ids[-2] and back["inside"]
    assert press(page)["open"] == [ids[-2]]  # the question has the focus: Enter opens it again,
    assert press(page)["list"] == ids  # and folds it, which leads back as well


def test_back_and_forward_of_the_browser_and_a_link_lead_to_a_question(page):
    one, two = ASKED[3:5]
    press(page, on=one)
    press(page, on="Next")
    for move, at in (("back", [one]), ("back", []), ("forward", [one]), ("forward", [two])):
        page.run(f"history.{move}()")
        assert state(page)["open"] == at
    page.events.clear()
    address = page.run("location.href")
    page.open("about:blank")
    page.open(address)
    page.run(UNPACKED)
    there = state(page)
    assert there["open"] == [two] and there["said"] == f"5 of {len(ASKED)}" and there["inside"]
    page.run("document.querySelector('.finder input').value = 'xyzzyx'")
    fill(page, "any words", "xyzzyx")
    assert state(page)["said"] == "not among the 0 found"


def test_a_long_list_is_shown_in_parts(page):
    first = state(page)
    assert first["list"] == ASKED[:SHOWN] and first["said"] == f"{len(ASKED)} of {len(ASKED)} questions"
    more = press(page, on="Show more questions")
    assert more["list"] == ASKED[: 2 * SHOWN] and more["focus"] == ASKED[SHOWN] and more["inside"]
    page.run(f"location.hash = '#11_real_student-{ASKED[-1]}'")
    assert state(page)["said"] == f"{len(ASKED)} of {len(ASKED)}"
    back = press(page, on="All questions")
    assert back["list"] == ASKED and back["focus"] == ASKED[-1] and back["inside"]
    assert not page.run("document.querySelector('.more').checkVisibility()")


def test_without_javascript_the_page_says_so_and_has_the_file(window, html):
    window.call("Emulation.setScriptExecutionDisabled", value=True)
    window.events.clear()
    window.call("Page.navigate", url=window.page)
    while not any(method == "Page.loadEventFired" for method, _ in window.events):
        window.receive()
    window.call("Emulation.setScriptExecutionDisabled", value=False)
    assert window.run("document.querySelector('.answers').innerText") == UNPACKED_BY
    assert window.run("document.querySelectorAll('.finder, .leaf').length") == 0
    path = window.run("document.querySelector('a.download').getAttribute('href')")
    assert (html / "book" / path).read_bytes() == FILE.read_bytes()


@pytest.mark.parametrize(
    "value",
    ['"><img src=x onerror=alert(1)>', "a < b & c", "<script>alert(1)</script>", "'", "a\r\n\nb", "&lt;"],
)
def test_whatever_stands_in_a_text_is_shown_as_it_is(tmp_path, value):
    """Of a list alone, opened from a folder: an id with signs of its own has an address all the same."""
    own, method = f'my "own" ä/1 {value}', f"NAT {value}"
    rows = [
        (method, own, value, 2, value, value, value, None, False),
        ("CoT KD", own, value, 2, value, value, value, value, True),
        (method, "other", "", None, "How many?", "1", "One.", "1", False),
    ]
    scripts = [(STATIC / name).read_text("utf-8") for name in ("finder.js", "answers.js")]
    body = listing(pd.DataFrame(rows, columns=COLUMNS), "05_some", value)
    page = f'<!doctype html><meta charset="utf-8"><body>{body}' + "".join(
        f"<script>{one}</script>" for one in scripts
    )
    (tmp_path / "page.html").write_text(page, "utf-8", newline="")
    with browser.browser(tmp_path / "profile") as window:
        window.open((tmp_path / "page.html").as_uri())
        window.run(UNPACKED)
        first = window.run("document.querySelector('.answers summary').textContent")
        assert first.startswith(" ".join(value.split())[:1]) and first.endswith("✓ CoT KD")
        last = window.run("[...document.querySelectorAll('.answers summary')].at(-1).textContent")
        assert last == "a question How many? ✗ solved by none"
        window.run("document.querySelector('.answers summary').click()")
        window.run(SETTLED)
        assert window.run("location.hash") == "#05_some-" + quote(own, safe=":!'()*~")
        said = window.run(
            "[...document.querySelectorAll('.answers pre, .answers strong')].map(one => one.textContent)"
        )
        assert said[1:] == [
            *(f"Question {own}; the answer is {value}", value),
            *(f"{method}: ✗ wrong, no answer", value),
            *(f"CoT KD: ✓ right, {value}", value),
        ]
        assert window.run("document.querySelectorAll('.answers :is(img, script)').length") == 0
        assert window.run("document.querySelector('.answers [data-method]').dataset.method") == method
