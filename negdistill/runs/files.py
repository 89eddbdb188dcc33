"""Files: written all at once or not at all.

write    folder/.part-name  --fsync, rename-->  folder/name
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part-"  # prefix of what is being written; never read, overwritten by the next attempt


# --- atomic writes ------------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there takes its place when the block ends well.

    The block may write a file or a folder; the temporary path has the same suffix and does not exist yet.
    When the block raises or is killed, `path` is as it was. A folder that is replaced is gone for an instant.
    A folder gives way to a folder alone: ValueError for a file in its place, and for a path without a name.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise ValueError(f"path must end with a name of its own; got {str(path)!r}")
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
        if path.is_dir() and not temporary.is_dir():
            raise ValueError(f"{path} is a folder, where a file was to be written; choose another name")
        if temporary.is_dir():
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
