"""Ledger: the answers that were got, on disk, and what the rest may cost.

    slot     one rationale that is wanted: problem, index, and the request that makes it
    store    JSON lines, one `Reply` each, sealed; appended and on disk (fsync) before `append` returns
    budget   spent + held <= limit     held: the most that the requests now under way can cost
    charges  STORE.charges: what requests without an answer may have cost, those of a killed process included

A process that is killed loses no answer that `append` returned for. A last line without its end, as a failing
machine leaves it, is no answer; it is taken away when the store is opened next for writing. All lines are
checked before anything is written: a store that is refused stays as it was.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from negdistill.data.formats import collect, line_rows, parse_record, parse_records
from negdistill.data.records import Problem, Reply
from negdistill.data.seals import seal
from negdistill.runs.files import atomic_write_bytes, remove
from negdistill.teachers.lines import Lines, whole_lines

Key = tuple[str, int, str]  # problem id, index, request
REJECTED = "rejected"  # `Reply.finish` of a question that the server turns away


class Slot(NamedTuple):
    """One rationale that is wanted."""

    problem: Problem
    index: int  # from 0
    temperature: float
    request: str  # as in `Reply`, as the next two
    question: str = ""
    settings: str = ""

    @property
    def key(self) -> Key:
        return self.problem.id, self.index, self.request

    def reply(
        self,
        text: str,
        teacher: str,
        finish: str | None,
        prompt: int,
        completion: int,
        reasoning: str = "",
        error: str = "",
    ) -> Reply:
        """The answer that came, without white space around it, and "empty" where nothing else is left."""
        text = text.strip()
        finish = "empty" if finish == "stop" and not text else finish
        answer = (text, teacher, finish, prompt, completion, self.request, reasoning, error)
        return Reply(self.problem.id, self.index, *answer, self.question, self.settings)


Keep = Callable[[Reply], None]


def cost(prices: tuple[float, float] | None, prompt: int, completion: int) -> float | None:
    """What these tokens cost at prices of a million prompt and completion tokens; None without prices."""
    return None if prices is None else (prices[0] * prompt + prices[1] * completion) / 1e6


class BudgetReached(RuntimeError):
    """The next request might have cost more than what is left of max_cost."""


def read_store(path: Path) -> tuple[dict[Key, Reply], int]:
    """The answers of a store by key, and the size of its whole lines in bytes. Changes nothing.

    Of a key that comes twice the first that is an answer counts. ValueError with file and line for a row that
    is malformed or damaged, and for a file that is no store.
    """
    if path.is_dir():
        raise ValueError(f"store must be a file of JSON lines; {path} is a folder")
    _check_name(path)
    data = whole_lines(path, [field.name for field in fields(Reply)])
    try:
        rows = parse_records(data, "", str(path), Reply)
    except ValueError as error:
        raise ValueError(
            f"{error}; if {path} is a store, put back a copy of it, or take that line out: what "
            "it held is asked for again"
        ) from None
    replies: dict[Key, Reply] = {}
    for reply in rows:
        key = reply.problem_id, reply.index, reply.request
        if replies.setdefault(key, reply).error:
            replies[key] = reply
    return replies, len(data)


def _check_name(path: Path) -> None:
    if path.suffix == ".gz":
        raise ValueError(f"store must be plain text, which lines are added to; got {path}: leave out .gz")


class Store:
    """A file of answers, open for one process at a time; a context manager.

    replies  those in the file by key, of every teacher
    charges  what requests without an answer may have cost

    Raises what `read_store` raises, RuntimeError where another process has it open.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        _check_name(self.path)
        self.replies: dict[Key, Reply] = {}
        self.charges = Charges(self.path)
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0)

    def __enter__(self) -> Store:
        if not self.path.is_dir():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise RuntimeError(f"store {self.path} is in use by another process; wait for it") from None
        try:
            self.replies, size = read_store(self.path)
            self.charges.read()
            if self.path.exists() and self.path.stat().st_size > size:
                os.truncate(self.path, size)
            self._lines = Lines(self.path)
            self._sync_folder()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._lines.close()
            self.charges.close()
        finally:
            self._lock.release()

    def append(self, reply: Reply) -> None:
        """Put an answer on disk, from any thread. OSError where that fails; then nothing of it is there."""
        self._lines.append(asdict(reply))
        self.replies[reply.problem_id, reply.index, reply.request] = reply

    def _sync_folder(self) -> None:
        """A new file is there after a power cut only once its folder is on disk too."""
        if os.name == "posix":
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


# --- money --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Charge:
    """Tokens that a request may cost as it is sent; less than 0: an answer has them, or it was free."""

    teacher: str
    prompt_tokens: int
    completion_tokens: int


def _charge(row: dict) -> Charge:
    if not isinstance(row["teacher"], str):
        raise TypeError(f"teacher is {row['teacher']!r}, no text")
    return Charge(row["teacher"], int(row["prompt_tokens"]), int(row["completion_tokens"]))


class Charges:
    """The file beside a store that remembers what requests without an answer may have cost, as tokens."""

    def __init__(self, store: Path) -> None:
        self.path = store.with_name(f"{store.name}.charges")
        self.prompt: Counter[str] = Counter()  # by teacher
        self.completion: Counter[str] = Counter()
        self._lines: Lines | None = None
        self._closed = False
        self._mutex = threading.Lock()

    def read(self) -> None:
        data = whole_lines(self.path, [field.name for field in fields(Charge)])
        try:
            rows = line_rows(data, "", str(self.path), parse_record)
            for charge in collect(rows, lambda _, row: _charge(row)):
                self._count(charge)
        except ValueError as error:
            raise ValueError(
                f"{error}; put back a copy of {self.path}, or remove it to forget what requests without an "
                "answer may have cost"
            ) from None

    def add(self, teacher: str, prompt: int, completion: int) -> None:
        """Remember tokens, on disk before this returns; from any thread. OSError once it is closed."""
        with self._mutex:
            if self._closed:
                raise OSError(errno.EBADF, "the store is closed", str(self.path))
            self._lines = self._lines or self._rewritten()
            charge = Charge(teacher, prompt, completion)
            self._lines.append(asdict(charge))
            self._count(charge)

    def close(self) -> None:
        """Leave one line for each teacher, no file where nothing is left."""
        with self._mutex:  # a thread that goes on after an interrupt may be adding
            self._closed = True
            if self._lines:
                self._lines.close()
                self._rewritten().close()
                if not any((*self.prompt.values(), *self.completion.values())):
                    remove(self.path)

    def _count(self, charge: Charge) -> None:
        self.prompt[charge.teacher] += charge.prompt_tokens
        self.completion[charge.teacher] += charge.completion_tokens

    def _rewritten(self) -> Lines:
        sums = (Charge(name, self.prompt[name], self.completion[name]) for name in self.prompt)
        atomic_write_bytes(self.path, b"".join(seal(asdict(one)) for one in sums))
        return Lines(self.path)


class Budget:
    """What was spent and what requests under way may cost: together at most `limit` (None: no limit).

    note  is told the tokens of a request before it is sent, and less than 0 once they are accounted for
    """

    def __init__(
        self,
        limit: float | None = None,
        spent: float = 0.0,
        note: Callable[[int, int], None] = lambda prompt, completion: None,
    ) -> None:
        self.limit, self.spent, self.held, self.note = limit, spent, 0.0, note
        self._changed = threading.Condition()

    def hold(self, most: float) -> None:
        """Set `most` aside for a request; wait for others to settle, BudgetReached where there are none."""
        with self._changed:
            while self.limit is not None and self.spent + self.held + most > self.limit:
                if self.held <= 0:
                    raise BudgetReached(f"{self.spent:.6g} spent, the next request may cost {most:.6g}")
                self._changed.wait()
            self.held += most

    def settle(self, most: float, cost: float) -> None:
        """Give back what `hold` set aside, once a request is over and has cost this much."""
        with self._changed:
            self.held = self.held - most if self.held - most > 1e-12 else 0.0
            self.spent += cost
            self._changed.notify_all()
