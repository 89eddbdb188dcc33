"""Records: the three things that flow through the method, and JSON lines in and out.

    Problem  --teacher-->  Rationale  --grade-->  right | wrong | none

Every record is frozen and holds plain Python values only, so it can be hashed, compared and written as
one line of JSON. Readers say which file and line they stumble over.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeVar

ON_ERROR = ("raise", "skip")


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its reference.

    id        unique within the data set, the key that rationales and predictions carry
    question  problem text, without prefixes such as "Problem:"
    answer    final answer, already extracted from the reference
    solution  the data set's own solution text
    subject   topic as the data set names it, "" where it has none
    level     difficulty (MATH and the embedded benchmark 1-5, ASDiv grade 1-6), None where it has none
    source    name of the data set, as `load_problems` takes it
    """

    id: str
    question: str
    answer: str
    solution: str
    subject: str
    level: int | None
    source: str


@dataclass(frozen=True, slots=True)
class Rationale:
    """One answer of a teacher to one problem; `index` counts its samples from 0."""

    problem_id: str
    index: int
    text: str
    teacher: str


Record = TypeVar("Record", Problem, Rationale)
T = TypeVar("T")


def check_choice(parameter: str, value: object, allowed: Iterable[object]) -> None:
    """Raise the package's one wording of "not one of" (ValueError)."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{parameter} must be one of {', '.join(map(str, allowed))}; got {value!r}")


def read_rows(
    lines: Iterable[bytes], where: str, convert: Callable[[dict], T], on_error: str = "raise"
) -> Iterator[T]:
    """Decode JSON lines and convert each row.

    lines     raw bytes of each line, with or without the line break; blank lines are skipped
    where     name of the file, for messages
    convert   dict -> record; a KeyError, TypeError or ValueError from it counts as a malformed row
    on_error  "raise": ValueError naming file and line at the first malformed row;
              "skip": drop malformed rows and warn once with their number and the first place
    """
    check_choice("on_error", on_error, ON_ERROR)
    bad: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
            if not isinstance(row, dict):
                raise ValueError(f"expected a JSON object, found {type(row).__name__}")
            record = convert(row)
        except (KeyError, TypeError, ValueError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            why = f"missing field {error}" if isinstance(error, KeyError) else str(error)
            if on_error == "raise":
                raise ValueError(f'{where}, line {number}: {why}; on_error="skip" leaves such rows out') from error
            bad.append(f"line {number}: {why}")
            continue
        yield record
    if bad:
        warnings.warn(f"{where}: {len(bad)} malformed rows skipped, first {bad[0]}", stacklevel=2)


def read_records(path: str | Path, kind: type[Record], on_error: str = "raise") -> list[Record]:
    """Read a JSON-lines file of Problem or Rationale, as `write_records` wrote it.

    Raises FileNotFoundError, or ValueError with file and line for a malformed, truncated or non-UTF-8 row.
    """
    names = {field.name for field in fields(kind)}

    def convert(row: dict) -> Record:
        if unknown := sorted(row.keys() - names):
            raise ValueError(f"unknown field {unknown[0]!r} for {kind.__name__}")
        return kind(**row)

    with open(path, "rb") as file:
        return list(read_rows(file, str(path), convert, on_error))


def write_records(path: str | Path, records: Iterable[Problem | Rationale]) -> None:
    """Write one JSON object per line (UTF-8, fields in declaration order)."""
    with open(path, "w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")
