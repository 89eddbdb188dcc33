"""Seals: lines of JSON that end with a digest of themselves, so that a changed byte is seen."""

from __future__ import annotations

import hashlib
import json
import re

from negdistill.checks import json_number

SEALED = "line_sha256"  # the last field of a sealed line
_SEAL = re.compile(rb', "line_sha256": "([0-9a-f]{64})"\}\s*\Z')


def seal(row: dict) -> bytes:
    """A line of JSON, in ASCII, that ends with the sha256 of what stands before."""
    text = json.dumps(row, default=json_number)[:-1].encode("ascii")
    return text + f', "{SEALED}": "{hashlib.sha256(text).hexdigest()}"}}\n'.encode("ascii")


def unseal(line: bytes) -> bytes:
    """The line without its seal, if it has one; ValueError where a byte of it has changed."""
    seal = _SEAL.search(line)
    if not seal:
        return line
    if hashlib.sha256(line[: seal.start()]).hexdigest().encode() != seal[1]:
        raise ValueError("the line is damaged: it is not the one that its line_sha256 was made of")
    return line[: seal.start()] + b"}"
