"""Named files: what the parameters of a notebook point at, so that a run is made again where it changed.

task="../mine.jsonl"  student="../student"  grading="module:function"     --contents-->  a digest by parameter
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from negdistill.runs.digests import digest_file, digest_json


def named_files(folder: Path, parameters: Mapping[str, object]) -> dict[str, str]:
    """Digests of the files and folders that parameters name, seen from `folder`, by parameter.

    Of a folder, which may hold a model of gigabytes, names, sizes and times are read, not the contents.
    """
    found = {}
    for parameter, value in parameters.items():
        texts = value if isinstance(value, list) else [value]
        there = [path for text in texts if isinstance(text, str) for path in _named(folder, text)]
        if there:
            found[parameter] = digest_json([_state(path) for path in there])
    return found


def _named(folder: Path, text: str) -> Iterator[Path]:
    """The file or folder of that name, and the module of "module:function"."""
    module, colon, _ = text.partition(":")
    for name in [text, f"{module.replace('.', os.sep)}.py"] if colon else [text]:
        try:
            if name and (folder / name).exists():
                yield folder / name
        except (OSError, ValueError):  # a text that no path can be
            pass


def _state(path: Path) -> object:
    if path.is_file():
        return digest_file(path)
    files = ((one, one.stat()) for one in sorted(path.rglob("*")) if one.is_file())
    return [[one.relative_to(path).as_posix(), state.st_size, state.st_mtime_ns] for one, state in files]
