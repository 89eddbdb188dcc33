"""Looking up a result on the rendered page: sort, filter and download, by keyboard, without a network.

Skipped where the book cannot be rendered or there is no Chromium.
"""

from pathlib import Path

import browser
import pandas as pd
import pytest

FILE = Path(__file__).parents[1] / "book" / "tables" / "05_baselines.csv"
TABLE = """(() => {
    const table = document.querySelector('[data-file="05_baselines.csv"]'), box = table.closest("details");
    const heads = [...table.tHead.rows[0].cells], status = box.querySelector("[role=status]");
    const head = name => heads.find(cell => cell.textContent === name).querySelector("button");
    const button = name => [...box.querySelectorAll("button")].find(one => one.textContent === name);
    const labels = [...box.querySelectorAll("label")];
    const field = name => labels.find(one => one.firstChild.data === name).control;
    const fill = (name, value) => {
        const one = field(name);
        one.value = value;
        one.dispatchEvent(new Event(one.matches("select") ? "change" : "input"));
    };
    box.open = true;
    DO;
    return {
        lines: [...table.tBodies[0].rows].map(row => row.dataset.line),
        said: status.textContent,
        sorts: heads.flatMap(cell => cell.ariaSort ? [cell.textContent, cell.ariaSort] : []),
    };
})()"""


@pytest.fixture(scope="module")
def window(html, tmp_path_factory):
    """A browser on the page of results, whose downloads lie in `window.downloads`."""
    folder = tmp_path_factory.mktemp("lookup")
    with browser.served(html) as address, browser.browser(folder / "profile") as one:
        one.address, one.downloads = address, folder / "downloads"
        one.downloads.mkdir()
        one.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(one.downloads),
            eventsEnabled=True,
        )
        yield one


@pytest.fixture(params=browser.LOOKS, ids=lambda look: f"{look[0]}-{look[1]}")
def page(window, request):
    with browser.looking(window, window.address, "results", request.param) as one:
        yield one


def act(page, script="null"):
    return page.run(TABLE.replace("DO", script))


def press(page, script):
    """Give something the focus and press Enter."""
    act(page, f"{script}.focus()")
    page.press("Enter")
    return act(page)


def downloaded(page, name):
    """Text of a file that the browser has written to its end, which is removed."""
    ended = [("Browser.downloadProgress", state) for state in ("completed", "canceled")]
    while not any((method, params.get("state")) in ended for method, params in page.events):
        page.receive()  # a file is there, and empty, before its text is
    page.events[:] = [one for one in page.events if one[0] != "Browser.downloadProgress"]
    path = page.downloads / name
    text = path.read_text("utf-8")
    path.unlink()
    return text


def lines_of(frame):
    """Lines of the file that hold the rows of a part of it."""
    lines = FILE.read_text("utf-8").splitlines()
    return [lines[1 + row] for row in frame.index]


def test_rows_are_sorted_filtered_counted_and_downloaded(page):
    frame = pd.read_csv(FILE)
    assert act(page) == {"lines": lines_of(frame), "said": f"{len(frame)} of {len(frame)} rows", "sorts": []}
    for column in ("accuracy", "p", "difference"):
        for up, order in ((True, "ascending"), (False, "descending")):
            found = press(page, f'head("{column}")')
            expected = frame.sort_values(column, ascending=up, kind="stable", na_position="last")
            assert found["lines"] == lines_of(expected) and found["sorts"] == [column, order]

    found = act(page, 'fill("teacher", "strong"); fill("any words", "NAT  EQUAL steps")')
    part = frame[frame["teacher"] == "strong"].sort_values("difference", ascending=False, kind="stable")
    part = part[part["method"].str.contains("NAT") & (part["budget"] == "equal steps")]
    assert len(part) > 3 and found["lines"] == lines_of(part)
    assert found["said"] == f"{len(part)} of {len(frame)} rows"
    press(page, 'button("Download these rows")')
    head = FILE.read_text("utf-8").splitlines()[0]
    assert downloaded(page, "05_baselines-shown.csv") == "\n".join([head, *lines_of(part), ""])

    found = press(page, 'button("Show all")')
    assert found == {"lines": lines_of(frame), "said": f"{len(frame)} of {len(frame)} rows", "sorts": []}
    press(page, 'button("Download these rows")')
    assert downloaded(page, "05_baselines-shown.csv") == FILE.read_text("utf-8")


def test_names_are_sorted_as_a_reader_counts_and_nothing_found_is_said(page):
    names = page.run("""(table => {
        table.querySelectorAll("th button")[1].click();
        return [...table.tBodies[0].rows].map(row => row.cells[1].textContent);
    })(document.querySelector('[data-file="12_when.csv"]'))""")
    numbers = [float(name) for name in names if name[0].isdecimal()]  # words stand in this column, too
    assert numbers == sorted(numbers) and {0.25, 0.5, 8, 300} <= set(numbers) and len(numbers) < len(names)
    found = act(page, 'fill("any words", "no such method")')
    assert found["lines"] == [] and found["said"].startswith("0 of ")
    assert page.run("""[...document.querySelectorAll("button")].filter(one => one.disabled).length""") == 1


def test_the_file_itself_can_be_downloaded(page):
    page.run("""document.querySelector('a.download[href$="05_baselines.csv"]').click()""")
    assert downloaded(page, "05_baselines.csv") == FILE.read_text("utf-8")


def test_without_javascript_the_tables_are_there(window):
    window.call("Emulation.setScriptExecutionDisabled", value=True)
    window.events.clear()
    window.call("Page.navigate", url=f"{window.address}/book/results.html")
    while not any(method == "Page.loadEventFired" for method, _ in window.events):
        window.receive()
    window.call("Emulation.setScriptExecutionDisabled", value=False)
    rows = """document.querySelectorAll('[data-file="05_baselines.csv"] tbody tr').length"""
    assert window.run(rows) == len(pd.read_csv(FILE))
    assert window.run("document.querySelectorAll('.results button, .finder').length") == 0
