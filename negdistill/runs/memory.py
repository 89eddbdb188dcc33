"""Memory: what the C library keeps of freed blocks goes back to the system.

A training on a CPU frees hundreds of megabytes a step, of sizes that differ from step to step. glibc keeps
them in a heap that what is still in use splits into pieces, and takes new ones for the next step: a process
grows by gigabytes that nobody uses. Giving them back changes no number.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import cache

EVERY = 120.0  # seconds: a step after it takes a second longer, since pages are filled with zeros first
_last = 0.0


def give_back() -> None:
    """Hand freed memory to the system; nothing where the library cannot."""
    global _last
    _trim()(0)
    _last = time.monotonic()


def give_back_sometimes() -> None:
    """The same, at most once in EVERY seconds."""
    if time.monotonic() - _last >= EVERY:
        give_back()


@cache
def _trim() -> Callable[[int], object]:
    try:
        return ctypes.CDLL(None).malloc_trim  # glibc
    except (AttributeError, OSError, TypeError):
        return lambda kept: None
