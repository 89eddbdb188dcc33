r"""Reading: what an answer says, without the words, units and signs that may stand around it.

    answer --spelling.plain--> list | [name =] [lead] core [tail] --> Reading

    The total is 8 + 9 = **17 apples**.     number 17
    1.5\text{ million}, \$1\,500\,000       number 1500000
    x = 1\text{ or }x = -2                  list of the numbers 1 and -2
    3\sqrt{2}\text{ cm}                     formula 3\sqrt{2}, in cm
    HHT, no solution, at least 5            text

An equation stands for its value where the other sides are names or numbers (x = 5, 2 = x, 8 + 9 = 17) or the
last is a number, and for itself where it says more (7 = 11a + c).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from negdistill.data.rational import rational
from negdistill.data.spelling import plain
from negdistill.data.units import FACTORS, MEASURES

LENGTH = 2000  # characters; longer answers are taken as they are


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says.

    kind      "number": an exact value; "ratio": 2:3; "list": several; "text": words; "formula": all else
    form      number, list, formula: plain LaTeX; text: words in small letters
    value     of a number, else None
    items     of a list, in order              brackets  around a list, "" for none
    unit      a name in MEASURES or a modulus, "" for none or another
    places    significant digits of a number typed as a decimal fraction, else 0
    equation  the equation that the answer is typed as, "" for none; the form where it is no value of a name
    spelt     the whole answer in plain spelling, without spaces that LaTeX ignores
    """

    kind: str
    form: str
    value: Fraction | None = None
    items: tuple[Reading, ...] = ()
    brackets: str = ""
    unit: str = ""
    places: int = 0
    equation: str = ""
    spelt: str = ""


# --- words --------------------------------------------------------------------------------------------

_FUNCTION_WORDS = frozenset(
    "a an the of in is are was were be it its to for per on at by as he she they we you has have had will i so"
    " then there that this these those each my our us up all".split()
)
_STOPS = frozenset(  # what follows or precedes them changes the number
    "not no none neither nor or and less fewer greater more least most below above under over between than"
    " half quarter third one two three four five six seven eight nine ten twice double triple never cannot"
    " without except squared cubed factorial plus minus divided".split()
)
_AFTER = frozenset("less fewer more than over above below under least most one two three".split())  # 5 more apples
_CURRENCY = re.compile(
    r"(?:(?<![A-Za-z])(?:US|CA|AU|NZ|HK|SG|[ACR]))?(?:\\\$|\$)|[¢-¥฿₠-⃀]"
    r"|\\(?P<name>euro|EUR|pounds|textsterling|texteuro|textdollar|dollar|yen|textyen|cent|textcent)(?![A-Za-z])"
)
_SIGNS = {"euro": "€", "EUR": "€", "texteuro": "€", "pounds": "£", "textsterling": "£", "yen": "¥"}
_SIGNS |= {"textyen": "¥", "dollar": "$", "textdollar": "$", "cent": "¢", "textcent": "¢"}
_WORD = re.compile(
    rf"(?P<sign>{_CURRENCY.pattern})"
    r"|\\text\{(?P<text>[^{}]*)\}(?: ?\^ ?(?:\{[123]\}|[123]))?"
    r"|(?<![\\A-Za-z_^{])(?P<word>[^\W\d_]{2,}(?:['’.-][^\W\d_]{2,})*)(?![A-Za-z}])(?: ?\^ ?(?:\{[123]\}|[123]))?"
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
    return low in _FUNCTION_WORDS | _STOPS or (len(low) > 2 and bool(_VOWEL.search(low))) or len(low) > 4


def _words_in(mark: re.Match[str]) -> list[str]:
    """The words of a match, in small letters; none where its letters are variables."""
    if mark["sign"]:
        return [_SIGNS.get(mark["name"] or "", mark[0][-1])]
    if mark["word"]:
        low, text = mark["word"].lower(), mark.string
        before, after = text[: mark.start()], text[mark.end("word") :]
        return _WORDS.findall(low) if _is_word(low, before, after) else []
    return [word.rstrip(".") for word in _WORDS.findall((mark["text"] or mark["letter"] or "").lower())]


def _parts(text: str) -> tuple[list[str], str, list[str], bool]:
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
    r"|so the|so there|given that|if|provided)\b.*\Z"
)
_REMARK = re.compile(r"(?<=[\w}%]) ?\((?!mod|\\text\{ ?mod)(?=[^()]*[A-Za-z]{3})[^()\\=]*\)\Z")
_MODULUS = re.compile(r" ?\(?\\[bp]?mod ?\{?(\w+)\}?\)?\Z| ?\((?:\\text\{ ?)?mod ?\}? ?(\w+)\)\Z")
_TAIL_SIGN = re.compile(r"(?P<degree> ?(?:\^ ?\{? ?\\circ ?\}?|\\degree(?![A-Za-z])) ?(?:[CF]\b)?)\Z|(?P<percent> ?\\?%)\Z")
_START = re.compile(r"\A(?:[\s,;:&]|\\\\|(?:=|\\approx|\\equiv|\\therefore|\\Rightarrow|\\implies)(?![A-Za-z]) ?)+")
_END = re.compile(r"(?:[\s.,;:?]|(?<=[A-Za-z]{3})!|\\\\)+\Z")
_DECIMAL = re.compile(r"-?(\d*)\.(\d+)")
_BRACKETS = {"(": (")", "]"), "[": (")", "]"), r"\{": (r"\}",), r"\langle": (r"\rangle",)}


def _trimmed(text: str) -> str:
    """Without what ends a sentence, braces around all, and parentheses around a single letter."""
    while True:
        text = _START.sub("", _END.sub("", text)).strip()
        inner = text[1:-1]
        if text[:1] == "{" and text[-1:] == "}" and _depths(inner) is not None:
            text = inner
        elif re.fullmatch(r"\([A-Za-z]\)", text):
            text = inner
        else:
            return text


def _depths(text: str) -> list[int] | None:
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


def _split(text: str, pattern: re.Pattern[str]) -> list[str]:
    """The text, cut at the matches of a pattern outside all brackets."""
    outside = _depths(text)
    if outside is None:
        return [text]
    outside, pieces, at = set(outside), [], 0
    for mark in pattern.finditer(text):
        if mark.start() in outside:
            pieces.append(text[at : mark.start()])
            at = mark.end()
    return [*pieces, text[at:]]


# --- lists and equations ------------------------------------------------------------------------------

_EQUALS = re.compile(r"(?<![<>!:=\\])=(?!=)|\\equiv(?![A-Za-z])")
_RELATION = re.compile(r"[<>]|\\(?:l|g|n)e(?![A-Za-z])|\\in(?![A-Za-z])|\\(?:sub|sup)set")
_APPROX = re.compile(r"\\approx(?![A-Za-z])|\\simeq(?![A-Za-z])|~=")
_COMMA = re.compile(
    r" ?[,;] ?(?:(?:\\text\{ ?)?(?:and|or)\b ?\}?)?|\\text\{ ?,? ?(?:and|or) ?\}|(?<=[\w)}\]]) (?:and|or) (?=[\w\\(\[{+-])", re.IGNORECASE
)
_ELLIPSIS = re.compile(r"\\[lcdv]?dots[a-z]?(?![A-Za-z])|\.\.\.")
_UNENDING = re.compile(r"(?<=\d\.\d\d)(\d*) ?(?:\\l?dots|\.\.\.)\Z")
_RATIO = re.compile(r"\d ?: ?\d|\\colon")
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![A-Za-z])")
_GAP = re.compile(r"(?<=[\d.]) (?=\d)")
_NAME = re.compile(
    r"(?:[A-Za-z]|\\(?!frac|sqrt|binom|sin|cos|tan|log|ln|sum|int|prod|lim|infty|pi(?![a-z]))[a-z]+)"
    r"(?:_ ?(?:\w|\{[^{}]*\}))?'*(?:\^ ?\{(?:-1|\\circ)\})?(?: ?\([^()=]*\))?"
    r"|(?:m ?)?\\(?:angle|triangle|overline|vec|det|widehat|measuredangle|hat|bar) ?\{?[A-Z a-z]{1,5}\}?"
    r"|\|?[A-Z]{2,5}\|?|\[[A-Z]{3,6}\]|\([a-zA-Z](?: ?, ?[a-zA-Z])+\)"
)
_ASKED = re.compile(
    r"\(?[A-Za-z](?: ?[-+]? ?[A-Za-z])*\)?|\\(?:sin|cos|tan|cot|sec|csc|log|ln) ?(?:[A-Za-z]|\\[a-z]+(?: ?[A-Z]+)?|\([^()]*\))"
)


def _is_constant(text: str) -> bool:
    """Whether there are no variables in it."""
    return not re.search(r"[^\W\d_]", re.sub(r"\\[A-Za-z]+", "", _parts(text)[1]))


def _is_name(side: str) -> bool:
    if _NAME.fullmatch(side.strip()):
        return True
    lead, core, _, mixed = _parts(side)
    return bool(lead) and not mixed and (not core or bool(_NAME.fullmatch(core)))


def _equation(text: str) -> Reading | None:
    """The reading of one equation or chain of equations; None for all else."""
    sides = [side.strip() for side in _split(text, _EQUALS)]
    if len(sides) < 2 or not all(sides) or (len(sides) > 2 and len(_split(text, _COMMA)) > 1):
        return None
    if _is_name(sides[-1]) and not _is_name(sides[0]):  # 2 = x
        sides = sides[::-1]
    last = _list(sides[-1]) or _one(sides[-1])
    whole = re.sub(r"\\equiv(?![A-Za-z])", "=", text)
    asked = last.value and _ASKED.fullmatch(sides[0])  # a + b = 12, but not x + y = 0
    if _is_name(sides[0]) and not _is_name(sides[-1]) or asked:
        return replace(last, equation=whole)
    if all(map(_is_constant, sides)):
        return last
    return Reading("formula", whole, equation=whole)


def _unbracketed(text: str) -> tuple[str, str, str]:
    """A list without the brackets around all of it, and the brackets."""
    for opening, closings in _BRACKETS.items():
        for closing in closings:
            inner = text[len(opening) : len(text) - len(closing)]
            if text.startswith(opening) and text.endswith(closing) and _depths(inner) is not None:
                return inner, opening, closing
    return text, "", ""


def _list(text: str) -> Reading | None:
    """The reading of several answers; None for one."""
    inner, opening, closing = _unbracketed(text)
    pieces = [piece.strip() for piece in _split(inner, _COMMA)]
    if len(pieces) < 2 and opening != r"\{":
        return None
    items = tuple((_read if opening else read_plain)(piece) for piece in pieces if piece)
    if not opening and items and items[0].kind != "text" and all(one.kind == "text" for one in items[1:]):
        return items[0] if not _STOPS & set(items[1].form.split()) else None  # 31, all in all
    names = {one.equation.partition("=")[0].strip() for one in items}
    forms = [one.form if len(names) == 1 else one.equation or one.form for one in items]
    if len(names) > 1:
        items = tuple(replace(one, kind="formula", form=form, value=None) for one, form in zip(items, forms, strict=True))
    return Reading("list", opening + ", ".join(forms) + closing, items=items, brackets=opening + closing)


# --- one answer ---------------------------------------------------------------------------------------


def _text(text: str) -> Reading:
    """Words, in small letters and single spaces, without articles before them."""
    bare = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    bare = re.sub(r"[A-Za-z]{2,}", lambda word: word[0].lower(), bare)
    bare = " ".join(re.sub(r"[\"'“”{}]", "", bare).split()).strip(" .,;:!?")
    return Reading("text", re.sub(r"\A(?:the|a|an) (?=\w)", "", bare) or text)


def _ratio(text: str) -> Reading:
    """A ratio, a time of day, or a list with a gap in it, to be compared as it is spelt."""
    half = re.search(r" ?(?:\\text\{ ?)?([ap])\.? ?m\b\.? ?\}?\Z", text, re.IGNORECASE)
    bare = re.sub(r"(?<![\d.])0+(?=\d)", "", (text[: half.start()] if half else text).replace(" ", ""))
    two = re.fullmatch(r"(\d{1,9}):([1-9]\d{0,8})", bare)
    value = Fraction(int(two[1]), int(two[2])) if two and not half else None
    return Reading("ratio", bare, value, unit=f"{half[1].lower()}m" if half else "")


def _unit(tail: list[str], lead: list[str]) -> tuple[Fraction, str]:
    """The factor and the unit in the words after and before a number."""
    factor, rest = Fraction(1), list(tail)
    while rest and (rest[0] in FACTORS or (rest[0] in ("a", "of") and rest[1:2] and rest[1] in FACTORS)):
        factor *= FACTORS.get(rest.pop(0), Fraction(1))
    named = [word for word in (*lead[-1:], *rest[:2]) if word in MEASURES]
    return factor, named[0] if named else ""


def _one(text: str) -> Reading:
    """The reading of an answer that is no list and no equation."""
    text = _trimmed(text)
    sides = _split(text, _APPROX)
    if len(sides) == 2:  # \pi \approx 3.14 is \pi; x \approx 3.14 is 3.14
        return _one(sides[1] if _is_name(sides[0]) or not sides[0].strip() else sides[0])
    sign = _TAIL_SIGN.search(text)
    lead, core, tail, mixed = _parts(text[: sign.start()] if sign else text)
    if sign and not tail:
        tail = ["%" if sign["percent"] else "°"]
    if not core or mixed or _STOPS & set(lead) or (_STOPS - _AFTER) & set(tail[:4]) or _GAP.search(core) and rational(core) is None:
        return _text(text)
    if sign_inside := _TAIL_SIGN.search(core):  # 50% of them
        core, tail = core[: sign_inside.start()], ["%" if sign_inside["percent"] else "°", *tail]
    factor, unit = _unit(tail, lead)
    value = rational(core)
    if value is not None:
        digits = _DECIMAL.fullmatch(core.strip())
        places = len((digits[1] + digits[2]).lstrip("0")) if digits and factor == 1 else 0
        return Reading("number", core if factor == 1 else str(value * factor), value * factor, unit=unit, places=places)
    if (lead or tail) and not _is_constant(core) and not (unit and len(tail) <= 3 and not lead):
        return _text(text)
    if re.fullmatch(r"[A-Z]{2,}|[A-Z][a-z]+", core) or not re.search(r"[\w]", core):
        return _text(text)
    return Reading("formula", core if factor == 1 else rf"{factor} \cdot ({core})", unit=unit)


def _read(text: str) -> Reading:
    return _equation(text) or _list(text) or _one(text)


def read_plain(text: str) -> Reading:
    """The reading of an answer in plain spelling."""
    text = _trimmed(text)
    text = _UNENDING.sub(r"\1", text)
    if _ELLIPSIS.search(text) or _RATIO.search(text):
        return _ratio(text)
    for pattern, new in _EDITS:
        text = pattern.sub(new, text)
    text = _MONEY_SUFFIX.sub(lambda m: f"{m[1]} {_SUFFIXES[m[2].lower()]}", text)
    if re.search(r"\d", text):
        text = _trimmed(_REMARK.sub("", _CLAUSE.sub("", text)))
    modulus = _MODULUS.search(text)
    text = text[: modulus.start()].strip() if modulus and modulus.start() else text
    if len(_PLUS_MINUS.findall(text)) == 1 and len(_split(text, _COMMA)) == 1 and not _unbracketed(text)[1]:
        text = ", ".join(_PLUS_MINUS.sub(sign, text) for sign in ("+", "-"))
    found = _read(text)
    return replace(found, unit=f"mod {modulus[1] or modulus[2]}") if modulus else found


@lru_cache(maxsize=1 << 17)
def read(answer: str) -> Reading:
    """The reading of an answer as it is typed. Raises nothing for any text."""
    if len(answer) > LENGTH:
        return Reading("formula", answer, spelt=answer)
    text = plain(answer)
    if not _trimmed(text):
        return Reading("text", answer.strip(), spelt=answer.strip())
    return replace(read_plain(text), spelt=_GAP.sub("~", _trimmed(text)).replace(" ", ""))
