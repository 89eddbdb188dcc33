"""Folders that tests work in."""

from collections.abc import Mapping
from pathlib import Path


def write_files(root: Path, texts: Mapping[str, str]) -> None:
    """Write each text below the root, with the folders that it needs."""
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
