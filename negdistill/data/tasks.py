"""Tasks: questions by split, rationales by teacher, and the rules that grade them, all from one name.

    name               train, valid, test                            teachers
    arithmetic         generated                                     weak, strong
    math               train less a tenth, that tenth, test          tdg-gpt-3.5-turbo, tdg-gpt-4, or a file
    gsm8k              the same                                      a file
    asdiv, multiarith, svamp      test only                          a file
    folder/my.jsonl    the field `split`, else 8, 1 and 1 of ten     file: its own rationales, or another file

Questions of another kind, for students that were trained on one of these, are `Task.shifted`.

Such a file may be packed (.jsonl.gz); `own_files` says what a row of it is, and a row of a teacher's file.
Which of ten a question belongs to follows from its text alone.
"""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path

import numpy as np

from negdistill.checks import check_choice, check_each, check_path, check_whole
from negdistill.data import arithmetic
from negdistill.data.answers import Rule
from negdistill.data.own_files import FILES, OWN, SPLITS, read_own, read_said, tenth
from negdistill.data.records import PROBLEMS, Problem, Rationale
from negdistill.data.released import TDG
from negdistill.data.sources import PROBLEM_SETS, check_draw, load_problems, load_rationales

SHIFTS = tuple(name for name in arithmetic.SPLITS if name not in SPLITS)  # of the embedded benchmark
GRADINGS: Mapping[str, tuple[str, Rule]] = {  # rules of `final_answer` and of `equivalent`
    "boxed": ("boxed", "exact"),
    "latex": ("lenient", "math"),
    "number": ("lenient", "number"),
    "choice": ("choice", "choice"),
    "text": ("text", "string"),
}
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

        ValueError for a split that the task lacks, and for more questions than there are; TypeError for an n
        or a seed that is no whole number.
        """
        check_choice("split", split, SPLITS)
        check_draw(n, seed)
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
        return [there[place] for place in sorted(random.Random(int(seed)).sample(range(len(there)), n))]

    def rationales(
        self, problems: Sequence[Problem], teacher: str | Path, n: int, seed: int = 0
    ) -> list[Rationale]:
        """The first n rationales of each problem by one teacher, in the order of the problems; all it has of
        those with fewer. A warning counts the problems that have none.

        teacher  a name from the table above, or the path of a file
        seed     of the embedded teachers; all others have said what they said

        ValueError for a teacher that the task lacks, and where it has said nothing to any of the problems.
        """
        check_whole("n", n, 1)
        check_path("teacher", teacher)
        problems, teacher = check_each("problems", problems, *PROBLEMS), str(teacher)
        if self.generated and not teacher.endswith(FILES):
            return arithmetic.teach(problems, teacher, n=n, seed=seed)
        by_problem: dict[str, list[Rationale]] = {}
        for one in self._spoken(teacher, problems):
            by_problem.setdefault(one.problem_id, []).append(one)
        found = [sorted(by_problem.get(problem.id, ()), key=lambda r: r.index)[:n] for problem in problems]
        silent = [problem.id for problem, own in zip(problems, found, strict=True) if not own]
        if silent:
            missing = f"{len(silent)} of {len(problems)} questions have no rationale by {teacher}"
            if len(silent) == len(problems):
                raise ValueError(
                    f"teacher must have said something to these questions; {missing}, first {silent[0]!r}; "
                    "take its own questions, or ask for more with negdistill.teachers.generate"
                )
            warnings.warn(f"{missing}, first {silent[0]!r}", stacklevel=2)
        return [one for own in found for one in own]

    def _spoken(self, teacher: str, problems: Sequence[Problem]) -> list[Rationale]:
        """All rationales of a teacher; of a file those of one request for these problems."""
        if teacher.endswith(FILES):
            return read_said(teacher, problems)
        names = list(TDG) if self.name == "math" else []
        if self.name.endswith(FILES):
            names.append(OWN)
        check_choice(f"teacher of {self.name}", teacher, [*names, "a file of rationales, path/to/it.jsonl"])
        return (
            [one for _, _, own in self._rows for one in own] if teacher == OWN else load_rationales(teacher)
        )

    @cached_property
    def _rows(self) -> list[tuple[str, Problem, list[Rationale]]]:
        """Split, problem and rationales of each row of the task's own file."""
        return read_own(self.name, self.rule)

    @cached_property
    def _splits(self) -> dict[str, list[Problem]]:
        found: dict[str, list[Problem]] = {name: [] for name in SPLITS}
        if self.name.endswith(FILES):
            for split, problem, _ in self._rows:
                found[split].append(problem)
            return found
        for split in PROBLEM_SETS[self.name]:
            for problem in load_problems(self.name, split):
                held_out = split == "train" and tenth(problem.question) == 0
                found["valid" if held_out else split].append(problem)
        return found


def load_task(name: str | Path = "arithmetic", grading: str = "") -> Task:
    """A task by its name or by the path of its file.

    grading  a name in GRADINGS; "module:function" for a function of answer and reference, whose module's code
             runs when it is imported here; "" for the task's own: "boxed" for arithmetic, "latex" for math
             and for files, "number" for the others

    ValueError for an unknown name or grading, and where the function cannot be imported. Files are read when
    they are needed; what is wrong in them is then a ValueError with file and line.
    """
    name = str(name)
    if not name.endswith(FILES):
        check_choice("task", name, [*PROBLEM_SETS, "a file, path/to/it.jsonl"])
    check_grading(grading)
    if ":" in grading:
        return Task(name, "text", _function(grading))
    default = {"arithmetic": "boxed", **dict.fromkeys(_NUMBERS, "number")}.get(name, "latex")
    return Task(name, *GRADINGS[grading or default])


def check_grading(grading: str) -> None:
    """ValueError for what is neither "" nor a name in GRADINGS nor of the form module:function."""
    if grading != "" and not (isinstance(grading, str) and ":" in grading):
        check_choice("grading", grading, [*GRADINGS, "module:function"])


@cache
def _function(place: str) -> Callable[[str, str], bool]:
    """The function of that place, which raises TypeError where it says neither True nor False."""
    module, _, name = place.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # "a:b:c", ".relative:x", ":x", and whatever the module does
        raise ValueError(
            f"grading must name a function that can be imported; got {place!r}: {error}"
        ) from error
    try:
        inspect.signature(found).bind("answer", "reference")
    except TypeError as error:
        raise ValueError(
            f"grading must name a function of answer and reference; got {place!r}: {error}"
        ) from error
    except ValueError:  # some that are built in do not say what they take
        pass

    def checked(answer: str, reference: str) -> bool:
        verdict = found(answer, reference)
        if not isinstance(verdict, (bool, np.bool_)):
            raise TypeError(
                f"grading {place!r} must return True or False; got {verdict!r} for the answer {answer!r} and "
                f"the reference {reference!r}"
            )
        return bool(verdict)

    checked.__module__, checked.__qualname__ = module, name  # what results are kept under
    checked.__wrapped__ = found  # whose source is a part of that
    return checked
