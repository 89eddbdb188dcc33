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

import hashlib
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

MANIFEST = "manifest.json"
PART = ".part-"  # prefix of what is being written; never read, overwritten by the next attempt

# --- digests ------------------------------------------------------------------------------------------


def digest_text(text: str) -> str:
    """sha256 of the UTF-8 bytes, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: str | Path) -> str:
    """sha256 of a file's bytes, as `sha256sum` prints it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: object) -> str:
    """sha256 of a value of JSON's types, whatever the order of its keys; ValueError for other types."""
    try:
        return digest_text(json.dumps(value, sort_keys=True, ensure_ascii=False))
    except TypeError as error:
        raise ValueError(f"inputs and parameters must be of JSON's types to be recorded: {error}") from error


def digest_tree(folder: str | Path) -> dict[str, str]:
    """Digest of every file under a folder by its relative path; hidden files and bytecode do not count."""
    folder = Path(folder)
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    kept = (path for path in paths if not any(part[0] == "." or part == "__pycache__" for part in path.parts))
    return {path.as_posix(): digest_file(folder / path) for path in sorted(kept)}


# --- atomic writes ------------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there takes its place when the block ends well.

    The block may write a file or a folder; the temporary path has the same suffix and does not exist yet.
    When the block raises or is killed, `path` is as it was. A folder that is replaced is gone for an instant.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(PART + path.name)
    remove(temporary)
    try:
        yield temporary
        if not temporary.exists():
            raise FileNotFoundError(f"nothing was written for {path}: write to the path given to the block")
        for part in temporary.rglob("*") if temporary.is_dir() else [temporary]:
            if part.is_file():
                with open(part, "rb+") as file:
                    os.fsync(file.fileno())
        if path.is_dir() or temporary.is_dir():
            remove(path)
        os.replace(temporary, path)
    finally:
        remove(temporary)


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file all at once: a reader sees the old content or the new one, never a part."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: str | Path, text: str) -> None:
    """As `atomic_write_bytes`, in UTF-8."""
    atomic_write_bytes(path, text.encode())


def remove(path: str | Path) -> None:
    """Remove a file or a whole folder; nothing happens where there is none."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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

    def path(self, name: str) -> Path:
        """Path of artefact `name`, its checksums compared; ValueError where it is not as recorded."""
        recorded = {key: value for key, value in self.manifest.artifacts.items() if _within(key, name)}
        if not recorded:
            known = ", ".join(self.manifest.artifacts) or "nothing"
            raise ValueError(f"name must be an artefact of {self.folder}, which holds {known}; got {name!r}")
        path = self.folder / name
        present = _digests(path, name) if path.exists() else {}
        if wrong := {key for key, _ in recorded.items() ^ present.items()}:
            raise ValueError(f"{self.folder / min(wrong)} is not as {MANIFEST} recorded it; make it again")
        return path

    def _write(self) -> None:
        self.manifest = replace(self.manifest, seconds=round(time.monotonic() - self._began, 3))
        text = json.dumps(self.manifest.to_dict(), indent=1, ensure_ascii=False)
        atomic_write_text(self.folder / MANIFEST, text + "\n")


def _within(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}/")


def _digests(path: Path, name: str) -> dict[str, str]:
    if path.is_dir():
        return {f"{name}/{key}": value for key, value in digest_tree(path).items()}
    return {name: digest_file(path)}
