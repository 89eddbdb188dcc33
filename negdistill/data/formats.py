"""Formats: rows of JSON lines, a JSON list or XML elements; errors name file and line. Records as lines."""

from __future__ import annotations

import gzip
import json
import lzma
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree

from negdistill.checks import check_choice
from negdistill.data.records import Problem, Rationale, Reply, Sample

ON_ERROR = ("raise", "skip")


Record = TypeVar("Record", Problem, Rationale, Sample, Reply)
T = TypeVar("T")
Row = tuple[str, str, Callable[[], dict]]  # place for messages, key within the file, reader of its fields

# annotations of the records above
_TYPES = {
    "str": str,
    "int": int,
    "int | None": (int, type(None)),
    "float": (float, int),
    "bool": bool,
    "tuple[int, ...]": list,
}
_LIST_MARK = re.compile(r"\s*([\[,\]])\s*")


def gather(rows: Iterable[tuple[str, Callable[[], T]]], on_error: str = "raise") -> Iterator[T]:
    """Read rows one after the other and account for those that cannot be read.

    rows      (place, read) pairs: where the row stands, for messages, and a function that returns its record;
              a KeyError, TypeError, ValueError or RecursionError from it means that the row is malformed
    on_error  "raise": ValueError naming the place of the first malformed row;
              "skip": leave malformed rows out and warn once with their number and the first place
    """
    check_choice("on_error", on_error, ON_ERROR)
    bad: list[str] = []
    for place, read in rows:
        try:
            record = read()
        except (KeyError, TypeError, ValueError, RecursionError) as error:  # bad JSON, bad UTF-8: ValueError
            why = f"missing field {error}" if isinstance(error, KeyError) else str(error)
            if on_error == "raise":
                raise ValueError(f'{place}: {why}; on_error="skip" leaves such rows out') from error
            bad.append(f"{place}: {why}")
            continue
        yield record
    if bad:
        warnings.warn(f"{len(bad)} malformed rows skipped, first {bad[0]}", stacklevel=2)


def parse_row(line: bytes) -> dict:
    """Decode one JSON object in UTF-8; anything else is a ValueError."""
    row = json.loads(line.decode("utf-8"))
    if not isinstance(row, dict):
        raise ValueError(f"expected a JSON object, found {type(row).__name__}")
    return row


def unpack(path: Path) -> tuple[bytes, str]:
    """Content of a plain, .gz or .xz file, and why it could not be read to its end ("" if it could)."""
    pieces = []
    try:
        with {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)(path, "rb") as file:
            while piece := file.read1(1 << 16):
                pieces.append(piece)
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        return b"".join(pieces), f"the file is cut off or damaged: {error}"
    return b"".join(pieces), ""


def broken(why: str) -> dict:
    """The reader of a row that cannot be read: raises ValueError."""
    raise ValueError(why)


def line_rows(data: bytes, why: str, where: str) -> Iterator[Row]:
    """Rows of JSON lines, keyed by the line number from 0; `data` and `why` as `unpack` returns them."""
    *lines, rest = data.split(b"\n")
    if rest and not why:
        lines.append(rest)
    for number, line in enumerate(lines):
        if line.strip():
            yield f"{where}, line {number + 1}", str(number), partial(parse_row, line)
    if why:
        yield f"{where}, line {len(lines) + 1}", str(len(lines)), partial(broken, why)


def list_rows(data: bytes, why: str, where: str) -> Iterator[Row]:
    """Elements of one JSON list, keyed by position; the place is the line where an element starts."""
    text = data.decode("utf-8", "surrogateescape")  # bad bytes show in the element that has them
    decoder, at, line, expected, number = json.JSONDecoder(), 0, 1, "[", 0
    while True:
        mark = _LIST_MARK.match(text, at)
        start = mark.end() if mark else at
        line += text.count("\n", at, start)
        if mark and mark[1] == "]" and expected == ",":
            return
        try:
            if not mark or mark[1] != expected:
                raise ValueError(f"expected {expected!r} of a JSON list")
            at = decoder.raw_decode(text, start)[1]
        except (ValueError, RecursionError) as error:  # nobody knows where this element ends
            error = why or f"{error}; nothing from here on can be read"
            yield f"{where}, line {line}", str(number), partial(broken, error)
            return
        element = text[start:at].encode("utf-8", "surrogateescape")
        yield f"{where}, line {line}", str(number), partial(parse_row, element)
        line += element.count(b"\n")
        expected, number = ",", number + 1


def xml_rows(data: bytes, why: str, where: str, tag: str) -> Iterator[Row]:
    """Elements `tag` of an XML file, keyed by position, each parsed alone: attributes and children are its
    fields. A document that ends with such an element instead of its root was cut off.
    """
    starts = [match.start() for match in re.finditer(rf"<{tag}\s".encode(), data)]
    line, last = 1, 0
    for number, (start, stop) in enumerate(pairwise([*starts, len(data)])):
        line, last = line + data.count(b"\n", last, start), start
        yield f"{where}, line {line}", str(number), partial(_element, data[start:stop], f"</{tag}>".encode())
    if why or not re.search(rf"</(?!{tag}>)[\w-]+>\s*\Z".encode(), data):
        line += data.count(b"\n", last)
        yield f"{where}, line {line}", str(len(starts)), partial(broken, why or "the file ends too early")


def _element(data: bytes, end: bytes) -> dict:
    text = (data.partition(end)[0] + end).decode("utf-8")
    try:
        element = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"malformed element: {error}") from error
    return {**element.attrib, **{child.tag: child.text or "" for child in element}}


def read_rows(
    lines: Iterable[bytes], where: str, convert: Callable[[dict], T], on_error: str = "raise"
) -> Iterator[T]:
    """Decode JSON lines and convert each row.

    lines     raw bytes of each line, with or without the line break; blank lines are skipped
    where     name of the file, for messages
    convert   dict -> record; a KeyError, TypeError or ValueError from it counts as a malformed row
    on_error  as in `gather`
    """
    rows = (
        (f"{where}, line {number}", lambda line=line: convert(parse_row(line)))
        for number, line in enumerate(lines, 1)
        if line.strip()
    )
    return gather(rows, on_error)


def read_records(path: str | Path, kind: type[Record], on_error: str = "raise") -> list[Record]:
    """Read a JSON-lines file of Problem, Rationale or Sample, as `write_records` wrote it.

    Raises FileNotFoundError, or ValueError with file and line for a malformed, truncated or non-UTF-8 row.
    """
    types = {field.name: _TYPES.get(field.type, object) for field in fields(kind)}

    def convert(row: dict) -> Record:
        if unknown := sorted(row.keys() - types):
            raise ValueError(f"unknown field {unknown[0]!r} for {kind.__name__}")
        for name, allowed in types.items():
            if not isinstance(row[name], allowed):
                raise TypeError(f"{name} is {row[name]!r}, a {type(row[name]).__name__}")
        return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in row.items()})

    with open(path, "rb") as file:
        return list(read_rows(file, str(path), convert, on_error))


def write_records(path: str | Path, records: Iterable[Problem | Rationale | Sample]) -> None:
    """Write one JSON object per line (fields in declaration order, escaped to ASCII: any text survives)."""
    with open(path, "w", encoding="ascii") as file:
        for record in records:
            file.write(json.dumps(asdict(record)) + "\n")
