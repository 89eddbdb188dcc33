"""Results: a table of the page says what its file says, whatever stands in it."""

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from markup import Tags

from negdistill.bookmaking.results import in_markdown, result_table, results_page

ROWS = pd.DataFrame(
    {
        "teacher": ["weak", "strong", None],
        "method": ["CoT KD", "NAT", "</td><script>alert(1)</script>"],
        "origin": ["paper"] * 3,
        "accuracy": [0.2, 0.1234, 1.0],
        "low": [0.1, 0.1, 0.9],
        "high": [0.3, 0.2, 1.0],
        "difference": [None, -0.0766, 0.8],
        "difference_low": [None, -0.1, 0.7],
        "difference_high": [None, -0.05, 0.9],
        "p": [None, 0.0123, 0.0005],
    }
)


def shown(path, title="Some"):
    return Tags(result_table(path, title), ("th", "td"))


@pytest.fixture
def path(tmp_path):
    ROWS.to_csv(tmp_path / "05_some.csv", index=False)
    return tmp_path / "05_some.csv"


def test_a_table_has_the_numbers_of_its_file_behind_what_is_shown(path):
    page = shown(path)
    assert page.texts[:6] == ["method", "teacher", "accuracy", "difference", "p", "origin"]
    assert page.texts[6:18] == [
        *("CoT KD", "weak", "20.0 [10.0, 30.0]", "", "", "paper"),
        *("NAT", "strong", "12.3 [10.0, 20.0]", "-7.7 [-10.0, -5.0]", "0.0123", "paper"),
    ]
    values = [float(cell["data-value"]) for cell in page.all("td") if "data-value" in cell]
    assert values == [0.2, 0.1234, -0.0766, 0.0123, 1.0, 0.8, 0.0005]


def test_what_tells_rows_apart_can_be_chosen_from(path):
    heads = [cell for cell in shown(path).all("th") if cell["scope"] == "col"]
    assert ["data-choice" in head for head in heads] == [True, True, False, False, False, False]


def test_a_table_carries_the_lines_of_its_file(path):
    page = shown(path)
    lines = [page.all("table")[0], *page.all("tr")[1:]]
    assert [part["data-line"] for part in lines] == path.read_text().splitlines()
    assert page.all("table")[0]["data-file"] == path.name


@pytest.mark.parametrize("value", ['"><img src=x onerror=alert(1)>', "a < b & c", "| `x` | {x}`y` |", "'"])
def test_whatever_stands_in_a_file_is_shown_as_it_is(path, value):
    tags = [tag for tag, _ in shown(path).tags]
    ROWS.assign(method=value, teacher=value).to_csv(path, index=False)
    page = shown(path, value)
    assert [tag for tag, _ in page.tags] == tags
    assert page.texts.count(value) == 6 and page.all("div")[0]["aria-label"] == f"{value}: rows"


@pytest.mark.parametrize(
    "value", ["a|b", "<script>x</script>", "*a* _b_ `c` [d](e) ~f~ $g$ {h}`i`", "\\ & &amp; # 1", "a\nb"]
)
def test_a_text_in_markdown_is_shown_as_it_is(value):
    (shown,) = MarkdownIt().parseInline(in_markdown(value))
    assert "".join(one.content for one in shown.children) == value
    assert {one.type for one in shown.children} <= {"text", "text_special"} and "|" not in in_markdown(value)
    assert in_markdown("− CoT KD, 2.5%") == "− CoT KD, 2.5%"


def test_a_table_is_one_line_of_markdown(path):
    assert "\n" not in result_table(path, "Two\n\nlines")


def test_a_file_whose_rows_are_not_a_line_each_is_refused(path):
    ROWS.assign(method="two\nlines").to_csv(path, index=False)
    with pytest.raises(ValueError, match="must hold a header and a line per row; got 7 lines for 3 rows"):
        result_table(path, "Some")


def test_the_page_has_every_file_and_table_below_the_title_of_its_chapter(path):
    columns = ["condition", "difference", "low", "high", "p"]
    frame = ROWS.rename(columns={"method": "condition"})[columns]
    frame.to_csv(path.with_name("conditions.csv"), index=False)
    text = results_page(path.parent, {"05_some.ipynb": "Some & more"})
    assert "## Some & more\n\n{download}`05_some.csv <tables/05_some.csv>`\n\n````{dropdown} 3 rows\n" in text
    assert "## Conditions\n\n{download}`conditions.csv <tables/conditions.csv>`" in text
    assert ">-7.7 [10.0, 20.0]<" in text
