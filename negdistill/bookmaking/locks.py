"""Locks: what one process makes at a time, and who comes second waits for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from negdistill.runs.files import remove


@contextmanager
def taking_turns(folder: Path, what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Within the block no other process makes something in the folder; who comes second says so, and waits.

    what  is made there, with its verb: "profile quick is"
    say   takes the line that says who is waited for
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / ".lock"), folder / ".holder"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            who = holder.read_text("utf-8")
        except FileNotFoundError:  # whoever holds the lock has not written it yet, or is just leaving
            who = "another process"
        say(f"{what} being made by {who}; waiting for it to end")
        lock.acquire()
    try:
        holder.write_text(f"process {os.getpid()} since {time.strftime('%H:%M')}", "utf-8")
        yield
    finally:
        remove(holder)
        lock.release()
