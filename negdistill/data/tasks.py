"""Tasks: questions by split, rationales by teacher, and the rules that grade them, all from one name.

    name               train, valid, test                            teachers
    arithmetic         generated                                     weak, strong
    math               train less a tenth, that tenth, test          tdg-gpt-3.5-turbo, tdg-gpt-4, or a file
    gsm8k              the same                                      a file
    asdiv, multiarith, svamp      test only                          a file
    folder/my.jsonl    the field `split`, else 8, 1 and 1 of ten     file: its own rationales, or another file

Questions of another kind, for students that were trained on one of these, are `Task.shifted`.

A row of such a file is {"question": ..., "answer": ...} with, if there are any, "rationales" (a list of
texts), "solution", "subject", "level", "id" and "split". A teacher's file holds `Rationale` or `Reply` rows,
as `generate.generate` stores them. A row without a solution has its answer, in a box, for one. Which of ten a
question belongs to follows from its text alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path

from negdistill.checks import check_choice
from negdistill.data import arithmetic
from negdistill.data.answers import Rule
from negdistill.data.formats import read_rows, unpack
from negdistill.data.records import Problem, Rationale
from negdistill.data.sources import PROBLEM_SETS, TDG, load_problems, load_rationales
from negdistill.runs.digests import digest_text

SPLITS = ("train", "valid", "test")
SHIFTS = tuple(name for name in arithmetic.SPLITS if name not in SPLITS)  # of the embedded benchmark
GRADINGS: Mapping[str, tuple[str, Rule]] = {  # rules of `final_answer` and of `equivalent`
    "boxed": ("boxed", "exact"),
    "latex": ("lenient", "math"),
    "number": ("lenient", "number"),
    "choice": ("choice", "string"),
    "text": ("text", "string"),
}
OWN = "file"  # the teacher whose rationales stand in the task's own file
_NUMBERS = ("gsm8k", "asdiv", "multiarith", "svamp")


@dataclass(frozen=True)
class Task:
    """A task as `load_task` makes it.

    name     as in PROBLEM_SETS, or the path of a file
    extract  rule of `final_answer`
    rule     rule of `equivalent`
    shift    "", or one of SHIFTS: its questions are those of "test"
    """

    name: str
    extract: str
    rule: Rule
    shift: str = ""

    @property
    def grading(self) -> dict[str, object]:
        """Keyword arguments extract and rule, for `training_set`, `evaluate`, `sampled` and their like."""
        return {"extract": self.extract, "rule": self.rule}

    @property
    def generated(self) -> bool:
        """Whether it is the embedded benchmark, which knows the steps of every question."""
        return self.name == "arithmetic"

    @property
    def shifted(self) -> dict[str, Task]:
        """Tasks whose test questions are of another kind than this one's, by name.

        For the embedded benchmark its shifted splits, graded as it is; for every other task gsm8k, asdiv,
        multiarith and svamp, each under its own rules, and without itself.
        """
        if self.generated:
            return {name: replace(self, shift=name) for name in SHIFTS}
        return {name: load_task(name) for name in _NUMBERS if name != self.name}

    def questions(self, split: str, n: int | None = None, seed: int = 0) -> list[Problem]:
        """n questions of a split, drawn with the seed, in the order of their file; None: all there are.

        ValueError for a split that the task lacks, and for more questions than there are.
        """
        check_choice("split", split, SPLITS)
        if self.generated:
            part = self.shift if split == "test" and self.shift else split
            return load_problems(self.name, part, n=n, seed=seed)
        there = self._splits[split]
        if not there:
            have = ", ".join(name for name in SPLITS if self._splits[name])
            raise ValueError(f"split must be one that {self.name} has, {have}; got {split!r}")
        if n is None:
            return list(there)
        if not 1 <= n <= len(there):
            raise ValueError(
                f"n must lie between 1 and {len(there)}, the {split} questions of {self.name}; got {n}"
            )
        return [there[place] for place in sorted(random.Random(seed).sample(range(len(there)), n))]

    def rationales(self, problems: Sequence[Problem], teacher: str, n: int, seed: int = 0) -> list[Rationale]:
        """The first n rationales of each problem by one teacher, in the order of the problems.

        teacher  a name from the table above, or the path of a file
        seed     of the embedded teachers; all others have said what they said

        ValueError for a teacher that the task lacks, and for a problem with fewer than n rationales.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1; got {n}")
        if self.generated and not teacher.endswith(".jsonl"):
            return arithmetic.teach(problems, teacher, n=n, seed=seed)
        by_problem: dict[str, list[Rationale]] = {}
        for one in self._spoken(teacher):
            by_problem.setdefault(one.problem_id, []).append(one)
        found = [sorted(by_problem.get(problem.id, ()), key=lambda r: r.index)[:n] for problem in problems]
        short = next((p.id for p, own in zip(problems, found, strict=True) if len(own) < n), None)
        if short is not None:
            raise ValueError(
                f"n must be at most the rationales of each question; {teacher} has fewer than {n} for "
                f"{short!r}; take fewer, or ask for more with negdistill.teachers.generate"
            )
        return [one for own in found for one in own]

    def _spoken(self, teacher: str) -> list[Rationale]:
        """All rationales of a teacher."""
        if teacher.endswith(".jsonl"):
            return _read(teacher, _said)
        names = list(TDG) if self.name == "math" else []
        if self.name.endswith(".jsonl"):
            names.append(OWN)
        check_choice(f"teacher of {self.name}", teacher, [*names, "a file of rationales, path/to/it.jsonl"])
        return (
            [one for _, _, own in self._rows for one in own] if teacher == OWN else load_rationales(teacher)
        )

    @cached_property
    def _rows(self) -> list[tuple[str, Problem, list[Rationale]]]:
        """Split, problem and rationales of each row of the task's own file."""
        name = Path(self.name).name
        rows = _read(self.name, lambda row: _own(row, name))
        ids = [problem.id for _, problem, _ in rows]
        if len(set(ids)) < len(ids):
            twice = next(one for place, one in enumerate(ids) if one in ids[:place])
            raise ValueError(f"{self.name} must hold every question once; got {twice!r} twice; remove one")
        return rows

    @cached_property
    def _splits(self) -> dict[str, list[Problem]]:
        found: dict[str, list[Problem]] = {name: [] for name in SPLITS}
        if self.name.endswith(".jsonl"):
            for split, problem, _ in self._rows:
                found[split].append(problem)
            return found
        for split in PROBLEM_SETS[self.name]:
            for problem in load_problems(self.name, split):
                held_out = split == "train" and _tenth(problem.question) == 0
                found["valid" if held_out else split].append(problem)
        return found


def load_task(name: str = "arithmetic", grading: str = "") -> Task:
    """A task by its name or by the path of its file.

    grading  a name in GRADINGS; "module:function" for a function of answer and reference; "" for the task's
             own: "boxed" for arithmetic, "latex" for math and for files, "number" for the others

    ValueError for an unknown name or grading, and where the function cannot be imported. Files are read when
    they are needed; what is wrong in them is then a ValueError with file and line.
    """
    if not name.endswith(".jsonl"):
        check_choice("task", name, [*PROBLEM_SETS, "a file, path/to/it.jsonl"])
    default = {"arithmetic": "boxed", **dict.fromkeys(_NUMBERS, "number")}.get(name, "latex")
    if ":" in grading:
        return Task(name, "text", _function(grading))
    check_choice("grading", grading or default, [*GRADINGS, "module:function"])
    return Task(name, *GRADINGS[grading or default])


def _function(place: str) -> Callable[[str, str], bool]:
    module, _, name = place.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"grading must name a function that can be imported; got {place!r}: {error}"
        ) from error
    if not callable(found):
        raise ValueError(f"grading must name a function of answer and reference; got {place!r}")
    return found


def _tenth(question: str) -> int:
    return int(digest_text(" ".join(question.split()))[:8], 16) % 10


def _read(path: str, convert: Callable[[dict], object]) -> list:
    """The rows of a file of JSON lines, plain or packed; ValueError where there is none."""
    data, why = unpack(Path(path))
    if why:
        raise ValueError(f"{path}: {why}")
    if rows := list(read_rows(data.splitlines(), path, convert)):
        return rows
    raise ValueError(f"{path} must hold at least one row; it is empty")


def _own(row: dict, name: str) -> tuple[str, Problem, list[Rationale]]:
    """Split, problem and rationales of a row; `read_rows` adds file and line to what is wrong."""
    known = {"id", "question", "answer", "solution", "subject", "level", "split", "rationales"}
    if unknown := sorted(row.keys() - known):
        raise ValueError(f"unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    question, answer = _text(row, "question"), _text(row, "answer")
    key, level, texts = (
        row.get("id") or digest_text(question)[:12],
        row.get("level"),
        row.get("rationales", []),
    )
    if not (level is None or type(level) is int):
        raise ValueError(f"level must be a whole number or missing; got {level!r}")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("rationales must be a list of texts")
    split = row.get("split") or {0: "valid", 1: "test"}.get(_tenth(question), "train")
    check_choice("split", split, SPLITS)
    texts_of = {
        "solution": str(row.get("solution") or rf"\boxed{{{answer}}}"),
        "subject": str(row.get("subject") or ""),
    }
    problem = Problem(str(key), question, answer, level=level, source=name, **texts_of)
    return split, problem, [Rationale(problem.id, index, text, OWN) for index, text in enumerate(texts)]


def _text(row: dict, name: str) -> str:
    value = row[name]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and name == "answer":
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not empty; got {value!r}")
    return value.strip()


def _said(row: dict) -> Rationale:
    """The rationale of a row of `Rationale` or `Reply`."""
    return Rationale(**{field.name: row[field.name] for field in fields(Rationale)})
