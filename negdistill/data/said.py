"""Said: the rationales that a teacher's file holds for some problems, of one request.

    rows of the problems' ids --question--> answers to these problems --settings--> those of one request

A store of `generate` may hold answers of several models, at several temperatures, to files with the same ids.
What cannot be told apart here is not mixed: the error says what is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from negdistill.checks import check_type
from negdistill.data.formats import make_record
from negdistill.data.records import Problem, Rationale
from negdistill.runs.digests import digest_text


class Said(NamedTuple):
    """A row of a teacher's file; the texts are "" in a row of `Rationale`."""

    rationale: Rationale
    request: str
    error: str
    question: str
    settings: str


def question_digest(problem: Problem) -> str:
    """What tells questions of one id apart."""
    return digest_text(problem.question)[:12]


def said(row: dict) -> Said:
    """A row of `Rationale` or `Reply`; KeyError or TypeError for a field that is missing or no text."""
    texts = [row.get(name, "") for name in Said._fields[1:]]
    for name, text in zip(Said._fields[1:], texts, strict=True):
        check_type(name, text, str, "a text")
    return Said(make_record(Rationale, row), *texts)


def of_one_request(rows: Sequence[Said], problems: Sequence[Problem] | None, path: str) -> list[Rationale]:
    """The rationales of these problems (None: of all), in the order of the file, the first answer of a place.

    What a server turned away is none. ValueError where they answer more than one request, or other questions
    under the same ids.
    """
    if problems is not None:
        rows = _answering(rows, problems, path)
    _check_one_request(rows, path)
    taken: dict[tuple[str, int], Said] = {}
    for row in rows:
        one = row.rationale
        first = taken.setdefault((one.problem_id, one.index), row)
        if first.error:
            taken[one.problem_id, one.index] = row
        elif first.rationale != one and not (row.request and row.request == first.request):
            raise ValueError(
                f"{path} must hold one teacher's rationales, each once; number {one.index} of "
                f"{one.problem_id!r} is there by {first.rationale.teacher!r} and by {one.teacher!r}; they "
                "differ; keep one of them"
            )
    return [row.rationale for row in taken.values() if not row.error]


def _answering(rows: Sequence[Said], problems: Sequence[Problem], path: str) -> list[Said]:
    questions = {problem.id: question_digest(problem) for problem in problems}
    known = [row for row in rows if row.rationale.problem_id in questions]
    kept = [row for row in known if row.question in ("", questions[row.rationale.problem_id])]
    if known and not kept:
        there = {row.rationale.problem_id for row in known}
        one = next(name for name in questions if name in there)  # a store keeps the order of arrival
        raise ValueError(
            f"{path} must hold answers to these questions; those under {one!r} and the others answer other "
            "questions; take the file that was written for them"
        )
    return kept


def _check_one_request(rows: Sequence[Said], path: str) -> None:
    asked = [row for row in rows if row.request]
    teachers = Counter((row.rationale.teacher, row.settings) for row in asked)
    one = len({name for name, _ in teachers}) <= 1 and len({s for _, s in teachers if s}) <= 1
    requests: dict[str, str] = {}
    one = one and all(requests.setdefault(r.rationale.problem_id, r.request) == r.request for r in asked)
    if not one:
        there = " and ".join(
            f"by {name!r}" + (f" ({settings}: {count} answers)" if settings else "")
            for (name, settings), count in teachers.items()
        )
        raise ValueError(
            f"{path} must hold one teacher's rationales, the answers to one request; those of "
            f"{asked[0].rationale.problem_id!r} and the other questions are {there}; keep those of one in a "
            "file of their own, or ask each into a store of its own"
        )
