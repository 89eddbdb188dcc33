"""Checks: the one wording of "not one of these"."""

from __future__ import annotations

from collections.abc import Iterable


def check_choice(parameter: str, value: object, allowed: Iterable[object]) -> None:
    """Raise the package's one wording of "not one of" (ValueError)."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{parameter} must be one of {', '.join(map(str, allowed))}; got {value!r}")
