r"""math-verify behind a time limit: worker processes, a pool of them, and a cache of verdicts.

    verdicts(pairs)   memory -> cache file -> thread pool -> worker process
                                               [reference, answer]  --JSON line-->
                                                            verdict <--JSON line--

math-verify stops itself with an alarm signal, which only a main thread may set and which cannot interrupt a
single long computation such as 9^{9^{9^9}}. Here the worker is this file run as a script, so that threads and
scripts without a main guard do not matter, and before each pair it arms a POSIX timer of the system that
ends it after LIMIT seconds of processor time. Processor time, because a verdict must not depend on how busy
the machine is. A pair that exhausts its time, or makes its worker crash, counts as different. A worker that
somebody else ends, as the system does where memory is short, says nothing about its pair. Where a system has
no such timer (Windows), a worker is ended from outside, WALL seconds after the question.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path

from platformdirs import user_cache_path
from tqdm import tqdm

TOLERANCE = 1e-6  # of a number that is not known exactly
LIMIT = 1.0  # seconds of processor time for one pair
TIMER = hasattr(signal, "setitimer")
WALL = 10.0  # seconds for one pair where there is no TIMER
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
UNTIMED = "untimed"  # told to a worker that shall not set a timer
# how a pair ends its worker: out of time, or by a crash
_ENDS = ("SIGPROF", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")  # Windows has not all of them
ITS_OWN = [getattr(signal, name) for name in _ENDS if hasattr(signal, name)]

# --- pool ---------------------------------------------------------------------------------------------


class _Worker:
    """One process that answers one question at a time."""

    def __init__(self) -> None:
        # -P: the package's own folder is not an import path
        command = [sys.executable, "-P", __file__, *([] if TIMER else [UNTIMED])]
        self.late = False
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # an interrupt at the keyboard is for the caller alone
        )
        if not self.process.stdout.readline():
            self.close()
            raise RuntimeError(f"the math-verify worker does not start; {' '.join(command)} shows why")

    def ask(self, question: str) -> bool | None:
        """The verdict, or None when the process has died over it."""
        over = threading.Timer(WALL, self._end)
        try:
            if not TIMER:
                over.start()
            self.process.stdin.write(question.encode() + b"\n")
            self.process.stdin.flush()
            reply = self.process.stdout.readline()
        except BrokenPipeError:
            return None
        finally:
            if not TIMER:
                over.cancel()
                over.join()  # from here on it is known whether it came too late
        return json.loads(reply) if reply.endswith(b"\n") else None

    def _end(self) -> None:
        self.late = True
        self.process.kill()

    def close(self) -> int:
        """End the process; its exit code, negative for a signal."""
        with suppress(OSError):  # it died with a question unread
            self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait()


def _forget() -> None:
    """Start with no workers; a forked child must not share the pipes of its parent."""
    global _idle, _places
    _idle, _places = queue.LifoQueue(), threading.BoundedSemaphore(CORES)


def _stop() -> None:
    """End all idle workers."""
    while not _idle.empty():
        _idle.get().close()


_forget()
if hasattr(os, "register_at_fork"):  # there are no forks on Windows
    os.register_at_fork(after_in_child=_forget)
atexit.register(_stop)


def _ask(question: str) -> bool:
    """Put the question to an idle worker or a new one; a worker ended from outside is replaced once.

    RuntimeError where the second is ended from outside too: there is no verdict then.
    """
    with _places:
        for _ in range(2):
            try:
                worker = _idle.get_nowait()
            except queue.Empty:
                worker = _Worker()
            verdict = worker.ask(question)
            if verdict is not None:
                worker.close() if worker.late else _idle.put(worker)
                return verdict
            code = worker.close()
            if worker.late or code >= 0 or -code in ITS_OWN:  # out of time, or the pair made it crash
                return False
    raise RuntimeError(
        f"math-verify's worker was ended twice from outside, last by signal {-code}, while it compared "
        f"{question[:200]}; mostly memory is short: free some and run again; the verdicts before are kept"
    )


# --- cache --------------------------------------------------------------------------------------------

_memory: dict[str, bool] = {}


def cache_file() -> Path:
    """The file of verdicts: in the folder NEGDISTILL_CACHE, else in the user's cache folder."""
    return Path(os.environ.get("NEGDISTILL_CACHE") or user_cache_path("negdistill")) / "verdicts.sqlite"


@cache
def _engine() -> str:
    """What a verdict depends on beside the pair."""
    versions = (f"{name} {version(name)}" for name in ("math-verify", "latex2sympy2_extended", "sympy"))
    return ", ".join((*versions, f"{LIMIT} s", "no units, relative"))


def _with_table(work: Callable[[sqlite3.Connection], object]) -> None:
    """Do the work on the table of verdicts, in one transaction; warn where there is no table to be had."""
    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=60)) as table, table:
            table.execute(
                "CREATE TABLE IF NOT EXISTS verdicts"
                " (engine TEXT, pair TEXT, equal INTEGER, PRIMARY KEY (engine, pair)) WITHOUT ROWID"
            )
            work(table)
    except (OSError, sqlite3.Error) as error:
        warnings.warn(
            f"verdicts of math-verify are not kept: {path}: {error};"
            " delete the file or set NEGDISTILL_CACHE to a folder that can be written",
            stacklevel=2,
        )


def _recall(questions: list[str]) -> None:
    def work(table: sqlite3.Connection) -> None:
        query = "SELECT equal FROM verdicts WHERE engine = ? AND pair = ?"
        for question in questions:
            if row := table.execute(query, (_engine(), question)).fetchone():
                _memory[question] = bool(row[0])

    _with_table(work)


def _keep(found: dict[str, bool]) -> None:
    rows = [(_engine(), question, equal) for question, equal in found.items()]
    _with_table(lambda table: table.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?)", rows))


def verdicts(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bool]:
    """Whether math-verify holds (reference, answer) equal, for each pair; its equality is not symmetric.

    Pairs seen before come from memory or from `cache_file`, the others go to as many workers as there are
    processor cores. Any thread may call; so may several processes that share the file.
    """
    questions = {pair: json.dumps(pair) for pair in pairs}
    for look in (_recall, _settle):
        if missing := [question for question in questions.values() if question not in _memory]:
            look(missing)
    return {pair: _memory[question] for pair, question in questions.items()}


def _settle(questions: list[str]) -> None:
    """Ask the workers and keep the verdicts, a few hundred at a time, so that a kill loses little."""
    pool, fresh = ThreadPoolExecutor(CORES), {}
    replies = tqdm(
        pool.map(_ask, questions), "math-verify", len(questions), unit="pair", delay=2, disable=None
    )  # disable=None: no bar where stderr is not a terminal
    try:
        for question, verdict in zip(questions, replies, strict=True):
            _memory[question] = fresh[question] = verdict
            if len(fresh) == 256:
                _keep(fresh)
                fresh = {}
    finally:
        pool.shutdown(cancel_futures=True)
        if fresh:
            _keep(fresh)


# --- worker -------------------------------------------------------------------------------------------


def _near(one: list, other: list) -> bool:
    """Whether two constants are equal to TOLERANCE of their size; math-verify compares six places after the
    point, so that to it all small numbers are one. True for all else.
    """
    try:
        a, b = one[0].doit(), other[0].doit()
        if not (a.is_number and b.is_number and a.is_finite and b.is_finite):
            return True
        return bool(abs((a - b).evalf(30)) <= TOLERANCE * abs(b.evalf(30)))
    except (AttributeError, IndexError, TypeError, ValueError, NotImplementedError):
        return True  # no answer, a matrix, or what sympy cannot evaluate: math-verify's own verdict stands


def _serve() -> None:
    """Answer the questions of standard input one by one, until it is closed."""
    import logging

    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable()
    defaults = LatexExtractionConfig()
    spelling = replace(defaults.normalization_config, units=False)  # its units are letters too: 5c would be 5
    form = [replace(defaults, boxed_match_priority=0, normalization_config=spelling)]

    @lru_cache(maxsize=1024)
    def read(answer: str) -> list:
        return parse(rf"\boxed{{{answer}}}", form, parsing_timeout=None)

    timed = UNTIMED not in sys.argv
    read("1")  # builds the parser's tables, outside the time of any pair
    with os.fdopen(os.dup(1), "wb", buffering=0) as replies, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # libraries print what they like
        os.dup2(nowhere.fileno(), 2)
        if timed:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
        replies.write(b"ready\n")
        for line in sys.stdin.buffer:
            reference, answer = json.loads(line)
            if timed:
                signal.setitimer(signal.ITIMER_PROF, LIMIT)
            one, other = read(reference), read(answer)
            equal = verify(one, other, timeout_seconds=None) and _near(one, other)
            if timed:
                signal.setitimer(signal.ITIMER_PROF, 0)
            replies.write(json.dumps(bool(equal)).encode() + b"\n")


if __name__ == "__main__":
    _serve()
