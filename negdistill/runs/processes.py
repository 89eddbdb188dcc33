"""Processes: those that `accelerate launch` or torchrun started together, and the folder that they fill.

    process 0   folder/              what it makes, and in the end what all of them made
    process k   folder/process-k/    what it makes, a run folder of its own until process 0 collects it

Every process has to come to every step here; one that stays away keeps the others waiting. A process alone is
process 0. What a killed run left is collected by the next one, whatever the number of its processes.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import gather_object
from filelock import FileLock, Timeout

from negdistill.runs.files import remove
from negdistill.runs.folder import MANIFEST, Manifest, RunFolder

T = TypeVar("T")
PART = re.compile(r"process-\d+")
SILENT = 1.0  # seconds of waiting that nobody is told of


def processes() -> Accelerator:
    """The processes that run together; unlike PartialState, Accelerator knows of `--cpu`.

    A process has one mixed precision, which a caller may have chosen with an Accelerator of their own. Ours
    takes it as it is, and neither wraps a forward pass nor scales a loss. Over how many steps a caller's own
    gathers gradients is one number of a process, too, which making ours would set to 1.
    """
    theirs = GradientState._shared_state.get("plugin_kwargs")
    ours = Accelerator(mixed_precision=None if AcceleratorState._shared_state else "no")
    ours.native_amp, ours.scaler = False, None
    if theirs is not None:
        ours.gradient_state.plugin_kwargs = theirs
    return ours


def shard(work: Sequence[T]) -> list[T]:
    """The part of the work that is this process's: every so many-th, so that sorted work is shared evenly."""
    here = processes()
    return list(work[here.process_index :: here.num_processes])


def all_gather(made: list[T]) -> list[T]:
    """The lists of all processes as one, in the order of the processes."""
    return gather_object(made)


@contextmanager
def held(folder: Path | None) -> Iterator[None]:
    """Within the block no other run works in the folder; None: there is none to hold.

    Where another run works there, wait for it, and say so; what it made is then found. Who holds the folder
    may hold it again within. Of processes that were started together the main one holds it for all.
    """
    if folder is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", is_singleton=True)
    if processes().is_main_process:
        try:
            lock.acquire(timeout=SILENT)
        except Timeout:
            warnings.warn(f"{folder} is being made by another process; waiting for it", stacklevel=3)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def resumed(folder: Path, manifest: Manifest) -> RunFolder:
    """What a run that was interrupted left, or a new folder; the main process alone writes there."""
    here = processes()
    run = RunFolder.resume(folder, manifest) if here.is_main_process else RunFolder(folder, manifest)
    here.wait_for_everyone()
    return run


class SharedFolder:
    """One run folder for all processes.

    run  what was there when they began, the same in each
    own  where this process writes: artefacts of names that no other process uses
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """manifest  of this work. ValueError where a folder holds another run."""
        here = processes()
        self.manifest = manifest
        with here.main_process_first():  # one starts it and collects what was left, then all read the same
            self.run = RunFolder.resume(folder, manifest)
            if here.is_main_process:
                self._collect()
        here.wait_for_everyone()  # all have looked before one writes
        self.own = self.run
        if not here.is_main_process:
            self.own = RunFolder.resume(self._part(here.process_index), manifest)

    def collect(self) -> RunFolder:
        """The folder with what all processes made, once they all came here."""
        here = processes()
        here.wait_for_everyone()
        if here.is_main_process:
            self._collect()
        here.wait_for_everyone()
        if not here.is_main_process:
            self.run = RunFolder.open(self.run.folder)
        return self.run

    def clear(self) -> None:
        """Remove what the other processes made."""
        for part in self._parts():
            remove(part)

    def _part(self, index: int) -> Path:
        return self.run.folder / f"process-{index}"

    def _parts(self) -> list[Path]:
        """Those folders alone that other processes made, whatever else lies there."""
        found = self.run.folder.glob("process-*")
        return sorted(one for one in found if PART.fullmatch(one.name) and (one / MANIFEST).is_file())

    def _collect(self) -> None:
        for part in self._parts():
            made = RunFolder.resume(part, self.manifest)
            for name in made.manifest.artifacts:
                with self.run.create(name) as path:
                    shutil.copyfile(made.path(name), path)
            remove(part)
