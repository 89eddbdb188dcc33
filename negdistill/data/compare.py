r"""Compare: whether two answers mean the same, as far as that follows from their readings.

spelt alike            -> equal                  numbers  -> exactly
text                   -> word by word           lists    -> item by item, in order within ( ) and [ ]
units that contradict  -> different              all else -> undecided: `questions` for math-verify
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import gcd

from negdistill.data.normal_form import normalize
from negdistill.data.reading import Reading, read
from negdistill.data.units import MEASURES, scale

_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+")
PLACES = 6  # significant digits that a decimal fraction must have to stand for a number that has no end


def same(answer: str, reference: str) -> bool | None:
    """Whether two answers are equal; None where that takes algebra. The order of the two does not matter."""
    if answer == reference:
        return True
    one, other = read(answer), read(reference)
    if one.spelt == other.spelt:
        return True
    return same_reading(one, other)


def same_reading(one: Reading, other: Reading) -> bool | None:
    """`same` of two readings."""
    if "=" in (one.form + other.form) and one.kind != "list" != other.kind:
        # an equation is none of its sides
        return _same_formula(one.equation, other.equation) if one.equation and other.equation else False
    if one.equation and other.equation and {one.kind, other.kind} == {"number", "formula"}:
        return _same_formula(one.equation, other.equation)  # y = -x + 1 and x + y = 1
    if "list" in (one.kind, other.kind) and "number" in (one.kind, other.kind):
        several, single = (one, other) if one.kind == "list" else (other, one)
        return len(several.items) == 1 and same_reading(several.items[0], single)
    size = scale(one.unit, other.unit)
    if size is None:
        return False
    if one.value is not None and other.value is not None and not one.kind == other.kind == "ratio":
        return _same_number(one, other, size)
    if {one.kind, other.kind} == {"number", "ratio"}:  # 101 for 101_2: a base left out, as any unit may be
        return size == 1 and one.form.partition("_")[0] == other.form.partition("_")[0]
    if size != 1 or {"text", "ratio"} & {one.kind, other.kind}:
        return size == 1 and one.kind == other.kind and one.form == other.form
    if one.kind == other.kind == "list":
        return _same_list(one, other)
    return _same_formula(one.form, other.form)


def _same_number(one: Reading, other: Reading, size: Fraction) -> bool:
    if one.value * size == other.value:
        return True
    shares = [MEASURES.get(reading.unit.partition("|")[0], ("",))[0] == "share" for reading in (one, other)]
    if shares[0] != shares[1]:  # 50% is 50, and it is 1/2
        share, plain = (one, other) if shares[0] else (other, one)
        return share.value == 100 * plain.value
    return size == 1 and (_rounds(one, other.value) or _rounds(other, one.value))


def _rounds(decimal: Reading, value: Fraction) -> bool:
    """Whether 0.333333 is typed for a third: a decimal fraction of enough places for a number without end."""
    if decimal.places < PLACES:
        return False
    rest = value.denominator
    while (common := gcd(rest, 10)) > 1:
        rest //= common
    return rest > 1 and abs(decimal.value - value) * 2 * 10 ** len(decimal.form.partition(".")[2]) <= 1


def _same_list(one: Reading, other: Reading) -> bool | None:
    if len(one.items) != len(other.items):
        return False
    sets = ("", r"\{\}")
    if one.brackets != other.brackets and not (one.brackets in sets and other.brackets in sets):
        return None if {one.brackets, other.brackets} <= {"", "()", r"\langle\rangle"} else False
    pairs = zip(_items(one), _items(other), strict=True)
    found = [same_reading(*pair) for pair in pairs]
    if all(found):
        return True
    decided = all(item.kind in ("number", "text", "ratio") for item in (*one.items, *other.items))
    return False if decided else _same_formula(one.form, other.form)


def _items(reading: Reading) -> list[Reading]:
    """The items of a list, those of a set in an order of their own."""
    if reading.brackets not in ("", r"\{\}"):
        return list(reading.items)
    return sorted(reading.items, key=lambda item: (item.value is None, item.value or 0, item.form))


def _same_formula(one: str, other: str) -> bool | None:
    if normalize(one) == normalize(other):
        return True
    if (r"\pm" in one) != (r"\pm" in other) or one_number_differs(one, other):
        return False
    return None


def one_number_differs(one: str, other: str) -> bool:
    """Whether two formulas are alike but for the value of one number: then they are different."""
    if _NUMBER.sub("#", one).replace(" ", "") != _NUMBER.sub("#", other).replace(" ", ""):
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return sum(_digits(a) != _digits(b) for a, b in pairs) == 1


def _digits(number: str) -> tuple[str, str]:
    whole, _, part = number.partition(".")
    return whole.lstrip("0"), part.rstrip("0")


def questions(answer: str, reference: str) -> list[tuple[str, str]]:
    """What math-verify is asked about two answers that `same` cannot decide: pairs, one of them to be equal.

    Its equality depends on the order, so both orders are asked; of two equations the values come before the
    equations themselves, as y = 2x may be f(x) = 2x and x = y/2.
    """
    one, other = read(answer), read(reference)
    pairs = (
        [(one.form, other.form)] if one.kind == other.kind or not (one.equation and other.equation) else []
    )
    if one.equation and other.equation:
        pairs.append((one.equation, other.equation))
    ordered = dict.fromkeys(tuple(sorted(pair)) for pair in pairs)
    return [both for pair in ordered for both in (pair, pair[::-1])]
