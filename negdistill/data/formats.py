"""Formats: rows of JSON lines, a JSON list or XML elements; errors name file and line. Records as lines.

    file --unpack--> bytes --line_rows, list_rows, xml_rows--> Row --collect(convert)--> records

A number is read as it is written: 0.00005 and a number of forty digits are those, not the nearest float. What
no later step can take is refused here: NaN, Infinity, halves of surrogate pairs, pipes, devices.
"""

from __future__ import annotations

import codecs
import gzip
import json
import lzma
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, asdict, fields
from decimal import Decimal, InvalidOperation
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree

from negdistill.checks import check_choice
from negdistill.data.records import Problem, Rationale, Reply, Sample
from negdistill.data.seals import unseal

ON_ERROR = ("raise", "skip")


Record = TypeVar("Record", Problem, Rationale, Sample, Reply)
T = TypeVar("T")
Row = tuple[str, str, Callable[[], dict]]  # place for messages, key within the file, reader of its fields

LONGEST_NUMBER = 100  # digits before or after the point, written out without an exponent
LARGEST_FILE = 1 << 32  # bytes, unpacked

# annotations of the records above
_TYPES = {
    "str": str,
    "str | None": (str, type(None)),
    "int": int,
    "int | None": (int, type(None)),
    "float": (float, int),
    "bool": bool,
    "tuple[int, ...]": list,
}
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_LIST_MARK = re.compile(r"\s*([\[,\]])\s*")


def gather(
    rows: Iterable[tuple[str, Callable[[], T]]],
    on_error: str = "raise",
    loss: Callable[[int], str] | None = None,
) -> Iterator[T]:
    """Read rows one after the other and account for those that cannot be read.

    rows      (place, read) pairs: where the row stands, for messages, and a function that returns its record;
              a KeyError, TypeError, ValueError or RecursionError from it means that the row is malformed
    on_error  "raise": ValueError naming the place of the first malformed row;
              "skip": leave malformed rows out and warn once with their number and the first place
    loss      what is lost beside these rows, in words for the warning, from the number of rows that were read
    """
    check_choice("on_error", on_error, ON_ERROR)
    bad: list[str] = []
    good = 0
    for place, read in rows:
        try:
            record = read()
        except (KeyError, TypeError, ValueError, RecursionError) as error:  # bad JSON, bad UTF-8: ValueError
            why = f"missing field {error}" if isinstance(error, KeyError) else str(error)
            if on_error == "raise":
                raise ValueError(f"{place}: {why}") from error
            bad.append(f"{place}: {why}")
            continue
        good += 1
        yield record
    if bad:
        more = f"; {loss(good)}" if loss else ""
        warnings.warn(f"{len(bad)} malformed rows skipped, first {bad[0]}{more}", stacklevel=2)


def collect(
    rows: Iterable[Row],
    convert: Callable[[str, dict], T],
    on_error: str = "raise",
    loss: Callable[[int], str] | None = None,
) -> list[T]:
    """The records that `convert` makes of the key and the fields of each row; the rest as in `gather`."""
    pairs = ((place, lambda key=key, read=read: convert(key, read())) for place, key, read in rows)
    return list(gather(pairs, on_error, loss))


def parse_record(line: bytes) -> dict:
    """Decode one JSON object in UTF-8, as `write_records` wrote it; anything else is a ValueError."""
    return _object(json.loads(unseal(line).decode("utf-8")))


def parse_row(line: bytes) -> dict:
    """Decode one JSON object in UTF-8 that others wrote: numbers are int or Decimal, exactly as written.

    ValueError for anything else, for a field that stands twice, for NaN and Infinity, for a number that is
    too long to be written out, and for half of a surrogate pair.
    """
    text = unseal(line).decode("utf-8")
    numbers = {"parse_int": _whole, "parse_float": _decimal, "parse_constant": _no_number}
    row = _object(json.loads(text, object_pairs_hook=_fields, **numbers))
    if _SURROGATE.search(text):
        try:
            json.dumps(row, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])
            raise ValueError(
                f"a text holds {half}, half of a surrogate pair, which is no character"
            ) from error
    return row


def number_text(value: object, name: str) -> str:
    """A number of a row, written out without an exponent; a text as it is; TypeError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return f"{Decimal(value):f}"
    raise TypeError(f"expected one number or one text as {name}; got {value!r}")


def _object(row: object) -> dict:
    if not isinstance(row, dict):
        raise ValueError(f"expected a JSON object, found {type(row).__name__}")
    return row


def _fields(pairs: list[tuple[str, object]]) -> dict:
    if len(row := dict(pairs)) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise ValueError(f"field {twice!r} stands twice; keep one")
    return row


def _whole(text: str) -> int:
    return int(_decimal(text))


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:  # an exponent beyond all bounds
        value = None
    if value is None or abs(value.adjusted()) > LONGEST_NUMBER:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise ValueError(
            f"a number must have at most {LONGEST_NUMBER} digits; got {shown}; write it as a text"
        )
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON; write it as a text, or leave the row out")


def unpack(path: Path) -> tuple[bytes, str]:
    """Content of a plain, .gz or .xz file, and why it could not be read to its end ("" if it could).

    ValueError for a folder, a pipe or a device, and for more than LARGEST_FILE bytes.
    """
    if path.exists() and not path.is_file():
        raise ValueError(
            f"{path} must be a file; it is a folder, a pipe or a device; copy the data into a file"
        )
    pieces, size = [], 0
    try:
        with {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)(path, "rb") as file:
            while piece := file.read1(1 << 16):
                pieces.append(piece)
                if (size := size + len(piece)) > LARGEST_FILE:
                    raise ValueError(f"{path} must unpack to at most {LARGEST_FILE:,} bytes; divide it")
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        return b"".join(pieces), f"the file is cut off or damaged: {error}"
    return b"".join(pieces), ""


def broken(why: str) -> dict:
    """The reader of a row that cannot be read: raises ValueError."""
    raise ValueError(why)


def line_rows(data: bytes, why: str, where: str, parse: Callable[[bytes], dict] = parse_row) -> Iterator[Row]:
    """Rows of JSON lines, keyed by the line number from 0; `data` and `why` as `unpack` returns them."""
    lines = data.removeprefix(codecs.BOM_UTF8).splitlines()
    if why and lines and not data.endswith(b"\n"):
        lines.pop()  # it was cut off
    for number, line in enumerate(lines):
        if line.strip():
            yield f"{where}, line {number + 1}", str(number), partial(parse, line)
    if why:
        yield f"{where}, line {len(lines) + 1}", str(len(lines)), partial(broken, why)


def list_rows(data: bytes, why: str, where: str) -> Iterator[Row]:
    """Elements of one JSON list, keyed by position; the place is the line where an element starts."""
    text = data.removeprefix(codecs.BOM_UTF8).decode(
        "utf-8", "surrogateescape"
    )  # bad bytes show in the element that has them
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


def make_record(kind: type[Record], row: dict) -> Record:
    """The record of a row that has its fields, and maybe more; KeyError or TypeError for a wrong one."""
    values = {}
    for field in fields(kind):
        if field.default is not MISSING and field.name not in row:
            continue
        value, allowed = row[field.name], _TYPES.get(field.type, object)
        if not isinstance(value, allowed) or (isinstance(value, bool) and allowed is not bool):
            raise TypeError(f"{field.name} is {value!r}, a {type(value).__name__}")
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def read_records(path: str | Path, kind: type[Record]) -> list[Record]:
    """Read a JSON-lines file of Problem, Rationale, Sample or Reply, as `write_records` wrote it.

    Raises FileNotFoundError, or ValueError with file and line for a malformed, truncated or non-UTF-8 row.
    """
    return parse_records(*unpack(Path(path)), str(path), kind)


def parse_records(data: bytes, why: str, where: str, kind: type[Record]) -> list[Record]:
    """As `read_records`, from what `unpack` returns; `where` is the file, for messages."""
    known = {field.name for field in fields(kind)}

    def convert(_: str, row: dict) -> Record:
        if unknown := sorted(row.keys() - known):
            raise ValueError(f"unknown field {unknown[0]!r} for {kind.__name__}")
        return make_record(kind, row)

    return collect(line_rows(data, why, where, parse_record), convert)


def write_records(path: str | Path, records: Iterable[Problem | Rationale | Sample]) -> None:
    """Write one JSON object per line (fields in declaration order, escaped to ASCII: any text survives)."""
    with open(path, "w", encoding="ascii") as file:
        for record in records:
            file.write(json.dumps(asdict(record)) + "\n")
