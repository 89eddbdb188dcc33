"""Folders: where the data sets lie, plain or packed, and what to type where they do not."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Where `python -m negdistill data get` writes."""
    return Path(platformdirs.user_cache_dir("negdistill", appauthor=False)) / "data"


def data_folder(data_dir: str | Path | None = None) -> Path:
    """The folder to read, absolute: the argument, else NEGDISTILL_DATA, else the user's cache."""
    return Path(data_dir or os.environ.get("NEGDISTILL_DATA") or cache_folder()).expanduser().absolute()


def locate(folder: Path, path: str) -> Path | None:
    """File or folder `path` of a data folder, plain or packed; None where it is missing."""
    candidates = (folder / f"{path}{packing}" for packing in ("", ".gz", ".tar.xz", ".tar.gz"))
    return next((candidate for candidate in candidates if candidate.exists()), None)


def find(folder: Path, name: str, path: str) -> Path:
    """As `locate`; FileNotFoundError, saying what to type, where it is missing."""
    if found := locate(folder, path):
        return found
    raise FileNotFoundError(
        f"{name} needs {path}, which is not in {folder}; type `python -m negdistill data get {name}` to "
        f"fetch it into {cache_folder()}, or set NEGDISTILL_DATA (or data_dir) to a folder that has it"
    )
