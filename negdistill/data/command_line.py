"""Command line: what the commands of all rooms share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from negdistill.data.records import Problem
    from negdistill.data.tasks import Task


def say(line: str) -> None:
    """A line on stdout, at once."""
    print(line, flush=True)  # noqa: T201


def asked(task: Task, options: argparse.Namespace) -> tuple[Problem, ...]:
    """The questions that a command is about; ValueError where all are wanted of a task that has no end."""
    if task.generated and options.questions is None:
        raise ValueError(
            f"--questions must be given for {options.task}, whose questions are made as they are asked for; "
            "for example --questions 100"
        )
    return task.questions(options.split, options.questions, options.seed)
