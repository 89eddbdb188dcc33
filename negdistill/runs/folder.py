"""Artefacts: files that are whole or absent, and the manifest that says what they were made from.

    write    folder/.part-name  --fsync, rename-->  folder/name      all of it or nothing
    key      sha256(inputs, parameters)                              equal keys: the same work
    trust    manifest.json holds the sha256 of every artefact        absent from it or different: refused

A run folder is what a notebook or a training run leaves behind for the next one:

    run = RunFolder.start("../_runs/smoke/03_negative_adapter", parameters={"epochs": 4}, seed=0)
    with run.create("history.csv") as path:            # a file, or a folder such as a PEFT adapter
        history.to_csv(path)
    RunFolder.open("../_runs/smoke/03_negative_adapter").path("history.csv")   # verified
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from negdistill.checks import json_number
from negdistill.runs.digests import digest_file, digest_json, digest_tree
from negdistill.runs.files import atomic_path, atomic_write_text, remove

MANIFEST = "manifest.json"


# --- manifest -----------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of every package it requires."""
    try:
        lines = [line for line in requires("negdistill") if "extra ==" not in line]
        named = ["negdistill", *(re.match(r"[\w.-]+", line)[0] for line in lines)]
        found = {name: version(name) for name in named}
    except PackageNotFoundError:  # run from a source tree that was never installed
        found = {}
    return {"python": platform.python_version(), **found}


@cache
def machine() -> dict[str, object]:
    """The class of this machine: processor architecture, usable cores, GPU model; not which machine it is."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = None
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
        gpu = ", ".join(answer.stdout.split("\n")).strip(", ") or None if answer.returncode == 0 else None
    return {"cpu": platform.machine(), "cores": cores, "gpu": gpu}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a result was made from, and by what.

    inputs      sha256 of everything read, by name
    parameters  plain JSON values, by name
    seed        of all randomness, None where nothing is random
    artifacts   sha256 of everything written, by path relative to the run folder
    versions    of Python and packages
    machine     architecture, cores, GPU; of a notebook also peak_mib, the most memory it held
    seconds     wall time until the last artefact was written
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, object] = field(default_factory=dict)
    seed: int | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=versions)
    machine: Mapping[str, object] = field(default_factory=machine)
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """Equal keys: the same work, so that it need not be done again."""
        return digest_json([self.inputs, self.parameters])

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, row: object) -> Manifest:
        """The inverse of `to_dict`; ValueError where a field is missing, unknown or of another kind."""
        names = {field.name for field in fields(cls)}
        if not isinstance(row, dict) or set(row) != names:
            raise ValueError(f"a manifest has the fields {', '.join(sorted(names))}")
        for name in ("inputs", "parameters", "artifacts", "versions", "machine"):
            if not isinstance(row[name], dict):
                raise ValueError(f"{name} of a manifest must be a JSON object; got {row[name]!r}")
        seconds, seed = row["seconds"], row["seed"]
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise ValueError(f"seconds of a manifest must be a number; got {seconds!r}")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise ValueError(f"seed of a manifest must be a whole number or null; got {seed!r}")
        for name in ("inputs", "artifacts"):
            if wrong := [key for key, value in row[name].items() if not isinstance(value, str)]:
                raise ValueError(
                    f"{name} of a manifest must hold texts; {wrong[0]} is {row[name][wrong[0]]!r}"
                )
        return cls(**row)


# --- run folder ---------------------------------------------------------------------------------------


class RunFolder:
    """A folder of artefacts and the manifest that vouches for them. Make one with `start` or `open`."""

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder = folder
        self.manifest = manifest
        self._began = time.monotonic() - manifest.seconds

    @classmethod
    def start(
        cls,
        folder: str | Path,
        *,
        parameters: Mapping[str, object] | None = None,
        inputs: Mapping[str, str] | None = None,
        seed: int | None = None,
    ) -> RunFolder:
        """Begin a run: what an earlier one left in the folder is not trusted any more."""
        manifest = Manifest(parameters=dict(parameters or {}), inputs=dict(inputs or {}), seed=seed)
        digest_json(manifest.to_dict())
        run = cls(Path(folder), manifest)
        run._write()
        return run

    @classmethod
    def open(cls, folder: str | Path) -> RunFolder:
        """Read a run; FileNotFoundError where there is none, ValueError where its manifest is damaged."""
        path = Path(folder) / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f"no run in {folder}: run what makes it first (there is no {MANIFEST})")
        try:
            return cls(Path(folder), Manifest.from_dict(json.loads(path.read_text(encoding="utf-8"))))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); remove {folder} and run again") from error

    @classmethod
    def resume(cls, folder: str | Path, manifest: Manifest) -> RunFolder:
        """Go on with the run of these inputs and parameters, or start it where the folder holds no run.

        ValueError where the folder holds another run, or a damaged manifest.
        """
        if not (Path(folder) / MANIFEST).is_file():
            run = cls(Path(folder), manifest)
            run._write()
            return run
        run = cls.open(folder)
        there, here = ({**one.inputs, **one.parameters} for one in (run.manifest, manifest))
        require_same(folder, there, here)
        return run

    @contextmanager
    def create(self, name: str) -> Iterator[Path]:
        """Yield where to write artefact `name`, a file or a folder; recorded when the block ends well."""
        parts = Path(name).parts
        if not parts or any(part[0] in "./" for part in parts) or name == MANIFEST:
            raise ValueError(f"name must be a relative path, not hidden and not {MANIFEST}; got {name!r}")
        others = {key: value for key, value in self.manifest.artifacts.items() if not _within(key, name)}
        with atomic_path(self.folder / name) as temporary:
            yield temporary
            made = _digests(temporary, name)
        self.manifest = replace(self.manifest, artifacts={**others, **made})
        self._write()

    def discard(self, name: str) -> None:
        """Remove artefact `name`, a file or a folder; nothing happens where there is none."""
        kept = {key: value for key, value in self.manifest.artifacts.items() if not _within(key, name)}
        if len(kept) < len(self.manifest.artifacts):
            self.manifest = replace(self.manifest, artifacts=kept)
            self._write()
        remove(self.folder / name)

    def path(self, name: str) -> Path:
        """Path of artefact `name`, its checksums compared; ValueError where it is not as recorded."""
        recorded = {key: value for key, value in self.manifest.artifacts.items() if _within(key, name)}
        if not recorded:
            known = ", ".join(self.manifest.artifacts) or "nothing"
            raise ValueError(f"name must be an artefact of {self.folder}, which holds {known}; got {name!r}")
        path = self.folder / name
        present = _digests(path, name) if path.exists() else {}
        if wrong := {key for key, _ in recorded.items() ^ present.items()}:
            raise ValueError(
                f"{self.folder / min(wrong)} is not as {MANIFEST} recorded it; "
                f"remove {self.folder} and run again what made it"
            )
        return path

    def _write(self) -> None:
        self.manifest = replace(self.manifest, seconds=round(time.monotonic() - self._began, 3))
        text = json.dumps(self.manifest.to_dict(), indent=1, ensure_ascii=False, default=json_number)
        atomic_write_text(self.folder / MANIFEST, text + "\n")


def require_same(place: str | Path, there: Mapping[str, object], here: Mapping[str, object]) -> None:
    """ValueError unless what a run was begun with equals what it is asked for now, as JSON values."""
    differs = sorted(
        name for name in there.keys() | here.keys() if _plain(there.get(name)) != _plain(here.get(name))
    )
    if differs:
        raise ValueError(
            f"{place} belongs to another run: other {', '.join(differs)}; "
            "choose another folder, or remove it to start afresh"
        )


def _plain(value: object) -> object:
    return json.loads(json.dumps(value, default=json_number))  # a file has lists where memory has tuples


def _within(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}/")


def _digests(path: Path, name: str) -> dict[str, str]:
    if path.is_dir():
        return {f"{name}/{key}": value for key, value in digest_tree(path).items()}
    return {name: digest_file(path)}
