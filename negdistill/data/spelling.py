r"""Spelling: the many ways to type one formula, brought to one.

    4√65, 4\sqrt{65}, 4 sqrt(65)      ->  4 \sqrt{65}           ½, \dfrac12        ->  \frac{1}{2}
    9{,}500, 9\,500, 9 500, ９,500    ->  9500                   **31**, $31$       ->  31
    −5, –5                            ->  -5                     \mathrm{cm}        ->  \text{cm}

Nothing is calculated here, and no word is lost. What is left is plain LaTeX in ASCII where the answer is
mathematics, with single spaces and without marks of emphasis, delimiters of formulas, boxes and sizes.
"""

from __future__ import annotations

import re
import unicodedata

# --- characters ---------------------------------------------------------------------------------------

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau"
    " upsilon phi chi psi omega"
).split()
_CHARACTERS = {
    **dict.fromkeys("−–‐‑‒—―﹣－", "-"),
    **dict.fromkeys("×✕✖", r"\times "),
    **dict.fromkeys("·⋅∙", r"\cdot "),
    **dict.fromkeys("÷∕⁄", "/"),
    **dict.fromkeys("°º˚", r"^\circ "),
    **dict.fromkeys("≤⩽", r"\le "),
    **dict.fromkeys("≥⩾", r"\ge "),
    **dict.fromkeys("“”„«»", '"'),
    **dict.fromkeys("‘’‚′", "'"),
    **dict.fromkeys("。．｡", "."),
    **dict.fromkeys("，、､", ","),
    **dict.fromkeys("✓✔✅", ""),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f", ""),
    **dict.fromkeys("→⇒⟶⟹➔➜➡", r"\to "),
    "∞": r"\infty ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "≡": r"\equiv ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "∠": r"\angle ",
    "∖": r"\setminus ",
    "…": r"\ldots ",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}",
    "℃": r"^\circ C",
    "℉": r"^\circ F",
    "ϕ": r"\phi ",
    "ς": r"\sigma ",
    "µ": r"\mu ",
} | {
    unicodedata.lookup(f"GREEK {case} LETTER {name.replace('lambda', 'lamda')}".upper()): rf"\{spelt} "
    for name in _GREEK
    for case, spelt in (("small", name), ("capital", name.capitalize()))
}
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n", strict=True))
_RAISED_RUN = re.compile(f"[{''.join(_RAISED)}]+")
_LOWERED_RUN = re.compile(f"[{''.join(_LOWERED)}]+")
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[A-Za-z]|)")
_DEGREES = {"√": "", "∛": "[3]", "∜": "[4]"}


def _character(one: str) -> str:
    if one.isascii():
        return one
    if one in _CHARACTERS:
        return _CHARACTERS[one]
    flat = unicodedata.normalize("NFKC", one)
    if "\N{FRACTION SLASH}" in flat:  # ½
        return r"\frac{{{}}}{{{}}}".format(*flat.split("\N{FRACTION SLASH}"))
    if one.isdecimal():
        return str(unicodedata.decimal(one))
    return _CHARACTERS.get(flat, flat)


def _ascii(text: str) -> str:
    """Mathematics that is typed in Unicode as LaTeX; letters of other scripts stay."""
    if text.isascii():
        return text
    text = _RAISED_RUN.sub(lambda run: f"^{{{''.join(map(_RAISED.get, run[0]))}}}", text)
    text = _LOWERED_RUN.sub(lambda run: f"_{{{''.join(map(_LOWERED.get, run[0]))}}}", text)
    text = _ROOT.sub(lambda root: rf"\sqrt{_DEGREES[root[1]]}" + (f"{{{root[2]}}}" if root[2] else ""), text)
    return "".join(map(_character, text))


# --- marks around formulas ----------------------------------------------------------------------------

_EMPHASIS = re.compile(r"(?<![\w)\]}*`])(\*{1,3}|__|`{1,3})(?=[^\s*`])(.+?)(?<=[^\s*`])\1(?![\w(\[{*`])")
_EDGES = re.compile(r"\A[\s*`]+|(?:[\s*`]|(?<![\w}])__)+\Z|(?<=\w\.)__?\Z")
_QUOTED = re.compile(r"\A([\"'])([^\"']*)\1\Z|\A_{1,2}([^_]*)_{1,2}\Z")
_DOLLARS = re.compile(r"(?<!\\)\$\$?")
_PARENTHESES = re.compile(r"(?<!\\)\\[()]")
_BRACKETS = re.compile(r"\A\s*\\\[|\\\][\s.]*\Z")
_NO_SIGN = re.compile(  # commands that change how a formula looks
    r"\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|rm|bf|it|sf|tt"
    r"|large|Large|LARGE|huge|Huge|small|normalsize|boldmath|mathstrut|strut|cal)(?![A-Za-z])"
)
_EMPTY_SIDE = re.compile(r"\\(?:left|right)\.")
_COLOR = re.compile(r"\\(?:color|textcolor)\{[^{}]*\}")
_SPACE = re.compile(
    r"(?<!\\)\\(?:[,;:> ]|(?:q?quad|(?:en|thin|med|thick)space)(?![A-Za-z])|[hv]space\*?\{[^{}]*\})|~|\s+"
)
_TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up|sc)?|emph|mathrm|mathbf|mathit|mathsf|mathtt|mathnormal|mbox|hbox"
    r"|bm|boldsymbol|operatorname|underline|boxed|fbox)\*?\s*(?=\{)"
)
_PLAIN_CONTENT = re.compile(
    r"\\text\{((?:[^{}A-Za-z\u3040-\uffff]|\\[A-Za-z]+|\{[^{}]*\})*|\s*\(?[A-Za-z]\)?\s*)\}"
)


def _money(text: str) -> str:
    """A dollar sign that is money becomes \\$, those around formulas go."""
    signs = list(_DOLLARS.finditer(text))
    if not signs:
        return text
    one_formula = len(signs) == 2 and signs[0].start() == 0 and signs[1].end() == len(text)
    before_numbers = all(text[sign.end() :][:1].isdecimal() for sign in signs)
    if one_formula or not (before_numbers or len(signs) % 2):
        return _DOLLARS.sub(" ", text)
    first, rest = signs[0], text[signs[0].end() :]
    return text[: first.start()] + r"\$" + _DOLLARS.sub(r"\\$" if before_numbers else "", rest)


def _bare(text: str) -> str:
    """Without emphasis, delimiters of formulas and sizes; a currency $ becomes \\$."""
    text = _EMPHASIS.sub(r"\2", _TAGGED.sub(lambda tag: tag[2] or tag[3] or "", text))
    text = _EDGES.sub("", text)
    if quoted := _QUOTED.match(text):
        text = quoted[2] or quoted[3] or ""
    text = _money(text)
    return _BRACKETS.sub("", _PARENTHESES.sub(" ", text))


# --- commands -----------------------------------------------------------------------------------------

_ARGUMENT = r"(?:\s*(\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}|\\[A-Za-z]+|[0-9A-Za-z]))"
_TWO_BARE = re.compile(r"\\(frac|binom)(?![A-Za-z])" + _ARGUMENT + _ARGUMENT)
_ROOT_BARE = re.compile(r"\\sqrt\s*(\[[^\[\]]*\])?\s*(\\[A-Za-z]+|[0-9A-Za-z])")
_ROOT_TYPED = re.compile(r"\\sqrt\s*(\[[^\[\]]*\])?\s*\(((?:[^()]|\([^()]*\))*)\)")
_POWER_TYPED = re.compile(r"\^\s*(-?\d+(?:\.\d+)?)(?![\d}])")
_INDEX_TYPED = re.compile(r"_ ?(\d+)")
_POWER_BRACKET = re.compile(r"\^\s*\((-?[\w/+*-]+)\)")
_TYPED = "sqrt|infinity|infty|pi|arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|log|ln"
_WORDS_TYPED = re.compile(
    rf"(?<![\\A-Za-z{{])({_TYPED}|{'|'.join(name for name in _GREEK if len(name) > 3)})"
    r"(?![A-Za-z}])(?=\s*[({^\\/*+\d)-]|\s*\Z|\s[a-z\d]\b)"
)
_TYPED_OTHERWISE = (
    *((rf"\{size}{name}", rf"\{name}") for name in ("frac", "binom") for size in "dtc"),
    *((rf"\{sign}{ending}", rf"\{sign}") for sign in ("le", "ge") for ending in ("qslant", "q")),
    *((r"\neq", r"\ne"), ("<=", r"\le "), (">=", r"\ge "), (" != ", r" \ne ")),
)
_CLOSES = re.compile(r" ?(?:\^ ?\{? ?\\circ ?\}?)? ?[)\]]")
_SAID = re.compile(r"\\text\{([^{}]*\d[^{}]*)\}")  # \text{31 cm}
_TAGGED = re.compile(r"<(\w+)>(.*?)</\1>|\A<([^<>,;|]*\d[^<>,;|]*)>\Z", re.DOTALL)
_TIMES = re.compile(r"(?<=[\d})])( ?)[xX]\1(?=\\?\$?\d|\\frac|\(\d)")
_VARIABLE_X = re.compile(r"(?<![A-Za-z\\])[xX](?![A-Za-z]| ?=)")
_UNIT_LETTER = re.compile(r"\s*[mgshL]\s*")
_COMMA = re.compile(r"\{\s*([,.])\s*\}|,\\!|\\!,")
_GROUPS = re.compile(r"(?<![\d.,'])(?<!\d )(\d{1,3})((?:,\d{3})+|(?:[' ]\d{3})+)(?![\d'])(?!,\d)")
_CONTINENTAL = re.compile(r"(?<![\d.,])(\d{1,3})((?:\.\d{3})+)(,\d{1,2})?(?![\d,]|\.\d)")


def _continental(number: re.Match[str]) -> str:
    """1.234.567 and 1.234,50, but not 1.234, which may be a decimal fraction."""
    if not number[3] and number[2].count(".") < 2:
        return number[0]
    return number[1] + number[2].replace(".", "") + (number[3] or "").replace(",", ".")


def _unwrapped(text: re.Match[str]) -> str:
    r"""The content of a \text{...} without words; a letter that is a unit stays in it."""
    return text[0] if text.start() and _UNIT_LETTER.fullmatch(text[1]) else f" {text[1]} "


def _grouped(number: re.Match[str]) -> str:
    text = number.string
    if text[number.start() - 1 : number.start()] in ("(", "[") and _CLOSES.match(text, number.end()):
        return number[0]  # a point or an interval
    return number[1] + re.sub(r"\D", "", number[2])


def _times(text: str) -> str:
    """5 x 6 is a product, unless x is a variable there."""
    product = _TIMES.sub(r"\\times ", text)
    return text if _VARIABLE_X.search(product) else product


def _said(text: str) -> str:
    r"""\text{31 cm} without its frame, where all digits are in such frames."""
    return text if re.search(r"(?<!\^)(?<!\^\{)\d", _SAID.sub("", text)) else _SAID.sub(r" \1 ", text)


def _braced(argument: str) -> str:
    return argument if argument.startswith("{") else f"{{{argument}}}"


def _commands(text: str) -> str:
    text = _TWO_BARE.sub(lambda two: rf"\{two[1]}{_braced(two[2])}{_braced(two[3])}", text)
    text = _WORDS_TYPED.sub(lambda word: "\\" + {"infinity": "infty"}.get(word[1], word[1]), text)
    text = _ROOT_TYPED.sub(r"\\sqrt\1{\2}", text)
    text = _ROOT_BARE.sub(r"\\sqrt\1{\2}", text)
    text = _POWER_BRACKET.sub(r"^{\1}", text.replace("**", "^"))
    return _INDEX_TYPED.sub(r"_{\1}", _POWER_TYPED.sub(r"^{\1}", text))


def plain(text: str) -> str:
    r"""The answer in plain spelling, see above. Words keep their \text{...}; raises nothing for any text."""
    text = _bare(_SPACE.sub(" ", _ascii(text))).replace(r"\!", "" if r",\!" not in text else r"\!")
    text = _COMMA.sub(lambda mark: mark[1] or ",", text)
    for old, new in _TYPED_OTHERWISE:
        text = text.replace(old, new)
    if "\\" in text:
        text = _NO_SIGN.sub(" ", _EMPTY_SIDE.sub("", _COLOR.sub("", text)))
        text = _said(_TEXT.sub(r"\\text", text))
        for _ in range(3):  # \textbf{\boxed{\text{7}}}
            text = _PLAIN_CONTENT.sub(_unwrapped, text)
    text = _times(" ".join(text.split()))
    return _commands(_GROUPS.sub(_grouped, _CONTINENTAL.sub(_continental, text)))
