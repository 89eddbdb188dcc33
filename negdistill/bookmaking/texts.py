"""Texts: questions and the answers as they were given, for who wants to read them.

book/executed/*.texts.parquet  -->  a section each: every question with all answers, which
                                    book/_static/answers.js makes a list to filter and to leaf through;
                                    without the script it is a list to unfold

A file is the artefact texts.parquet of a notebook, a row an answer.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
import pandas as pd

from negdistill.bookmaking.damage import BESIDE
from negdistill.bookmaking.results import in_line
from negdistill.runs.digests import digest_file

TEXTS = "texts.parquet"
COLUMNS = (
    *("method", "problem_id", "subject", "level", "question"),
    *("reference", "text", "answer", "correct"),
)
VERDICTS = {True: "✓ right", False: "✗ wrong"}
SHORT = 110  # characters of a question in the list


def texts(path: Path) -> pd.DataFrame:
    """The answers that a chapter left, one a row: COLUMNS, the order of questions and methods kept.

    ValueError where the file was changed since, or lacks a column.
    """
    notebook = nbformat.read(path.with_name(path.name.removesuffix(BESIDE[TEXTS]) + ".ipynb"), as_version=4)
    if notebook.metadata.negdistill.manifest.artifacts.get(TEXTS) != digest_file(path):
        raise ValueError(
            f"{path} is not what its notebook left: the digests differ; restore it, or run the notebook again"
        )
    frame = pd.read_parquet(path)
    if missing := [name for name in COLUMNS if name not in frame]:
        raise ValueError(
            f"{path} must hold {', '.join(COLUMNS)}; it lacks {', '.join(missing)}: run the notebook again"
        )
    return frame


def texts_page(executed: Path, titles: Mapping[str, str]) -> str:
    """Every file of texts in the folder of executed notebooks, in MyST.

    titles  by name of the executed notebook; of one without the name of its file is shown
    """
    sections = []
    for path in sorted(executed.glob(f"*{BESIDE[TEXTS]}")):
        name = path.name.removesuffix(BESIDE[TEXTS])
        title = titles.get(f"{name}.ipynb", name)
        link, frame = f"The chapter of these students: [](executed/{name}.ipynb).", texts(path)
        sections += [f"## {title}", link, solved(frame), listing(frame, name, title)]
    return "\n\n".join(sections)


def listing(frame: pd.DataFrame, name: str, title: str) -> str:
    """HTML of all questions in one line, for answers.js; whatever stands in a text is shown as it is.

    frame  as `texts` gives it
    name   what the addresses of its questions begin with
    title  what the list is called where it is not seen
    """
    questions = [question(part, name) for _, part in frame.groupby("problem_id", sort=False)]
    return f'<div class="answers" id="{name}" data-title="{in_line(title)}">{"".join(questions)}</div>'


def solved(frame: pd.DataFrame) -> str:
    """How many questions there are and how many each student solves, in HTML."""
    counts = frame.groupby("method", sort=False)["correct"].sum()
    listed = "; ".join(f"{in_line(method)} {count}" for method, count in counts.items())
    return f"<p>Of {frame['problem_id'].nunique()} questions solved: {listed}.</p>"


def question(part: pd.DataFrame, name: str) -> str:
    """HTML of one question: in short, with who solves it; unfolded, in full, and what each student said."""
    first = part.iloc[0]
    own, asked, right = (in_line(first[column]) for column in ("problem_id", "question", "reference"))
    level = "" if pd.isna(first["level"]) else f"{first['level']:g}"  # of a column with gaps a float
    kind = in_line(", ".join(filter(None, (first["subject"], level and f"level {level}"))) or "a question")
    short = in_line(textwrap.shorten(first["question"], SHORT, placeholder=" …"))
    solvers = in_line("; ".join(part.loc[part["correct"].astype(bool), "method"]))
    return (
        f'<details id="{name}-{quote(first["problem_id"], safe=":")}" '
        f'data-subject="{in_line(first["subject"])}" data-level="{level}">'
        f"<summary><strong>{kind}</strong> <span>{short}</span> "
        f"<em>{'✓ ' + solvers if solvers else '✗ solved by none'}</em></summary>"
        f'<div class="side-by-side"><div><strong>Question {own}; the answer is {right}</strong>'
        f"<pre>{asked}</pre></div>{''.join(_answer(row) for row in part.itertuples())}</div></details>"
    )


def _answer(row: Any) -> str:
    verdict, method = VERDICTS[bool(row.correct)], in_line(row.method)
    final = "no answer" if pd.isna(row.answer) else in_line(row.answer)
    return (
        f'<div data-method="{method}" data-verdict="{verdict}"><strong>{method}: {verdict}, {final}</strong>'
        f"<pre>{in_line(row.text)}</pre></div>"
    )
