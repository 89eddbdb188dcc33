"""Masking: a key is cut out of whatever a server says, in the spellings in which servers quote it.

sk-a/b    sk-a\\/b    sk-a%2Fb    sk-a\\u002fb    sk-a&sol;b    c2stYS9i    736b2d612f62    -->    ***
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from html.entities import html5

SHORTEST = 6  # characters; what is shorter is a placeholder such as "EMPTY", and a word that answers may hold
MASK = "***"


def masker(key: str) -> Callable[[str], str]:
    """A function that replaces the key by *** in a text: plain, URL-encoded, escaped, in base64 or in hex."""
    if len(key) < SHORTEST:
        return lambda text: text
    found = re.compile("|".join((f"(?i:{_spelled(key)})", *_base64(key), f"(?i:{key.encode().hex()})")))
    return lambda text: found.sub(MASK, text)


def _spelled(places: Iterable[str]) -> str:
    """One of the characters of each place, in any mix of spellings; JSON may write \\/ for /."""
    return r"\\?" + r"\\*".join(f"(?:{'|'.join(map(_one, place))})" for place in places)


@cache
def _one(character: str) -> str:
    """As it is, as %41 or %2541, as \\u0041 or \\x41, as &#65;, &#x41;, &amp; or &amp;amp;."""
    number, code = ord(character), f"{ord(character):x}"
    names = "".join(f"|{name}" for name, meant in html5.items() if meant == character and name[-1] == ";")
    html = rf"(?:&|(?<=\\)u0026)(?:amp;)*(?:#0*{number};|#x0*{code};{names})"  # u0026: so JSON may write &
    return rf"(?i:{html}|%(?:25)*{code}|(?<=\\)[ux]0*{code})|{re.escape(character)}"


def _base64(key: str) -> Iterator[str]:
    """What every base64 text shows that holds the key, at whichever of three places it begins."""
    for start in range(3):
        text = base64.b64encode(bytes(start) + key.encode()).decode().rstrip("=")
        first = (0, 2, 3)[start]  # before, bits of another character stand beside bits of the key
        last = len(text) - ((start + len(key.encode())) % 3 > 0)
        yield _spelled({"+": "+-", "/": "/_"}.get(one, one) for one in text[first:last])
