r"""Choosing: the letter A to J that a text settles on.

    what it states, \boxed{B}   else the last of: X is right, option X   else (X)   else X at the very end

A letter that the text refuses, "not (A)", "over (A)", "A and B are wrong", is none of these, and neither is
one in an explanation of another, "(B), although (C) is close".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

SHORT = 40  # characters; a shorter text is an answer, not an argument

_LETTER = re.compile(
    r"[(\[]\s*(?P<bracketed>[A-Ja-j])\s*[)\]]"
    r"|(?:\b(?i:option|choice|answer)s?\b(?: is| must be)?[\s:*_]*|[选選][择擇項项]?[是为為:]?\s*)"
    r"[(\[]?(?P<named>[A-Ja-j])(?![\w'’])[)\]]?"
    r"|(?<![A-Za-z\\'’])(?P<bare>[A-J])(?![A-Za-z'’])",
)
_OTHER = r"(?:(?:option |choice )?(?:[(\[][A-Ja-j][)\]]|[A-J](?![A-Za-z'’])))"
_BEFORE = re.compile(  # not (A), over (A), ruled out options (A) and (B)
    r"(?:n['’]t|\b(?:not|nor|neither|never|without|rather than|instead of|unlike|except|than|over|cannot"
    r"|rul\w+ out|eliminat\w+|exclud\w+|reject\w*|discard\w*|dismiss\w*|prefer\w* \S+ to))"
    r"(?: be)?(?: both| either)?(?: the)?(?: options?| choices?| answers?)?"
    rf"(?:\s*{_OTHER},? (?:and|n?or)){{0,9}}\s*\Z",
    re.IGNORECASE,
)
_AFTER = re.compile(  # (A) is too small, A and B are wrong
    rf"[*_$}}]*(?:,?\s(?:(?:and|n?or) )?{_OTHER}[*_$}}]*){{0,9}}\s+(?:\w+ly\s+)?"
    r"(?:(?:is|are|was|were|seems?|looks?|(?:would|must|can|could) be)\s+(?:(?:\w+ly|both|all|also|just)\s+)*"
    r"(?:too|wrong|false|incorrect|not|untrue|invalid|impossible|ruled|eliminated|excluded|out)\b"
    r"|\w+n['’]t\b|(?:cannot|(?:can|does|do|did) not|fails?)\b)"
    r"|(?:选项|選項)?(?:是?错|是?錯|不)"
)
_RIGHT = re.compile(
    r"[*_$}\s]*(?:(?:is|must be|would be|should be|seems)\s+(?:\w+ly\s+)?(?:the\s+)?(?:only\s+|best\s+)?"
    r"(?:correct|right|true|best|answer)\b|(?:选项|選項)?是?(?:正确|正確|对|對))"
)
_GOES_ON = re.compile(
    r"\s+(?!(?:is|was|because|since|as|and|or|which|for|with|not|but|seems|would)\b)[a-z]|, for one\b"
)
_EXPLAINS = re.compile(r"\b(?:because|since|while|whereas|al?though|even (?:if|though))\b[^.!?\n。]*\Z")
_EITHER = re.compile(r"[\s,;/&*_()\[\]]*(?:\b(?:and|or)\b)?[\s*_]*(?:option\s|choice\s)?[\s*_()\[\]]*\Z")
_AT_THE_END = re.compile(r"(?<![A-Za-z\\'’])([A-J])[\s.。!)*_`$}]*\Z")
_AT_THE_START = re.compile(  # b. 4; B - Vitamin C
    r"[\s*_`]*([A-Ja-j])[\s*_`]*"
    r"(?:[.):][^\n]*|(?<=[A-HJ ])(?:,|[-–—]) (?!(?:and|or)\b)[A-Za-z]{2}[^\n.]*\.?)?\Z"
)


def _letter(found: re.Match[str]) -> str:
    return (found["bracketed"] or found["named"] or found["bare"]).upper()


def _refused(found: re.Match[str]) -> bool:
    text = found.string
    before = _BEFORE.search(text, max(0, found.start() - SHORT), found.start())
    return bool(before or _AFTER.match(text, found.end()))


def _mentions(text: str) -> list[re.Match[str]]:
    """Options that the text names, neither refused nor in an explanation; A and I may be words."""
    named: list[re.Match[str]] = []
    for found in _LETTER.finditer(text):
        word = not found["bracketed"] and _letter(found) in "AI" and _GOES_ON.match(text, found.end())
        aside = named and _EXPLAINS.search(text, named[-1].end(), found.start())
        if not (word or aside or _refused(found)):
            named.append(found)
    return named


def _stated(answer: str) -> str | None:
    """The option that an answer names; None where it names none, "" where it leaves it open between two."""
    bare = answer.strip(" *_`$.,:;{}")
    if re.fullmatch("[A-Ja-j]", bare):
        return bare.upper()
    named = _mentions(answer)
    named = [one for one in named if not one["bare"]] or named
    if not named:
        return None
    either = (
        len(named) > 1
        and _letter(named[0]) != _letter(named[1])
        and _EITHER.match(answer, named[0].end(), named[1].start())
    )
    return "" if either else _letter(named[0])


def choice(text: str, stated: Iterable[str | None]) -> str | None:
    """The letter, a capital, of a text that states these answers; None where it settles on none."""
    if start := _AT_THE_START.fullmatch(text.strip()):
        return start[1].upper()
    for said in stated:
        letter = _stated(said or "")
        if letter is not None:
            return letter or None
    short = _stated(text) if len(text) < SHORT else None
    if short == "":
        return None
    mentions = _mentions(text)
    options = [one for one in mentions if one["named"] or _RIGHT.match(text, one.end())]
    options = options or [one for one in mentions if one["bracketed"]]
    if options:
        return _letter(options[-1])
    end = _AT_THE_END.search(text)
    alone = end and any(one.start() <= end.start(1) < one.end() for one in mentions)
    return end[1] if alone and (end[1] != "I" or not text[: end.start()].strip()) else short


def spelt(text: str) -> str:
    r"""Letters of every width as plain ones, \(B\) as (B)."""
    return re.sub(r"\\([()])", r"\1", unicodedata.normalize("NFKC", text))
