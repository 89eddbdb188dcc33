"""The run step of `make book`, alone and beside a process that keeps one core busy all the time.

    python benchmarks/book.py
    python benchmarks/book.py --profile smoke --jobs 1

Both times every chapter is run from nothing, in a folder of its own with the notebooks and the package of the
clone. Goals on two cores: 5 minutes alone, with the render, and 9 beside a busy core.

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

LINKED = ("negdistill", "constraints.txt", "book", "tests")


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


def seconds_of(root: Path, profile: str, jobs: int | None, busy: bool) -> dict[str, float]:
    """Wall seconds of every chapter of a clone and, as `all`, of the whole command."""
    if planning.executed_folder(root, profile).is_relative_to(root / "book"):
        raise ValueError(f"profile must be one that the book does not show; got {profile!r}; take quick")
    command = [sys.executable, "-m", "negdistill", "run", "--profile", profile]
    command += [] if jobs is None else ["--jobs", str(jobs)]
    with tempfile.TemporaryDirectory() as folder, busy_core(busy):
        shutil.copytree(root / "notebooks", Path(folder) / "notebooks")
        for name in LINKED:
            (Path(folder) / name).symlink_to(root / name)
        began = time.monotonic()
        subprocess.run(command, cwd=folder, check=True)
        took = {"all": time.monotonic() - began}
        made = {job.name: planning.stored(job) for job in planning.plan(Path(folder), profile)}
        return took | {name: one.seconds for name, one in made.items()}


def report(result: dict[str, object]) -> str:
    where, alone, beside = result["machine"], result["alone"], result["busy"]
    lines = [
        "# Running the chapters",
        "",
        f"{where['gpu'] or where['cpu']}, {where['cores']} cores, profile {result['parameters']['profile']}, "
        f"torch {result['versions'].get('torch', '')}. Wall time, s; chapters run side by side.",
        "",
        "| chapter | alone | beside a busy core |",
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
