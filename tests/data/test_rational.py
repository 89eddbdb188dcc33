"""Rational: exact values against arithmetic on fractions, node by node."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negdistill.data.rational import rational

NUMBER = st.integers(0, 99).map(lambda n: (str(n), Fraction(n)))
DECIMAL = st.integers(0, 999).map(lambda n: (f"{n // 10}.{n % 10}", Fraction(n, 10)))


def joined(pair):
    """One larger expression out of two, in every notation, with its value."""
    (a, x), (b, y) = pair
    ways = [(f"({a}) + ({b})", x + y), (f"({a}) - {{{b}}}", x - y), (rf"({a}) \cdot ({b})", x * y)]
    ways += [(f"({a})({b})", x * y), (f"-({a}) + ({b})", y - x), (rf"({a}) \times -({b})", -x * y)]
    if y:
        ways += [(rf"\frac{{{a}}}{{{b}}}", x / y), (f"({a})/({b})", x / y), (rf"({a}) \div ({b})", x / y)]
    if x:
        ways += [(f"({a})^{{2}}", x**2), (f"({a})^{{-3}}", x**-3)]
    return st.sampled_from(ways)


EXPRESSION = st.recursive(NUMBER | DECIMAL, lambda part: st.tuples(part, part).flatmap(joined), max_leaves=6)


@given(EXPRESSION)
def test_equals_arithmetic_on_fractions(expression):
    text, value = expression
    assert rational(text) == value


@pytest.mark.parametrize(
    "text, value",
    [
        ("8 + 9 * 2", 26),
        ("8 - 3 - 2", 3),
        ("12/3/2", 2),
        ("-2^{2}", -4),
        ("2^{3^{2}}", 512),
        ("1 1/4", Fraction(5, 4)),
        ("-1 1/4", Fraction(-5, 4)),
        (r"3\frac{1}{2}", Fraction(7, 2)),
        (r"0.1\overline{6}", Fraction(1, 6)),
        ("5!", 120),
        (r"\binom{5}{2}", 10),
        ("1e16", 10**16),
    ],
)
def test_notations(text, value):
    assert rational(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "3 4",
        "2 3/2",
        r"2\frac{3}{2}",
        "1/0",
        "0^{0}",
        "0^{-1}",
        "(1",
        "1)",
        "2^{1/2}",
        "9^{9^{9}}",
        "99999!",
    ]
    + ["1.2.3", r"\sqrt{4}", "(" * 900, "-" * 999, "9" * 5000, "2^{99999999}", "1e99999", "1 +"],
)
def test_what_has_no_value_here(text):
    assert rational(text) is None
