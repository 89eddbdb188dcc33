"""Ledger: the answers that were got, on disk, and what the rest may cost.

    slot    one rationale that is wanted: problem, index, and the request that makes it
    store   JSON lines, one `Reply` each; appended and on disk (fsync) before `append` returns
    budget  spent + held <= limit      held: the most that the requests now under way can cost

A process that is killed loses no answer that `append` returned for. A last line without its end, as a failing
machine leaves it, is no answer; it is taken away when the store is opened next.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from negdistill.data.formats import read_records
from negdistill.data.records import Problem, Reply

Key = tuple[str, int, str]  # problem id, index, request
_START = b'{"problem_id": "'  # how every line of a store begins


class Slot(NamedTuple):
    """One rationale that is wanted."""

    problem: Problem
    index: int  # from 0
    temperature: float
    request: str  # as in `Reply`

    @property
    def key(self) -> Key:
        return self.problem.id, self.index, self.request

    def reply(self, text: str, teacher: str, finish: str, prompt: int, completion: int) -> Reply:
        """The answer that came, without white space around it, and "empty" where nothing else is left."""
        text = text.strip()
        finish = "empty" if finish == "stop" and not text else finish
        return Reply(self.problem.id, self.index, text, teacher, finish, prompt, completion, self.request)


Keep = Callable[[Reply], None]


def cost(prices: tuple[float, float] | None, prompt: int, completion: int) -> float | None:
    """What these tokens cost at prices of a million prompt and completion tokens; None without prices."""
    return None if prices is None else (prices[0] * prompt + prices[1] * completion) / 1e6


class BudgetReached(RuntimeError):
    """The next request might have cost more than what is left of max_cost."""


class Store:
    """A file of answers, open for one process at a time; a context manager.

    replies  those in the file by key, of every teacher; the first where a key comes twice

    Raises ValueError with file and line for a malformed row and for a file that is no store, RuntimeError
    where another process has it open.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.replies: dict[Key, Reply] = {}
        self._mutex = threading.Lock()
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0)

    def __enter__(self) -> Store:
        if self.path.is_dir():
            raise ValueError(f"store must be a file of JSON lines; {self.path} is a folder")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise RuntimeError(f"store {self.path} is in use by another process; wait for it") from None
        try:
            self._mend()
            for reply in read_records(self.path, Reply) if self.path.exists() else ():
                self.replies.setdefault((reply.problem_id, reply.index, reply.request), reply)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._sync_folder()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        self._lock.release()

    def append(self, reply: Reply) -> None:
        """Put an answer on disk, from any thread. OSError where that fails; then nothing of it is there."""
        line = (json.dumps(asdict(reply)) + "\n").encode("ascii")
        with self._mutex:
            before = os.fstat(self._file).st_size
            try:
                while line:
                    line = line[os.write(self._file, line) :]
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, before)
                raise
            self.replies[reply.problem_id, reply.index, reply.request] = reply

    def _mend(self) -> None:
        """Take away a last line without its end."""
        data = self.path.read_bytes() if self.path.exists() else b""
        end = data.rfind(b"\n") + 1
        torn = data[end:]
        if torn and not (torn.startswith(_START) or _START.startswith(torn)):
            raise ValueError(f"store must be a file of answers; the last line of {self.path} is none")
        if torn:
            os.truncate(self.path, end)

    def _sync_folder(self) -> None:
        """A new file is there after a power cut only once its folder is on disk too."""
        if os.name == "posix":
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


class Budget:
    """What was spent and what requests under way may cost: together at most `limit` (None: no limit)."""

    def __init__(self, limit: float | None = None, spent: float = 0.0) -> None:
        self.limit, self.spent, self.held = limit, spent, 0.0
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
