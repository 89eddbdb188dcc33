"""Lines: files that sealed rows are appended to, each there as a whole or not at all.

{"problem_id": "p", ..., "line_sha256": "..."}     ends with a line break
{"problem_id": "p", "ind                           begun as the machine failed: taken away, it is no row
my notes                                           nobody knows: refused and kept
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from negdistill.data.seals import SEALED, seal

_WHOLE = re.compile(rb'"(?:[^"\\\x00-\x1f]|\\.)*"|-?\d+|null')  # a value of a line
_PART = re.compile(rb'"(?:[^"\\\x00-\x1f]|\\.)*\\?|-?\d*|n|nu|nul')


class Lines:
    """A file that lines are appended to; each is there as a whole or not at all."""

    def __init__(self, path: Path) -> None:
        binary = getattr(os, "O_BINARY", 0)  # else Windows writes a carriage return before each line break
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | binary, 0o644)
        self._mutex = threading.Lock()

    def append(self, row: dict) -> None:
        """Put a row on disk, from any thread. OSError where that fails; then nothing of it is there."""
        line = seal(row)
        with self._mutex:
            before = os.fstat(self._file).st_size
            try:
                while line:
                    line = line[os.write(self._file, line) :]
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, before)
                raise

    def close(self) -> None:
        """Let go of the file. Who appends later gets OSError: its number may be another file's by then."""
        with self._mutex:
            file, self._file = self._file, -1
            os.close(file)


def whole_lines(path: Path, names: Sequence[str]) -> bytes:
    """The file less a last line with fields of these names that `Lines` began; b"" without a file.

    ValueError where the last line has no end and is none of these: nobody knows what else it is.
    """
    data = path.read_bytes() if path.exists() else b""
    if b"\r" in data:
        line = data.count(b"\n", 0, data.index(b"\r")) + 1
        raise ValueError(
            f"{path}, line {line}: the line is damaged, it holds a carriage return; put back a copy, or "
            "take that line out"
        )
    end = data.rfind(b"\n") + 1
    if not _begun(data[end:], (*names, SEALED)):
        line = data.count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: the last line of a store must end with a line break; this has none and "
            "is not the beginning of an answer; add the line break, or take the line out"
        )
    return data[:end]


def _begun(line: bytes, names: Sequence[str]) -> bool:
    """Whether a line with fields of these names, texts, whole numbers or null, begins like that."""
    for place, name in enumerate(names):
        head = f'{", " if place else "{"}"{name}": '.encode()
        if len(line) <= len(head):
            return head.startswith(line)
        if not line.startswith(head):
            return False
        line = line[len(head) :]
        value = _WHOLE.match(line)
        if not value or value.end() == len(line):
            return bool(value or _PART.fullmatch(line))
        line = line[value.end() :]
    return line == b"}"
