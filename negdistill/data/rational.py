r"""Rational: the exact value of a plain formula made of numbers, `\frac{2^{10}}{6} - 1`.

    sum      term (+|- term)*              term     [-|+] power ((*|/) power | power)*
    power    atom ^ whole number           atom     1.5, 1 1/4, 0.\overline{3}, 5!, \frac{}{}, \binom{}{}, ( )

Formulas are spelled as `spelling.plain` leaves them. Numbers of more than BITS bits are not worked out.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import comb, factorial

BITS = 1 << 17
LENGTH = 1000  # characters; longer formulas are not worked out
_TOKEN = re.compile(
    r"\s*(?:(?P<mixed>\d+ ?\\frac\{\d+\}\{\d+\}|\d+ \d+/\d+)(?![\d.])"
    r"|(?P<repeating>\d*\.\d*\\overline\{\d+\})"
    r"|(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4}(?!\d))?)"
    r"|(?P<sign>\\(?:frac|binom|cdot|times|div|ast)(?![A-Za-z])|[-+*/^!(){}\[\]]))"
)
_SAME = {r"\cdot": "*", r"\times": "*", r"\ast": "*", r"\div": "/", "[": "(", "]": ")", "{": "(", "}": ")"}
_PARTS = re.compile(r"(\d+)\D+(\d+)\D+(\d+)")


class _Unknown(ValueError):
    """What stands here is no rational number, or none that can be worked out."""


def _tokens(formula: str) -> list[str | Fraction]:
    found: list[str | Fraction] = []
    at = 0
    while at < len(formula.rstrip()):
        token = _TOKEN.match(formula, at)
        if token is None:
            raise _Unknown
        at = token.end()
        if token["sign"]:
            found.append(_SAME.get(token["sign"], token["sign"]))
            continue
        if found and isinstance(found[-1], Fraction):  # 3 4
            raise _Unknown
        found.append(_number(token))
    return found


def _number(token: re.Match[str]) -> Fraction:
    if token["mixed"]:
        whole, part, of = map(int, _PARTS.match(token["mixed"]).groups())
        if not 0 < part < of:  # 2\frac{3}{2} may be a product
            raise _Unknown
        return whole + Fraction(part, of)
    if token["repeating"]:
        head, _, period = token["repeating"].partition(r"\overline")
        places, period = len(head.partition(".")[2]), period.strip("{}")
        return Fraction(f"0{head}0") + Fraction(int(period), (10 ** len(period) - 1) * 10**places)
    return Fraction(token["number"])


class _Parser:
    """One pass over the tokens; every method reads what its name says and moves on."""

    def __init__(self, tokens: list[str | Fraction]) -> None:
        self.tokens, self.at = tokens, 0

    def next(self) -> str | Fraction:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        if self.next() not in wanted:
            return ""
        self.at += 1
        return str(self.tokens[self.at - 1])

    def sum(self) -> Fraction:
        value = self.term()
        while sign := self.take("+", "-"):
            value += self.term() if sign == "+" else -self.term()
        return value

    def term(self) -> Fraction:
        if sign := self.take("-", "+"):
            return -self.term() if sign == "-" else self.term()
        value = self.power()
        while True:
            if self.take("*"):
                value *= self.signed(self.power)
            elif self.take("/"):
                value = _divided(value, self.signed(self.power))
            elif isinstance(self.next(), Fraction) or self.next() in ("(", r"\frac", r"\binom"):
                if isinstance(self.next(), Fraction) and self.tokens[self.at - 1] != ")":
                    raise _Unknown
                value *= self.power()
            else:
                return _small(value)

    def signed(self, read) -> Fraction:
        return -read() if self.take("-") else read()

    def power(self) -> Fraction:
        value = self.atom()
        while self.take("!"):
            if value.denominator != 1 or not 0 <= value <= 5000:
                raise _Unknown
            value = Fraction(factorial(value.numerator))
        if not self.take("^"):
            return value
        exponent = self.signed(self.power)
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        if exponent.denominator != 1 or bits * abs(exponent) > BITS or (value == 0 and exponent <= 0):
            raise _Unknown
        return value**exponent.numerator

    def atom(self) -> Fraction:
        if isinstance(token := self.next(), Fraction):
            self.at += 1
            return token
        if self.take(r"\frac"):
            return _divided(self.group(), self.group())
        if self.take(r"\binom"):
            n, k = self.group(), self.group()
            if n.denominator != 1 or k.denominator != 1 or not 0 <= k <= n <= 5000:
                raise _Unknown
            return Fraction(comb(n.numerator, k.numerator))
        return self.group()

    def group(self) -> Fraction:
        if not self.take("("):
            raise _Unknown
        value = self.sum()
        if not self.take(")"):
            raise _Unknown
        return value


def _divided(value: Fraction, by: Fraction) -> Fraction:
    if by == 0:
        raise _Unknown
    return value / by


def _small(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > BITS:
        raise _Unknown
    return value


def rational(formula: str) -> Fraction | None:
    """The exact value of the formula, None where it has none or none that is worked out here."""
    if not formula or len(formula) > LENGTH:
        return None
    try:
        parser = _Parser(_tokens(formula))
        value = parser.sum()
    except (_Unknown, RecursionError):
        return None
    return value if parser.at == len(parser.tokens) else None
