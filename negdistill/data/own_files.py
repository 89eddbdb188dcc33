"""Own files: a user's questions with their answers, and what a teacher said to them, as JSON lines.

    {"question": ..., "answer": ...}     and, if there are any, "rationales" (a list of texts), "solution",
                                         "subject", "level", "id", "split"
    `Rationale` or `Reply`               a row of a teacher's file, as `generate.generate` stores it

An answer may be a number. One that is a whole solution, with "#### 18" or a box in it, is read as both. A row
without a solution has its answer, in a box, for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from negdistill.checks import check_choice
from negdistill.data.answers import Rule, check_reference, final_answer
from negdistill.data.formats import collect, line_rows, number_text, unpack
from negdistill.data.records import Problem, Rationale
from negdistill.data.said import of_one_request, said
from negdistill.data.sources import solution_and_answer
from negdistill.runs.digests import digest_text

SPLITS = ("train", "valid", "test")
FILES = (".jsonl", ".jsonl.gz")
OWN = "file"  # the teacher whose rationales stand in the task's own file

Row = tuple[str, Problem, list[Rationale]]  # split, problem and rationales


def read_own(path: str, rule: Rule) -> list[Row]:
    """The rows of a file of questions, whose answers can be met under the rule.

    ValueError with file and line for a malformed row, and where an id or, in two splits, a text comes twice.
    """
    name = Path(path).name
    rows = _read(path, lambda row: _own(row, name, rule))
    ids: set[str] = set()
    first: dict[str, tuple[str, str]] = {}
    for split, problem, _ in rows:
        if problem.id in ids:
            raise ValueError(
                f"{path} must hold every question once; got {problem.id!r} twice, the second time as "
                f"{problem.question[:60]!r}; remove one"
            )
        ids.add(problem.id)
        before, same = first.setdefault(_bare(problem.question), (split, problem.id))
        if before != split:
            raise ValueError(
                f"{path} must hold no question in two splits; {same!r} in {before} and {problem.id!r} in "
                f"{split} have the same text; remove one"
            )
    return rows


def read_said(path: str, problems: Sequence[Problem] | None = None) -> list[Rationale]:
    """The rationales of a teacher's file, of one request; with problems, those that answer them.

    ValueError with file and line for a malformed row, and as `said.of_one_request`.
    """
    return of_one_request(_read(path, said), problems, path)


def tenth(question: str) -> int:
    """Which of ten parts a question belongs to; white space does not matter."""
    return int(digest_text(_bare(question))[:8], 16) % 10


def _bare(question: str) -> str:
    return " ".join(question.split())


def _read(path: str, convert: Callable[[dict], object]) -> list:
    """The rows of a file of JSON lines, plain or packed; ValueError where there is none."""
    if rows := collect(line_rows(*unpack(Path(path)), path), lambda _, row: convert(row)):
        return rows
    raise ValueError(f"{path} must hold at least one row; it is empty")


def _own(row: dict, name: str, rule: Rule) -> Row:
    """Split, problem and rationales of a row; `collect` adds file and line to what is wrong."""
    known = {"id", "question", "answer", "solution", "subject", "level", "split", "rationales"}
    if unknown := sorted(row.keys() - known):
        raise ValueError(f"unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    question, (answer, solution) = _text(row, "question"), _reference(row)
    check_reference(answer, rule)
    level, texts = row.get("level"), [] if row.get("rationales") is None else row["rationales"]
    if not (level is None or type(level) is int):
        raise ValueError(f"level must be a whole number or missing; got {level!r}")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("rationales must be a list of texts")
    split = _text(row, "split", missing="") or {0: "valid", 1: "test"}.get(tenth(question), "train")
    check_choice("split", split, SPLITS)
    problem = Problem(
        id=number_text("" if row.get("id") is None else row["id"], "id") or digest_text(question)[:12],
        question=question,
        answer=answer,
        solution=_text(row, "solution", missing="") or solution,
        subject=_text(row, "subject", missing=""),
        level=level,
        source=name,
    )
    return split, problem, [Rationale(problem.id, index, text, OWN) for index, text in enumerate(texts)]


def _reference(row: dict) -> tuple[str, str]:
    """Answer and solution of a row. The answer may be a number, or a solution that marks it: with #### in its
    last line, else with a box."""
    text = _text({"answer": number_text(row["answer"], "answer")}, "answer")
    boxed = final_answer(text, "boxed")
    if "####" in text:
        solution, answer = solution_and_answer(text)
        if not answer:
            raise ValueError("answer must not end with its mark ####; write the answer after it")
        last = "\n" not in answer  # else it opens a heading
        if not (last or boxed):
            raise ValueError(
                "answer must have its mark #### in its last line, or a box; more lines follow the mark: "
                "leave them out"
            )
        return (final_answer(answer, "boxed") or answer) if last else boxed, solution
    if boxed:
        return boxed, text
    return text, rf"\boxed{{{text}}}"


def _text(row: dict, name: str, missing: str | None = None) -> str:
    """A text that is not empty; `missing`, where that is given, for one that is empty, null or not there."""
    value = row[name] if missing is None else row.get(name)
    if missing is not None and value in (None, ""):
        return missing
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not empty; got {value!r}")
    return value.strip()
