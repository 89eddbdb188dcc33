"""PEFT, loaded without bitsandbytes unless a quantised base has brought that already.

PEFT imports bitsandbytes wherever it is installed. That takes seconds, and on processors with AVX512-BF16 it
logs a line on stderr about a kernel that nobody asked for. Only a quantised base needs it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

QUANTISER = "bitsandbytes"


def load_peft() -> ModuleType:
    """The package peft; what it is told of bitsandbytes is whether that is loaded by now."""
    loaded = sys.modules.get(QUANTISER) is not None
    if not loaded:
        sys.modules[QUANTISER] = None  # what importlib.util.find_spec reports as absent
    try:
        peft, asked = import_module("peft"), import_module("peft.import_utils")
        for available in (asked.is_bnb_available, asked.is_bnb_4bit_available):
            available.cache_clear()
            available()  # PEFT keeps the answer until it is cleared here again
    finally:
        if not loaded:
            del sys.modules[QUANTISER]
    return peft
