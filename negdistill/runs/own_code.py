"""Code of one's own: modules that a name "module:Name" leads to, for methods, objectives and gradings.

A result follows from such a module and from those beside it, as it does from the package's own.
"""

from __future__ import annotations

import sys
import sysconfig
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

from negdistill.runs.digests import INSIDE, PACKAGE, digest_code, digest_file, digest_json

INSTALLED = {"site-packages", "dist-packages"}
_PYTHON = Path(sysconfig.get_path("stdlib"))
_first: dict[tuple[str, str], tuple[object, str]] = {}  # code as it was loaded, and the digest of then


def has_module(source: Path, module: str) -> bool:
    """Whether a module or package of that name lies in a folder."""
    place = source.joinpath(*module.split("."))
    return place.with_suffix(".py").is_file() or (place / INSIDE).is_file()


def digest_beside(source: Path, module: str) -> str:
    """sha256 of a module in the folder `source` and of those there that it imports in turn."""
    return digest_code(module, source=source, package="")


def digest_own(thing: object, module: str, name: str) -> str:
    """sha256 of the module that a thing was imported from, and of those beside it that it imports in turn.

    Of an installed one its file and version count; "" for what has no file, as in a notebook, for Python's
    own and for this package, whose code other digests tell. ValueError where a file has changed since the
    first call: Python still runs what it was.
    """
    file = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or file is None or module.partition(".")[0] == PACKAGE:
        return ""
    path = Path(file).absolute()  # a link stays one: its name is what Python imports
    if INSTALLED & set(path.parts):
        return digest_json([digest_file(path), _versions(module.partition(".")[0])])
    if path.is_relative_to(_PYTHON):
        return ""
    parents = [*path.parents]
    source = parents[min(len(module.split(".")) - (path.name != INSIDE), len(parents) - 1)]
    found = digest_beside(source, module) if has_module(source, module) else digest_file(path)
    code = getattr(thing, "__code__", thing)  # of a closure the same each time it is made
    before, first = _first.setdefault((module, name), (code, found))
    if before is not code:  # loaded anew
        _first[module, name] = code, found
    elif first != found:
        raise ValueError(
            f"{module}:{name} must be what its file says; {path}, or a module beside it, has changed since "
            "it was imported: restart Python"
        )
    return found


@cache
def _versions(top: str) -> list[str]:
    return [f"{name} {version(name)}" for name in packages_distributions().get(top, ())]
