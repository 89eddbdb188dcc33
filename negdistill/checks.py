"""Checks: arguments in one voice. The name, the rule, the value."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Integral, Real
from typing import TypeVar

T = TypeVar("T")
SHOWN = 100  # characters of a value in a message: a model writes pages of itself


def check_choice(parameter: str, value: object, allowed: Iterable[object]) -> None:
    """Raise the package's one wording of "not one of" (ValueError), with the choice that is nearest.

    Choices are quoted, since names such as "NAT, empty branch" hold a comma.
    """
    allowed = tuple(allowed)
    if value in allowed:
        return
    spelled = {str(choice).casefold(): choice for choice in allowed}
    near = get_close_matches(str(value).casefold(), spelled, n=1)
    hint = f"; did you mean {spelled[near[0]]!r}?" if near else ""
    raise ValueError(f"{parameter} must be one of {', '.join(map(repr, allowed))}; got {value!r}{hint}")


def check_type(parameter: str, value: object, kinds: type | tuple[type, ...], words: str) -> None:
    """TypeError unless a value is of one of the kinds; `words` say what it must be."""
    if not isinstance(value, kinds):
        said = repr(value).partition("\n")[0]
        said = said if len(said) <= SHOWN else f"{said[:SHOWN]}..."
        raise TypeError(f"{parameter} must be {words}; got {said}, a {type(value).__name__}")


def check_each(
    parameter: str, values: Iterable[T], kinds: type | tuple[type, ...], words: str
) -> tuple[T, ...]:
    """The values as a tuple; TypeError for a text or a single value, and for one of none of the kinds."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        check_type(parameter, values, (), words)
    values = tuple(values)
    for value in values:
        check_type(parameter, value, kinds, words)
    return values


def check_path(parameter: str, value: object) -> None:
    """TypeError unless a value is the path of a file or folder."""
    check_type(parameter, value, (str, os.PathLike), "a path, as a text or a Path")


def check_flag(parameter: str, value: object) -> None:
    """TypeError unless a value is True or False."""
    check_type(parameter, value, bool, "True or False")


def check_whole(parameter: str, value: object, low: int | None = None) -> None:
    """TypeError unless a value is a whole number, ValueError where it is below `low`."""
    if isinstance(value, bool):
        raise TypeError(f"{parameter} must be a whole number; got {value!r}, a bool")
    check_type(parameter, value, Integral, "a whole number")
    if low is not None and value < low:
        raise ValueError(f"{parameter} must be at least {low}; got {value}")


def check_number(
    parameter: str,
    value: object,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> None:
    """TypeError unless a value is a number, ValueError unless finite, in [low, high] and above `above`."""
    if isinstance(value, bool):
        raise TypeError(f"{parameter} must be a number; got {value!r}, a bool")
    check_type(parameter, value, Real, "a number")
    if not math.isfinite(value):
        raise ValueError(f"{parameter} must be finite; got {value}")
    if low is not None and high is not None and not low <= value <= high:
        raise ValueError(f"{parameter} must lie between {low} and {high}; got {value}")
    if low is not None and value < low:
        raise ValueError(f"{parameter} must be at least {low}; got {value}")
    if above is not None and value <= above:
        raise ValueError(f"{parameter} must be greater than {above}; got {value}")


def own_numbers(record: object, *names: str) -> None:
    """In the fields of a frozen record, numbers of NumPy's become Python's own: other libraries, which write
    them as JSON, take no others."""
    for name in names:
        object.__setattr__(record, name, json_number(getattr(record, name)))


def json_number(value: object) -> int | float:
    """A number of NumPy's, which the checks take, as JSON has it: `default` of `json.dumps`."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
