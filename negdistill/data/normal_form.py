r"""Normal form: the convention by which answers to MATH (Hendrycks et al., 2021) are scored.

It evens out spelling, `\dfrac12` and `\frac{1}{2}`, and does not calculate. The paper's labels follow
from it.
"""

from __future__ import annotations

import re

_REWRITES = (
    ("\n", ""),
    (r"\!", ""),  # the space inside 10,\!000
    ("\\\\", "\\"),
    ("tfrac", "frac"),
    ("dfrac", "frac"),
    (r"\left", ""),
    (r"\right", ""),
    (r"^{\circ}", ""),
    (r"^\circ", ""),
    (r"\$", ""),
)
_UNIT = r"\text{ "  # in MATH the space after the brace marks a unit, as in 5\text{ cm}
_NO_RADICAND = re.compile(r"\\sqrt(?=\\sqrt|\Z)")
_BARE_RADICAND = re.compile(r"\\sqrt([^{])")
_SHORT_FRACTION = re.compile(r"\\frac([^{]?)(?=\\frac|\Z)")
_BARE_NUMERATOR = re.compile(r"\\frac([^{])(?=\{)")
_BARE_FRACTION = re.compile(r"\\frac([^{])([^{])")
_SLASH = re.compile(r"(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)")


def normalize(answer: str) -> str:
    r"""The MATH normal form of an answer: two answers are equal under "exact" where their forms are the same.

    In this order: line breaks, \!, \left, \right, degree signs and \$ go; tfrac and dfrac become frac; a unit
    such as \text{ cm} goes with all that follows; \% goes; .5 becomes 0.5; the left side of a short equation
    such as x=5 goes; \sqrt2 becomes \sqrt{2}; spaces go; \frac12 becomes \frac{1}{2}; 0.5 and a whole answer
    a/b become fractions. An answer with two units, or a root or fraction of nothing, is its own form.
    """
    text = answer
    for old, new in _REWRITES:
        text = text.replace(old, new)
    text, *units = text.split(_UNIT)
    if len(units) > 1:
        return answer
    text = text.replace(r"\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if text.startswith("."):
        text = "0" + text
    name, *values = text.split("=")
    if len(values) == 1 and len(name) <= 2:
        text = values[0]
    if _NO_RADICAND.search(text):
        return answer
    text = _BARE_RADICAND.sub(r"\\sqrt{\1}", text).replace(" ", "")
    short = _SHORT_FRACTION.search(text)
    if short and not short[1]:
        return answer
    if not short:
        text = _BARE_FRACTION.sub(r"\\frac{\1}{\2}", _BARE_NUMERATOR.sub(r"\\frac{\1}", text))
    if text == "0.5":
        return r"\frac{1}{2}"
    if slash := _SLASH.fullmatch(text):
        return rf"\frac{{{slash[1]}}}{{{slash[2]}}}"
    return text
