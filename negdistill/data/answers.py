r"""Answers: find the final answer of a text, bring it to a normal form, compare, grade.

    text --final_answer--> answer --equivalent(reference)--> right | wrong;  no answer: none

Rules find an answer:
    boxed    the content of the last \boxed or \fbox
    lenient  boxed, else "the answer is X", else "#### X", else the last number
    choice   a letter A to J: of the first three of lenient, else (X), else X at the very end
    text     the first three of lenient, else the last line
Rules compare it with the reference:
    exact    equality of the MATH normal form, the convention by which MATH (Hendrycks et al., 2021) is scored
    math     exact, else math-verify, which parses both sides and compares what they mean
    number   equality of the value: 1,000.0 is 1000, 50% is 50, $0.5 is 1/2; what is no number equals nothing
    string   equality of the text, white space around it aside
    a function of answer and reference that says whether they are equal
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

from negdistill.checks import check_choice
from negdistill.data.math_verify_pool import verdicts
from negdistill.data.records import Problem, Rationale

# --- find ---------------------------------------------------------------------------------------------

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # \{ and \} are tokens of their own, they open and close nothing
_BARE_BOX_END = re.compile(r"\$|\\\)|\\\]|\n|[.;]\s")
_STATED = re.compile(r"\bthe (?:final |correct )?answer is:?\s*", re.IGNORECASE)
_STATED_MATH = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]|\$((?:\\.|[^$\\\n])+)\$|\\\((.+?)\\\)", re.DOTALL)
_SENTENCE_END = re.compile(r"\n|[.!?](?:\s|\Z)")
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_LETTER = re.compile(r"(?<![A-Za-z\\'])[A-J](?![A-Za-z'])")
_OPTION = re.compile(r"\(([A-J])\)|(?<![A-Za-z\\'])([A-J])[.)]?\s*\Z")  # in running text A may be a word
_NUMBER = re.compile(r"(?<![\w.])[-−]?(?:[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?(?:/[0-9]+)?|\.[0-9]+)")


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None


def _boxed(text: str) -> str | None:
    box = _last(_BOX, text)
    if box is None:
        return None
    if not text.startswith("{", box.end()):  # \boxed 2
        return _BARE_BOX_END.split(text[box.end() :], maxsplit=1)[0].rstrip(" .,;")
    depth = 0
    for brace in _BRACE.finditer(text, box.end()):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[box.end() + 1 : brace.start()]
    return None  # never closed: the text was cut off inside its answer


def _stated(text: str) -> str | None:
    stated = _last(_STATED, text)
    if stated is None:
        return None
    rest = text[stated.end() :]
    math = _STATED_MATH.match(rest)
    if math is None:
        return _SENTENCE_END.split(rest, maxsplit=1)[0].removeprefix("$")  # here a $ is a currency
    after = _SENTENCE_END.split(rest[math.end() :], maxsplit=1)[0]
    if "$" in after or r"\(" in after:  # the answer is $3$ and $4$
        return math[0] + after
    return next(filter(None, math.groups())).rstrip(" .")


def _hashed(text: str) -> str | None:
    hashes = _last(_HASHES, text)
    return hashes[1] if hashes else None


def _last_number(text: str) -> str | None:
    number = _last(_NUMBER, text)
    return number[0] if number else None


def _choice(text: str) -> str | None:
    for find in (_boxed, _stated, _hashed):
        if letter := _last(_LETTER, find(text) or ""):
            return letter[0]
    option = _last(_OPTION, text)
    return option[1] or option[2] if option else None


def _last_line(text: str) -> str | None:
    return text.strip().rpartition("\n")[2]


Rule = str | Callable[[str, str], bool]
EQUALITY_RULES = ("exact", "math", "number", "string")
EXTRACT_RULES = {
    "boxed": (_boxed,),
    "lenient": (_boxed, _stated, _hashed, _last_number),
    "choice": (_choice,),
    "text": (_boxed, _stated, _hashed, _last_line),
}


def final_answer(text: str, rule: str = "boxed") -> str | None:
    r"""The final answer of a text, as it is written there without surrounding white space; None without one.

    rule  "boxed": the last \boxed or \fbox, with or without braces (`\boxed 2` ends with its formula or
          sentence). A box that is empty or never closed holds no answer, and earlier boxes do not count.
          "lenient": the first to be found of: boxed; the last "the answer is X", up to the end of the
          sentence or of a formula that X begins with; the last "#### X"; the last number.
          "choice", "text": see above.

    Raises ValueError for an unknown rule, and nothing for any text.
    """
    check_choice("rule", rule, EXTRACT_RULES)
    for find in EXTRACT_RULES[rule]:
        if answer := (find(text) or "").strip():
            return answer
    return None


# --- compare ------------------------------------------------------------------------------------------

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


def _exact(answer: str, reference: str) -> bool:
    return normalize(answer) == normalize(reference)


def _unwrap(answer: str) -> str:
    r"""The formula inside \boxed{...} and $...$, \(...\) or \[...\]."""
    bare = (_boxed(answer) or answer).strip()
    for left, right in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if bare.startswith(left) and bare.endswith(right) and len(bare) >= len(left + right):
            bare = bare[len(left) : -len(right)]
    return bare.strip().rstrip(" .") or answer


def _math(pairs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the pairs (answer, reference) that mean the same; math-verify wants the reference first."""
    bare = {(answer, reference): (_unwrap(reference), _unwrap(answer)) for answer, reference in pairs}
    verdict = verdicts(pair for pair in bare.values() if not _exact(*pair))
    return {pair for pair in bare if verdict.get(bare[pair], True)}


def _value(answer: str) -> Fraction | None:
    """The number that an answer is, without sign of currency, per cent or commas between thousands."""
    bare = answer.strip().replace("\N{MINUS SIGN}", "-").replace(r"\$", "").replace(r"\%", "").strip(" $%.")
    number = _NUMBER.fullmatch(bare)
    try:
        return Fraction(number[0].replace(",", "")) if number else None
    except (ValueError, ZeroDivisionError):  # 0.5/2, 1/0
        return None


def _same_number(answer: str, reference: str) -> bool:
    value = _value(answer)
    return value is not None and value == _value(reference)


def _same_string(answer: str, reference: str) -> bool:
    return answer.strip() == reference.strip()


def check_reference(answer: str, rule: Rule) -> None:
    """ValueError where no answer whatever could equal this reference under the rule.

    answer  the reference, a text
    rule    rule of `equivalent`; of a function nothing is known, so it refuses nothing
    """
    _check_rule(rule)
    if rule == "number" and _value(answer) is None:
        raise ValueError(
            f'answer must be a number under rule "number"; got {answer!r}, which no answer can equal; '
            'write the number, or grade with "latex" or "text"'
        )


def _check_rule(rule: Rule) -> None:
    if not callable(rule):
        check_choice("rule", rule, EQUALITY_RULES)


def equal_pairs(pairs: Iterable[tuple[str | None, str | None]], rule: Rule) -> set[tuple[str, str]]:
    """Those of the pairs (answer, reference) that are `equivalent`, faster than one by one.

    None equals nothing. Raises ValueError for an unknown rule.
    """
    _check_rule(rule)
    distinct = [pair for pair in dict.fromkeys(pairs) if None not in pair]
    same = rule if callable(rule) else {"number": _same_number, "string": _same_string}.get(rule, _exact)
    equal = {pair for pair in distinct if same(*pair)}
    return equal | _math(pair for pair in distinct if pair not in equal) if rule == "math" else equal


def equivalent(answer: str | None, reference: str | None, rule: Rule = "exact") -> bool:
    r"""Whether an answer equals the reference. None equals nothing, not even None.

    rule  "exact": same `normalize`d form. "math": exact, else equal for math-verify, which takes a few
          milliseconds; each side may stand in $...$ or \boxed{...}. A pair that math-verify cannot decide
          within its time limit is not equal. Works in any thread; verdicts are kept on disk. "number",
          "string": see above. A function is called as rule(answer, reference).

    Raises ValueError for an unknown rule, and nothing for any two strings.
    """
    return bool(equal_pairs([(answer, reference)], rule))


# --- grade --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grade:
    """A rationale, the answer found in it, and its label: "right", "wrong", or "none" for no answer found."""

    rationale: Rationale
    answer: str | None
    label: str

    @property
    def positive(self) -> bool:
        """Whether the rationale belongs to the positives; the negatives are the wrong and the none."""
        return self.label == "right"


def grade(
    problems: Iterable[Problem], rationales: Iterable[Rationale], extract: str = "boxed", rule: Rule = "exact"
) -> list[Grade]:
    """Grade each rationale against the answer of its problem; the grades are in the order of the rationales.

    extract  rule of `final_answer`
    rule     rule of `equivalent`

    Raises ValueError for an unknown rule, two problems with one id, or a rationale whose problem is missing.
    """
    check_choice("extract", extract, EXTRACT_RULES)
    _check_rule(rule)
    references = _references(problems)
    found = []
    for rationale in rationales:
        if rationale.problem_id not in references:
            raise ValueError(
                f"rationales must belong to problems; got problem_id {rationale.problem_id!r} of teacher"
                f" {rationale.teacher!r}, which no problem has; pass the problem set they were written for"
            )
        found.append((rationale, final_answer(rationale.text, extract), references[rationale.problem_id]))
    equal = equal_pairs(((answer, reference) for _, answer, reference in found), rule)
    return [
        Grade(rationale, answer, _label(answer, (answer, reference) in equal))
        for rationale, answer, reference in found
    ]


def _label(answer: str | None, right: bool) -> str:
    if answer is None:
        return "none"
    return "right" if right else "wrong"


def _references(problems: Iterable[Problem]) -> dict[str, str]:
    references: dict[str, str] = {}
    for problem in problems:
        if problem.id in references:
            raise ValueError(f"problems must have distinct ids; got {problem.id!r} twice; grade set by set")
        references[problem.id] = problem.answer
    return references


def split(grades: Iterable[Grade]) -> tuple[list[Rationale], list[Rationale]]:
    """(positives, negatives): the rationales graded right, and those graded wrong or none, in their order."""
    sides: dict[bool, list[Rationale]] = {True: [], False: []}
    for one in grades:
        sides[one.positive].append(one.rationale)
    return sides[True], sides[False]
