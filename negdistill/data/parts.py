r"""Parts: the words, the mathematics and the signs of one answer in plain spelling.

about 3\sqrt{2}\text{ cm} in all   ->   about | 3\sqrt{2} | cm in all
"""

from __future__ import annotations

import re

from negdistill.data.units import FACTORS, MEASURES

# --- words --------------------------------------------------------------------------------------------

_FUNCTION_WORDS = frozenset(
    "a an the of in is are was were be it its to for per on at by as he she they we you has have had will i"
    " so then there that this these those each my our us up all sq cu".split()
)
STOPS = frozenset(  # what follows or precedes them changes the number
    "not no none neither nor or and less fewer greater more least most below above under over between than"
    " half quarter third one two three four five six seven eight nine ten twice double triple never cannot"
    " without except squared cubed factorial plus minus divided"
    " january february march april may june july august september october november december"
    " monday tuesday wednesday thursday friday saturday sunday".split()
)
AFTER = frozenset(
    "less fewer more than over above below under least most one two three".split()
)  # 5 more apples
_CURRENCY = re.compile(
    r"(?:(?<![A-Za-z])(?:US|CA|AU|NZ|HK|SG|[ACR]))?(?:\\\$|\$)|[¢-¥฿₠-⃀]"
    r"|\\(?P<name>euro|EUR|pounds|textsterling|texteuro|textdollar|dollar|yen|textyen|cent|textcent)(?![A-Za-z])"
)
_SIGNS = {"euro": "€", "EUR": "€", "texteuro": "€", "pounds": "£", "textsterling": "£", "yen": "¥"}
_SIGNS |= {"textyen": "¥", "dollar": "$", "textdollar": "$", "cent": "¢", "textcent": "¢"}
_WORD = re.compile(
    rf"(?P<sign>{_CURRENCY.pattern})"
    r"|\\text\{(?P<text>[^{}]*)\}(?: ?\^ ?(?:\{[123]\}|[123]))?"
    r"|(?<![\\A-Za-z_^{])(?P<word>[^\W\d_]{2,}(?:['’.-][^\W\d_]{2,})*)(?![A-Za-z}])"
    r"(?: ?\^ ?(?:\{[123]\}|[123]))?"
    r"|(?P<letter>[\u3040-\uffdc]|(?<=\d )[mgshL](?:/[mgshL])?(?: ?\^ ?(?:\{[123]\}|[123]))?(?=[ .]*\Z))"
)
_WORDS = re.compile(r"[^\W\d_]+(?:[.'’-][^\W\d_]+)*|[$¢-¥฿₠-⃀%]")
_VOWEL = re.compile(r"[aeiou]|[^\x00-\x7f]")


def _is_word(low: str, before: str, after: str) -> bool:
    """Whether letters are a word and not a product of variables; what stands beside them helps to tell."""
    if low in FACTORS or low in MEASURES or not low.isascii():
        return True
    if re.search(r"[\d^_(=]\Z|[*/+&-] ?\Z", before) or re.match(r"[(=]| ?[*+&^_]", after):
        return len(low) > 3 and before[-1:] not in ("^", "_")
    return low in _FUNCTION_WORDS | STOPS or (len(low) > 2 and bool(_VOWEL.search(low))) or len(low) > 4


def _words_in(mark: re.Match[str]) -> list[str]:
    """The words of a match, in small letters; none where its letters are variables."""
    if mark["sign"]:
        return [_SIGNS.get(mark["name"] or "", mark[0][-1])]
    if mark["word"]:
        low, text = mark["word"].lower(), mark.string
        before, after = text[: mark.start()], text[mark.end("word") :]
        return _WORDS.findall(low) if _is_word(low, before, after) else []
    return [word.rstrip(".") for word in _WORDS.findall((mark["text"] or mark["letter"] or "").lower())]


def parts(text: str) -> tuple[list[str], str, list[str], bool]:
    """Words before the mathematics, the mathematics, words after it, and whether it has words or digits
    within words in it.
    """
    pieces: list[tuple[list[str], str]] = []  # words, or a stretch of mathematics
    at, mixed = 0, False
    for mark in _WORD.finditer(text):
        if words := _words_in(mark):
            pieces += [([], text[at : mark.start()]), (words, "")]
            mixed = mixed or bool(re.search(r"\d", mark["text"] or ""))
            at = mark.end()
    pieces.append(([], text[at:]))
    there = [place for place, (_, piece) in enumerate(pieces) if piece.strip(" .,;:!?'\"()/-")]
    first, last = (there[0], there[-1]) if there else (len(pieces), len(pieces))
    lead = [word for words, _ in pieces[:first] for word in words]
    tail = [word for words, _ in pieces[last + 1 :] for word in words]
    mixed = mixed or first != last
    core = re.sub(r"\A[ .]+(?=[ \\+-])|\A[ ,;:'\"]+|[ ,;:'\"]+\Z", "", pieces[first][1] if there else "")
    return lead, core.rstrip("/- ") if tail else core.strip(), tail, mixed


# --- signs around a core ------------------------------------------------------------------------------

_EDITS = tuple(
    (re.compile(pattern, re.IGNORECASE), new)
    for pattern, new in (
        (r"(?<=\d) (?:\\text\{ ?)?and (?:a|one)[ -]half\b ?\}?", " 1/2 "),
        (r"(?<=\d) (?:\\text\{ ?)?and (?:a|one)[ -](?:quarter|fourth)\b ?\}?", " 1/4 "),
        (r"(?<=\d) (?:\\text\{ ?)?and three[ -](?:quarters|fourths)\b ?\}?", " 3/4 "),
        (r"(?<=\d) (?:\\text\{ ?)?and ?\}? ?(?=\d+/\d+(?![\d/])|\\frac\{\d+\}\{\d+\})", " "),
        (r"(?<![A-Za-z\\])(?:negative|minus) (?=[\d.\\$])", "-"),
        (r"(?<=\d)( ?(?:\\text\{ ?)?)([ap])\.? ?m\b\.?", r"\1 \2m"),
        (r"([-+]) ?((?:[A-Z]{0,2})(?:\\\$|[¢-¥฿₠-⃀])) ?(?=[\d.])", r"\2\1"),
        (r"(?<=\d)[ -]?(?:st|nd|rd|th)\b", " "),
        (r"(?<=\d)-(?=[A-Za-z]{3})", " "),
    )
)
_MONEY_SUFFIX = re.compile(r"((?:\\\$|[¢-¥฿₠-⃀]) ?[\d.]+) ?(k|K|m|M|b|B|bn|mn)\b")
_SUFFIXES = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion"}
_CLAUSE = re.compile(
    r"(?<=[\d})\w%])[,;]? (?:because|since|which|where|so that|hence|whereas|as there|as the|as it|as we|when"
    r"|so the|so there|given that)\b.*\Z"
)
_REMARK = re.compile(r"(?<=[\w}%]) ?\((?!mod|\\text\{ ?mod)(?=[^()]*[A-Za-z]{3})[^()\\=]*\)\Z")
MODULUS = re.compile(r" ?\(?\\[bp]?mod ?\{?(\w+)\}?\)?\Z| ?\((?:\\text\{ ?)?mod ?\}? ?(\w+)\)\Z")
TAIL_SIGN = re.compile(
    r"(?P<degree> ?(?:\^ ?\{? ?\\circ ?\}?|\\degree(?![A-Za-z])) ?(?:[CF]\b)?)\Z|(?P<percent> ?\\?%)\Z"
)
_START = re.compile(
    r"\A(?:[\s,;:&]|\\\\|(?:=|\\approx|\\equiv|\\therefore|\\Rightarrow|\\implies)(?![A-Za-z]) ?)+"
)
_END = re.compile(r"(?:[\s.,;:?]|(?<=[A-Za-z]{3})!|\\\\)+\Z")


def trimmed(text: str) -> str:
    """Without what ends a sentence, braces around all, and parentheses around a single letter."""
    while True:
        text = _START.sub("", _END.sub("", text)).strip()
        inner = text[1:-1]
        if text[:1] == "{" and text[-1:] == "}" and depths(inner) is not None:
            text = inner
        elif re.fullmatch(r"\([A-Za-z]\)", text):
            text = inner
        else:
            return text


def depths(text: str) -> list[int] | None:
    """Places at depth 0; None where brackets close that were never opened."""
    depth, places = 0, []
    for place, one in enumerate(text):
        if one in "([{":
            depth += 1
        elif one in ")]}":
            depth -= 1
            if depth < 0:
                return None
        elif depth == 0:
            places.append(place)
    return places if depth == 0 else None


def split(text: str, pattern: re.Pattern[str]) -> list[str]:
    """The text, cut at the matches of a pattern outside all brackets."""
    outside = depths(text)
    if outside is None:
        return [text]
    outside, pieces, at = set(outside), [], 0
    for mark in pattern.finditer(text):
        if mark.start() in outside:
            pieces.append(text[at : mark.start()])
            at = mark.end()
    return [*pieces, text[at:]]


def edited(text: str) -> str:
    """Numbers that are spelt with words, in digits: 2 and a half, negative 5, $1.5M, 9 a.m., 7th."""
    for pattern, new in _EDITS:
        text = pattern.sub(new, text)
    return _MONEY_SUFFIX.sub(lambda money: f"{money[1]} {_SUFFIXES[money[2].lower()]}", text)


def without_remarks(text: str) -> str:
    """Without a clause or a remark in parentheses that follows a number."""
    return trimmed(_REMARK.sub("", _CLAUSE.sub("", text))) if re.search(r"\d", text) else text
