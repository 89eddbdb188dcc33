"""`make book` after the environment, alone and beside a process that keeps one core busy all the time.

    python benchmarks/book.py
    python benchmarks/book.py --profile smoke --jobs 1

Both times every chapter is run and every page rendered from nothing, in a copy of the clone; then both
commands are given once more, with nothing to do. Goals on two cores: 5 minutes alone, 9 beside a busy core,
and 10 s once more.

Writes book.json and book.md into --out (default: benchmarks/results).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from measuring import keep, provenance

from negdistill.bookmaking import planning

COMMANDS = ("run", "render")  # what `make book` does
MADE = (".venv", ".git", "_build", "_runs", "__pycache__", ".*_cache")  # in a clone, and not of it


@contextmanager
def busy_core(wanted: bool) -> Iterator[None]:
    """A process that does nothing but keep a core busy, as long as the block lasts."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def seconds_of(
    root: Path, profile: str, jobs: int | None, busy: bool, commands: Sequence[str] = COMMANDS
) -> dict[str, float]:
    """Wall seconds of every chapter of a clone, of each command, of all, and as `again` of all once more."""
    if planning.executed_folder(root, profile).is_relative_to(root / "book"):
        raise ValueError(f"profile must be one that the book does not show; got {profile!r}; take quick")
    with tempfile.TemporaryDirectory() as folder, busy_core(busy):
        clone = Path(folder) / "clone"
        shutil.copytree(root, clone, ignore=shutil.ignore_patterns(*MADE), symlinks=True)

        def seconds(command: str) -> float:
            line = [sys.executable, "-m", "negdistill", command, "--profile", profile]
            line += ["--jobs", str(jobs)] if command == "run" and jobs else []
            began = time.monotonic()
            subprocess.run(line, cwd=clone, check=True)
            return time.monotonic() - began

        took = {command: seconds(command) for command in commands}
        took |= {"all": sum(took.values()), "again": sum(seconds(command) for command in commands)}
        made = {job.name: planning.stored(job) for job in planning.plan(clone, profile)}
        return {name: one.seconds for name, one in made.items()} | took


def report(result: dict[str, object]) -> str:
    where, alone, beside = result["machine"], result["alone"], result["busy"]
    lines = [
        "# `make book` after the environment",
        "",
        f"{where['gpu'] or where['cpu']}, {where['cores']} cores, profile {result['parameters']['profile']}, "
        f"torch {result['versions'].get('torch', '')}. Wall time, s. Chapters are run side by side, so `run` "
        "takes less than their sum. `all` is `run` and `render`, `again` both once more.",
        "",
        "| | alone | beside a busy core |",
        "|---|---:|---:|",
        *(f"| {name} | {alone[name]:.0f} | {beside[name]:.0f} |" for name in alone),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--jobs", type=int, help="chapters at once (as `run` chooses)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args(arguments)
    root = planning.find_root(Path(__file__).parent)
    times = {
        name: seconds_of(root, chosen.profile, chosen.jobs, busy)
        for name, busy in (("alone", False), ("busy", True))
    }
    result = provenance(chosen) | times
    keep(result, report(result), chosen.out, "book")


if __name__ == "__main__":
    main()
