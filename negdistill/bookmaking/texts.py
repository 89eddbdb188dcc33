"""Texts: questions and the answers as they were given, for who wants to read them.

book/executed/*.texts.parquet  -->  a section each: the file, and every question with all answers, packed,
                                    which book/_static/answers.js makes a list to filter and to leaf through

A file is the artefact texts.parquet of a notebook, a row an answer. It is packed, since ten students say over
4 MB to 1,600 questions; it is inside the page, since a page that is opened from a folder cannot load a file.
"""

from __future__ import annotations

import base64
import gzip
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from negdistill.bookmaking.damage import BESIDE
from negdistill.bookmaking.documents import read_notebook
from negdistill.bookmaking.results import NO_TEXT, in_line
from negdistill.runs.digests import digest_file

TEXTS = "texts.parquet"
COLUMNS = (
    *("method", "problem_id", "subject", "level", "question"),
    *("reference", "text", "answer", "correct"),
)
UNPACKED_BY = (
    "The list of questions is unpacked by JavaScript, in a browser of 2023 or later. "
    "All that stands in it stands in the file, too."
)
SHORT = 110  # characters of a question in the list


def texts(path: Path) -> pd.DataFrame:
    """The answers that a chapter left, one a row: COLUMNS, the order of questions and methods kept.

    ValueError where the file was changed since, or lacks a column.
    """
    notebook = read_notebook(path.with_name(path.name.removesuffix(BESIDE[TEXTS]) + ".ipynb"))
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
        link = f"The chapter of these students: [](executed/{name}.ipynb)."
        link += f" All texts: {{download}}`{path.name} <executed/{path.name}>`."
        frame = texts(path)
        sections += [f"## {title}", link, solved(frame), listing(frame, name, title)]
    return "\n\n".join(sections)


def listing(frame: pd.DataFrame, name: str, title: str) -> str:
    """HTML of a list in one line: its questions packed, and what stands there until answers.js unpacks them.

    frame  as `texts` gives it
    name   what the addresses of its questions begin with
    title  what the list is called where it is not seen
    """
    parts = frame.map(_text).astype(object).groupby("problem_id", sort=False)
    listed = [question(part) for _, part in parts]
    return (
        f'<div class="answers" id="{name}" data-title="{in_line(title)}" data-packed="{packed(listed)}">'
        f"<p>{UNPACKED_BY}</p></div>"
    )


def packed(value: object) -> str:
    """A value as JSON, gzip, base64; the same for the same value."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _text(value: object) -> object:
    return value.translate(NO_TEXT) if isinstance(value, str) else value


def solved(frame: pd.DataFrame) -> str:
    """How many questions there are and how many each student solves, in HTML."""
    counts = frame.groupby("method", sort=False)["correct"].sum()
    listed = "; ".join(f"{in_line(method)} {count}" for method, count in counts.items())
    return f"<p>Of {frame['problem_id'].nunique()} questions solved: {listed}.</p>"


def question(part: pd.DataFrame) -> dict[str, Any]:
    """What answers.js shows of a question, from the rows of its answers, one a student."""
    first = part.iloc[0]
    level = "" if pd.isna(first["level"]) else f"{first['level']:g}"  # of a column with gaps a float
    kind = ", ".join(filter(None, (first["subject"], level and f"level {level}"))) or "a question"
    answers = [
        {
            "method": row.method,
            "correct": bool(row.correct),
            "answer": None if pd.isna(row.answer) else row.answer,
            "text": row.text,
        }
        for row in part.itertuples()
    ]
    return {
        "own": first["problem_id"],
        "kind": kind,
        "subject": first["subject"],
        "level": level,
        "short": textwrap.shorten(first["question"], SHORT, placeholder=" …"),
        "question": first["question"],
        "reference": first["reference"],
        "answers": answers,
    }
