"""Code of one's own: modules that a name "module:Name" leads to, for methods, objectives and gradings.

A result follows from such a module and from those beside it, as it does from the package's own.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

from negdistill.runs.digests import INSIDE, PACKAGE, digest_code

_INSTALLED = tuple(
    {Path(path).resolve() for name, path in sysconfig.get_paths().items() if name.endswith("lib")}
)
_loaded: dict[tuple[str, str], tuple[object, str]] = {}  # what was imported, and the digest of then


def has_module(source: Path, module: str) -> bool:
    """Whether a module or package of that name lies in a folder."""
    place = source.joinpath(*module.split("."))
    return place.with_suffix(".py").is_file() or (place / INSIDE).is_file()


def digest_beside(source: Path, module: str) -> str:
    """sha256 of a module in the folder `source` and of those there that it imports in turn."""
    top, *below = module.split(".")
    is_package = below or (source / top / INSIDE).is_file()
    return digest_code(module, source=source, package=top if is_package else "")


def digest_own(thing: Callable | object, module: str, name: str) -> str:
    """sha256 of the module that a thing was imported from, and of those beside it that it imports in turn.

    "" for one without a file, such as a notebook, and for what is installed or of this package, which other
    digests and versions tell. ValueError where a file has changed since: Python still runs what it was.
    """
    file = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or file is None or module.partition(".")[0] == PACKAGE:
        return ""
    path = Path(file).resolve()
    if any(path.is_relative_to(folder) for folder in _INSTALLED):
        return ""
    above = len(module.split(".")) - (path.name != INSIDE)
    found = digest_beside(path.parents[above], module)
    before, first = _loaded.setdefault((module, name), (thing, found))
    if before is not thing:  # imported anew
        _loaded[module, name] = thing, found
    elif first != found:
        raise ValueError(
            f"{module}:{name} must be what its file says; {path}, or a module beside it, has changed since "
            "it was imported: restart Python"
        )
    return found
