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

from negdistill.data.parts import (
    AFTER,
    MODULUS,
    STOPS,
    TAIL_SIGN,
    depths,
    edited,
    in_digits,
    parts,
    split,
    trimmed,
    without_remarks,
)
from negdistill.data.rational import rational
from negdistill.data.spelling import plain
from negdistill.data.units import FACTORS, MEASURES, NUMERALS, unit

LENGTH = 2000  # characters; longer answers are taken as they are
LONG = 10_000  # bits of a number; Python prints no more than 4,300 digits


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says.

    kind      "number": an exact value; "ratio": 2:3, 101_2; "list": several; "text": words; "formula": else
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


# --- lists and equations ------------------------------------------------------------------------------

_EQUALS = re.compile(r"(?<![<>:=\\])=(?!=)|\\equiv(?![A-Za-z])")
_COMMAND = re.compile(r"\\(?:begin|end)\{\w+\}|\\[A-Za-z]+")
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|cis)(?![A-Za-z])")
_DECIMAL = re.compile(r"-?(\d*)\.(\d+)")
_BRACKETS = {"(": (")", "]"), "[": (")", "]"), r"\{": (r"\}",), r"\langle": (r"\rangle",)}
_APPROX = re.compile(r"\\approx(?![A-Za-z])|\\simeq(?![A-Za-z])|~=")
_COMMA = re.compile(
    r" ?[,;] ?(?:(?:\\text\{ ?)?(?:and|or)\b ?\}?)?|\\text\{ ?,? ?(?:and|or) ?\}"
    r"|(?<=[\w)}\]]) (?:and|or) (?=[\w\\(\[{+-])",
    re.IGNORECASE,
)
_ELLIPSIS = re.compile(r"\\[lcdv]?dots[a-z]?(?![A-Za-z])|\.\.\.")
_DOTS = r" ?(?:\\l?dots|\.\.\.?)\Z"
_UNENDING = re.compile(rf"(?<=\d\.\d\d)(\d*){_DOTS}")
_PERIOD = re.compile(r"(?<=\d\.)(\d*)(?:\((\d+)\)|\\dot ?\{?(\d)\}?)\Z")
_REPEATING = re.compile(rf"(?<=\d\.)(\d{{0,20}}?)(?:(\d{{1,5}}?)\2\2+|(\d{{6,40}}?)\3+){_DOTS}")
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
    r"\(?[A-Za-z](?: ?[-+]? ?[A-Za-z])*\)?"
    r"|\\(?:sin|cos|tan|cot|sec|csc|log|ln) ?(?:[A-Za-z]|\\[a-z]+(?: ?[A-Z]+)?|\([^()]*\))"
)


def _is_constant(text: str) -> bool:
    """Whether there are no variables in it."""
    return not re.search(r"[^\W\d_]", _COMMAND.sub("", parts(text)[1]))


def _is_name(side: str) -> bool:
    if _NAME.fullmatch(side.strip()):
        return True
    lead, core, _, mixed = parts(side)
    return bool(lead) and not mixed and (not core or bool(_NAME.fullmatch(core)))


def _equation(text: str) -> Reading | None:
    """The reading of one equation or chain of equations; None for all else."""
    sides = [side.strip() for side in split(text, _EQUALS)]
    if len(sides) < 2 or not all(sides) or (len(sides) > 2 and len(split(text, _COMMA)) > 1):
        return None
    if _is_name(sides[-1]) and not _is_name(sides[0]):  # 2 = x
        sides = sides[::-1]
    last = _list(sides[-1]) or _one(sides[-1])
    whole = re.sub(r"\\equiv(?![A-Za-z])", "=", text)
    asked = last.value and _ASKED.fullmatch(sides[0])  # a + b = 12, but not x + y = 0
    if _is_name(sides[0]) and not _is_name(sides[-1]) or asked:
        return replace(last, equation=whole)
    matrices = all(r"\begin" in side for side in sides)
    if all(map(_is_constant, sides[-1:] if matrices else sides)):  # worked out
        return last
    return Reading("formula", whole, equation=whole)


def _unbracketed(text: str) -> tuple[str, str, str]:
    """A list without the brackets around all of it, and the brackets."""
    for opening, closings in _BRACKETS.items():
        for closing in closings:
            inner = text[len(opening) : len(text) - len(closing)]
            if text.startswith(opening) and text.endswith(closing) and depths(inner) is not None:
                return inner, opening, closing
    return text, "", ""


def _is_long(value: Fraction) -> bool:
    """Whether Python does not print a number."""
    return max(value.numerator.bit_length(), value.denominator.bit_length()) > LONG


def _total(items: tuple[Reading, ...]) -> Reading | None:
    """3 hours and 30 minutes as one number, in the first of its units."""
    kinds, sizes = (
        zip(*(MEASURES.get(one.unit, ("", Fraction(0))) for one in items), strict=True) if items else ((), ())
    )
    if len(set(kinds)) != 1 or "" in kinds or len(set(sizes)) < len(sizes):
        return None
    if any(one.value is None for one in items):
        return None
    value = sum(one.value * size for one, size in zip(items, sizes, strict=True)) / sizes[0]
    if _is_long(value):
        return None
    return Reading("number", str(value), value, unit=items[0].unit)


def _list(text: str) -> Reading | None:
    """The reading of several answers; None for one."""
    inner, opening, closing = _unbracketed(text)
    pieces = [piece.strip() for piece in split(inner, _COMMA)]
    if len(pieces) < 2 and opening != r"\{":
        return None
    items = tuple((_read if opening else read_plain)(piece) for piece in pieces if piece)
    if not opening and len(items) == 1:  # beside nothing: 2,
        return items[0]
    if not opening and items and items[0].kind != "text" and all(one.kind == "text" for one in items[1:]):
        return items[0] if not STOPS & set(items[1].form.split()) else None  # 31, all in all
    if total := _total(items if not opening else ()):
        return total
    names = {one.equation.partition("=")[0].strip() for one in items}
    forms = [one.form if len(names) == 1 else one.equation or one.form for one in items]
    if len(names) > 1:
        items = tuple(
            replace(one, kind="formula", form=form, value=None)
            for one, form in zip(items, forms, strict=True)
        )
    left = f"{opening} " if opening[-1:].isalpha() else opening  # \\langle 1
    return Reading("list", left + ", ".join(forms) + closing, items=items, brackets=opening + closing)


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


_BASED = re.compile(  # 101_2, 101_{two}, (101)_2, 101 base 2
    r"\(?(\d[\dA-F]*)\)?(?: ?_ ?\{? ?(?:\\text\{)?(?: ?base )?| ?(?:\\text\{ ?|\()?(?:in )?base ?\}? ?)"
    r"(\d+|[a-z]+)[ })]*"
)


def _in_base(text: str) -> Reading | None:
    """A numeral of another base than ten: of one digit a number, else compared as it is spelt."""
    based = _BASED.fullmatch(text)
    base = str(NUMERALS.get(based[2], based[2])) if based else ""
    if not base.isdecimal():
        return None
    digits = based[1].lstrip("0")
    if int(base) == 10 or (len(digits) < 2 and digits.isdecimal()):
        return _one(based[1])
    return Reading("ratio", f"{digits}_{{{int(base)}}}")


def _unit(tail: list[str], lead: list[str]) -> tuple[Fraction, str]:
    """The factor and the unit in the words after and before a number."""
    factor, rest = Fraction(1), list(tail)
    while rest and (rest[0] in FACTORS or (rest[0] in ("a", "of") and rest[1:2] and rest[1] in FACTORS)):
        factor *= FACTORS.get(rest.pop(0), Fraction(1))
    return factor, unit(lead, rest)


def _one(text: str) -> Reading:
    """The reading of an answer that is no list and no equation."""
    text = trimmed(text)
    if based := _in_base(text):
        return based
    text = in_digits(text)
    sides = split(text, _APPROX)
    if len(sides) == 2:  # \pi \approx 3.14 is \pi; x \approx 3.14 is 3.14
        return _one(sides[1] if _is_name(sides[0]) or not sides[0].strip() else sides[0])
    lead, core, tail, mixed = parts(text)
    if (sign := TAIL_SIGN.search(core)) and not _FUNCTION.search(core):
        core, tail = (
            core[: sign.start()],
            (["%"] if sign["percent"] else ["°", *filter(None, [sign["side"]])]) + tail,
        )
    if not core or mixed or STOPS & set(lead) or (STOPS - AFTER) & set(tail[:4]):
        return _text(text)
    factor, measure = _unit(tail, lead)
    if (value := rational(core)) is not None:
        digits = _DECIMAL.fullmatch(core.strip())
        places = len((digits[1] + digits[2]).lstrip("0")) if digits and factor == 1 else 0
        form = core if factor == 1 or _is_long(value * factor) else str(value * factor)
        return Reading("number", form, value * factor, unit=measure, places=places)
    if _GAP.search(core):  # 3 4
        return _text(text)
    if (lead or tail) and not _is_constant(core) and not (measure and len(tail) <= 3 and not lead):
        return _text(text)
    if re.fullmatch(r"[A-Z]{2,}|[A-Z][a-z]+", core) or not re.search(r"[\w]", core):
        return _text(text)
    return Reading("formula", core if factor == 1 else rf"{factor} \cdot ({core})", unit=measure)


def _read(text: str) -> Reading:
    return _equation(text) or _list(text) or _one(text)


def read_plain(text: str) -> Reading:
    """The reading of an answer in plain spelling."""
    text = _REPEATING.sub(r"\1\\overline{\2\3}", _PERIOD.sub(r"\1\\overline{\2\3}", text.rstrip()))
    text = trimmed(_UNENDING.sub(r"\1", text))
    if _ELLIPSIS.search(text) or _RATIO.search(text):
        return _ratio(text)
    text = without_remarks(edited(text))
    modulus = MODULUS.search(text)
    text = text[: modulus.start()].strip() if modulus and modulus.start() else text
    if len(_PLUS_MINUS.findall(text)) == 1 and len(split(text, _COMMA)) == 1 and not _unbracketed(text)[1]:
        text = ", ".join(_PLUS_MINUS.sub(sign, text) for sign in ("+", "-"))
    found = _read(text)
    return replace(found, unit=f"mod {modulus[1] or modulus[2]}") if modulus else found


_OPTION = re.compile(  # \textbf{(E) }12, the mark of an option beside its content
    r"\A\s*\\text\w*\{\s*\(?[A-J][).]+[\\ ]*\}(?:[\s~.:]|\\[ ,;])*(?=[\w\\${(+-])"
    r"|(?<=[^\s])(?:[\s~]|\\[ ,;])*\\text\w*\{\s*\([A-J]\)\s*\}\s*\Z"
)


@lru_cache(maxsize=1 << 17)
def read(answer: str) -> Reading:
    """The reading of an answer as it is typed. Raises nothing for any text."""
    if len(answer) > LENGTH:
        return Reading("formula", answer, spelt=answer)
    text = plain(_OPTION.sub("", answer) or answer)
    if not trimmed(text):
        return Reading("text", answer.strip(), spelt=answer.strip())
    try:
        found = read_plain(text)
    except RecursionError:  # hundreds of brackets in each other
        found = Reading("formula", text)
    return replace(found, spelt=_GAP.sub("~", trimmed(text)).replace(" ", ""))
