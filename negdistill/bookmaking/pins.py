"""Pins: the versions in constraints.txt that a result depends on."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from negdistill.runs.digests import PACKAGE, digest_json


def digest_pins(path: Path) -> str:
    """sha256 of the lines of a constraints file that pin what the package requires, at first or second hand.

    What only builds pages or runs tests changes no result.
    """
    lines = [line for line in path.read_text("utf-8").splitlines() if line and line[0] != "#"]
    needed = _required()
    return digest_json([line for line in lines if canonicalize_name(Requirement(line).name) in needed])


@lru_cache(maxsize=1)
def _required() -> frozenset[str]:
    """Names of the distributions that the package requires without any extra, and that those require."""
    found: set[str] = set()
    todo = [PACKAGE]
    while todo:
        for text in requires(todo.pop()) or []:
            requirement = Requirement(text)
            name = canonicalize_name(requirement.name)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and name not in found:
                found.add(name)
                todo.append(name)
    return frozenset(found)
