"""Masking: a key is cut out of whatever a server says, in the spellings in which servers quote it.

sk-a+b    sk-a%2Bb    sk\\u002da+b    &#115;k-a+b    c2stYStiIA==    736b2d612b62    -->    ***
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator

SHORTEST = 6  # characters; what is shorter is a placeholder such as "EMPTY", and a word that answers may hold
MASK = "***"


def masker(key: str) -> Callable[[str], str]:
    """A function that replaces the key by *** in a text: plain, URL-encoded, escaped, in base64 or in hex."""
    if len(key) < SHORTEST:
        return lambda text: text
    found = re.compile("|".join((f"(?i:{_spelled(key)})", *_base64(key), f"(?i:{key.encode().hex()})")))
    return lambda text: found.sub(MASK, text)


def _spelled(key: str) -> str:
    """Each character as it is, as %41 (also encoded twice), as \\u0041, as &#65; or &#x41;."""
    return "".join(
        rf"(?:{re.escape(one)}|%(?:25)*(?i:{ord(one):02x})|\\+[uU](?i:{ord(one):04x})"
        rf"|\\+x(?i:{ord(one):02x})|&\#0*{ord(one)};|&\#[xX]0*(?i:{ord(one):x});)"
        for one in key
    )


def _base64(key: str) -> Iterator[str]:
    """What every base64 text shows that holds the key, at whichever of three places it begins."""
    for start in range(3):
        text = base64.b64encode(bytes(start) + key.encode()).decode().rstrip("=")
        first = (0, 2, 3)[start]  # before, bits of another character stand beside bits of the key
        last = len(text) - ((start + len(key.encode())) % 3 > 0)
        yield "".join({"+": "[+-]", "/": "[/_]"}.get(one, one) for one in text[first:last])
