"""Named files: what the parameters of a notebook point at, so that a run is made again where it changed.

task="../mine.jsonl"  student="../student"  grading="module:function"     --contents-->  a digest by parameter
task="math"  teacher="tdg-gpt-4"     what lies in the data folder counts, too
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from negdistill.data.folders import data_folder
from negdistill.data.released import TDG
from negdistill.data.sources import PROBLEM_SETS
from negdistill.runs.digests import digest_file, digest_json
from negdistill.runs.own_code import digest_beside, has_module

GENERATED = "arithmetic"  # the task that needs no data
RELEASED = {*PROBLEM_SETS, *TDG} - {GENERATED}


def named_files(folder: Path, parameters: Mapping[str, object]) -> dict[str, str]:
    """Digests of the files and folders that parameters name, seen from `folder`, by parameter.

    Of a folder, which may hold a model of gigabytes, names, sizes and times are read, not the contents.
    """
    found = {}
    for parameter, value in parameters.items():
        there = [state for text in _texts(value) for state in _states(folder, text)]
        if there:
            found[parameter] = digest_json(there)
    return found


def reads_data(parameters: Mapping[str, object]) -> bool:
    """Whether a notebook reads the data folder: its task is no generated one, or it names a released set."""
    named = {text for value in parameters.values() for text in _texts(value)}
    return parameters.get("task", GENERATED) != GENERATED or not RELEASED.isdisjoint(named)


def data_at_hand() -> list[list]:
    """Names and sizes of what lies in the data folder: all scales but smoke use what is there."""
    folder = data_folder()
    paths = sorted(path for path in folder.glob("*/*") if path.name[0] != ".")
    sizes = (path.stat().st_size if path.is_file() else 0 for path in paths)
    return [[path.relative_to(folder).as_posix(), size] for path, size in zip(paths, sizes, strict=True)]


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, str)]


def _states(folder: Path, text: str) -> Iterator[object]:
    """Of the file or folder of that name, and of the module of "module:function"."""
    module, colon, _ = text.partition(":")
    try:
        if text and (folder / text).exists():
            yield _state(folder / text)
        if colon and module and has_module(folder, module):
            yield digest_beside(folder, module)
    except (OSError, ValueError):  # a text that no path can be
        pass


def _state(path: Path) -> object:
    if path.is_file():
        return digest_file(path)
    files = ((one, one.stat()) for one in sorted(path.rglob("*")) if one.is_file())
    return [[one.relative_to(path).as_posix(), state.st_size, state.st_mtime_ns] for one, state in files]
