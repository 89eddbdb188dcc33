"""Results: every table of book/tables as the page of all results shows it.

book/tables/*.csv  -->  a section each: the file, and an HTML table, which book/_static/results.js makes
                        one to sort, to filter and to download; without the script it is a plain table
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from negdistill.bookmaking.blocks import escaped
from negdistill.bookmaking.tables import percents

SHOWN = {  # columns of three numbers each, as one
    "accuracy": ("accuracy", "low", "high"),
    "difference": ("difference", "difference_low", "difference_high"),
}
NO_TEXT = dict.fromkeys([*range(9), 11, 12, *range(14, 32)], "\ufffd")  # a sign that it was there
NO_LINE = {**NO_TEXT, **{ord(end): f"&#{ord(end)};" for end in "\r\n"}}  # ends of lines by number
# columns in front, where they are there
FIRST = ("condition", "variant", "axis", "at", "method", "set", "teacher", "against", *SHOWN, "p")


def results_page(tables: Path, titles: Mapping[str, str]) -> str:
    """Every table of the folder in MyST, with its file to download.

    titles  by name of the executed notebook; a table without one is called by its file
    """
    sections = []
    for path in sorted(tables.glob("*.csv")):
        title = titles.get(f"{path.stem}.ipynb", path.stem.replace("-", " ").capitalize())
        download = f"{{download}}`{path.name} <tables/{path.name}>`"
        listing = result_table(path, title)
        rows = listing.count("<tr data-line=")
        sections.append(f"## {title}\n\n{download}\n\n````{{dropdown}} {rows} rows\n{listing}\n````")
    return "\n\n".join(sections)


def result_table(path: Path, title: str) -> str:
    """HTML of one file: what a row is about, what was measured, and under what else.

    Numbers are sorted by their value in the file, all else by its text. A column that is no measurement and
    has more than one value can be chosen from. ValueError for a file whose rows are not a line each.
    """
    frame, lines = pd.read_csv(path), path.read_text("utf-8").splitlines()
    if len(lines) != len(frame) + 1:
        raise ValueError(
            f"{path} must hold a header and a line per row; got {len(lines)} lines for {len(frame)} rows: "
            "write it again with `python -m negdistill refresh`"
        )
    if "accuracy" not in frame:  # the file of conditions has differences alone
        frame = frame.rename(columns={"low": "difference_low", "high": "difference_high"})
    numbers = {name for columns in SHOWN.values() for name in (*columns, "p")}
    shown = frame[[name for name in frame if name not in numbers]]
    shown = shown.astype(str).where(shown.notna(), "")
    choices = [name for name in shown if shown[name].nunique() > 1]
    for name, columns in SHOWN.items():
        if name in frame:
            shown[name] = percents(frame, *columns)
    shown["p"] = frame["p"].map("{:.4f}".format, na_action="ignore").fillna("")
    values = frame[[name for name in shown if pd.api.types.is_numeric_dtype(frame[name])]]
    return table(title, path.name, shown[_order(shown)], values, choices, lines)


def _order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


def table(
    title: str,
    file: str,
    shown: pd.DataFrame,
    values: pd.DataFrame,
    choices: Collection[str],
    lines: Sequence[str],
) -> str:
    """HTML of a table in one line, for results.js, which lets a reader sort, filter and download it.

    title    what the table is called where it is not seen
    file     name of the CSV that it comes from
    shown    texts of the cells, the first column the name of a row; whatever stands in one is shown as it is
    values   for some of these columns, the numbers that they are sorted by, NaN where there is none
    choices  columns whose values a reader can choose from
    lines    of the CSV: its header, then one for each row
    """
    heads = (f'<th scope="col"{" data-choice" * (name in choices)}>{in_line(name)}</th>' for name in shown)
    numbers = values.reindex(columns=shown.columns).to_numpy(float)
    rows = (
        f'<tr data-line="{in_line(line)}">{_row(texts, row)}</tr>'
        for line, texts, row in zip(lines[1:], shown.to_numpy(), numbers, strict=True)
    )
    return (
        f'<div class="results" role="region" tabindex="0" aria-label="{in_line(title)}: rows">'
        f'<table class="table" data-file="{in_line(file)}" data-line="{in_line(lines[0])}">'
        f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(texts: Sequence[object], numbers: Sequence[float]) -> str:
    values = ("" if pd.isna(number) else f' data-value="{float(number)!r}"' for number in numbers)
    first, *more = (f"{value}>{in_line(text)}" for value, text in zip(values, texts, strict=True))
    return f'<th scope="row"{first}</th>' + "".join(f"<td{cell}</td>" for cell in more)


def in_markdown(value: object) -> str:
    """A value as text of a page in Markdown, in one line, whatever signs of Markdown or HTML stand in it."""
    return re.sub(r"[^\w .,−–+%-]|_", lambda sign: f"&#{ord(sign[0])};", str(value))


def in_line(value: object) -> str:
    """A value as text of HTML in one line, which a page in Markdown takes as it is, and a page in XML too."""
    return escaped(value).translate(NO_LINE)
