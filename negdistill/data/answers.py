r"""Answers: compare the final answer of a text with the reference, and grade.

    text --final_answer--> answer --equivalent(reference)--> right | wrong;  no answer: none

Rules that find an answer are in `finding`. Rules compare it with the reference:
    exact    equality of the MATH normal form, the convention by which MATH (Hendrycks et al., 2021) is scored
    math     equality of what the two say: units, spelling and words around them aside, numbers exactly, words
             as words; what is left is decided by math-verify, which parses both sides and compares them
    number   equality of the value, read as under math: 1,000.0 is 1000, 50% is 50, $0.5 is 1/2, 12 apples are
             12; what is no number equals nothing
    choice   equality of the letter: (b) is B
    string   equality of the text, white space around it aside
    a function of answer and reference that says whether they are equal
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from negdistill.checks import check_choice, check_each, check_type
from negdistill.data.compare import questions, same, same_reading
from negdistill.data.finding import EXTRACT_RULES, final_answer
from negdistill.data.math_verify_pool import verdicts
from negdistill.data.normal_form import normalize
from negdistill.data.reading import read
from negdistill.data.records import PROBLEMS, Problem, Rationale

Rule = str | Callable[[str, str], bool]
EQUALITY_RULES = ("exact", "math", "number", "choice", "string")

# --- compare ------------------------------------------------------------------------------------------


def _exact(answer: str, reference: str) -> bool:
    return normalize(answer) == normalize(reference)


def _same_number(answer: str, reference: str) -> bool:
    one, other = read(answer), read(reference)
    return one.value is not None and other.value is not None and bool(same_reading(one, other))


def _same_choice(answer: str, reference: str) -> bool:
    letter = final_answer(answer, "choice")
    return letter is not None and letter == final_answer(reference, "choice")


def _same_string(answer: str, reference: str) -> bool:
    return answer.strip() == reference.strip()


_PLAIN_RULES = {"exact": _exact, "number": _same_number, "choice": _same_choice, "string": _same_string}


def _math(pairs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the pairs that mean the same; what takes algebra is asked of math-verify."""
    decided = {pair: same(*pair) for pair in pairs}
    equal = {pair for pair, verdict in decided.items() if verdict}
    open_ = {pair: questions(*pair) for pair, verdict in decided.items() if verdict is None}
    while open_:
        found = verdicts(asked[0] for asked in open_.values())
        equal |= {pair for pair, asked in open_.items() if found[asked[0]]}
        open_ = {pair: asked[1:] for pair, asked in open_.items() if pair not in equal and asked[1:]}
    return equal


def check_reference(answer: str, rule: Rule) -> None:
    """ValueError where no answer whatever could equal this reference under the rule.

    answer  the reference, a text
    rule    rule of `equivalent`; of a function nothing is known, so it refuses nothing
    """
    _check_rule(rule)
    ways = {
        "number": ("a number", 'write the number, or grade with "latex" or "text"'),
        "choice": ("a letter A to J", 'write the letter, or grade with "text"'),
    }
    met = not answer.strip() or (rule in ways and not _PLAIN_RULES[rule](answer, answer))
    if met:
        wanted, way_out = ways.get(rule, ("a text that is not empty", "write the answer"))
        raise ValueError(
            f'answer must be {wanted} under rule "{rule}"; got {answer!r}, which no answer can equal;'
            f" {way_out}"
        )


def _check_rule(rule: Rule) -> None:
    if not callable(rule):
        check_choice("rule", rule, EQUALITY_RULES)


def equal_pairs(pairs: Iterable[tuple[str | None, str | None]], rule: Rule) -> set[tuple[str, str]]:
    """Those of the pairs (answer, reference) that are `equivalent`, faster than one by one.

    None equals nothing. Raises ValueError for an unknown rule, TypeError for a function that says neither
    True nor False.
    """
    _check_rule(rule)
    distinct = [pair for pair in dict.fromkeys(pairs) if None not in pair]
    if rule == "math":
        return _math(distinct)
    equal = rule if callable(rule) else _PLAIN_RULES[rule]
    return {pair for pair in distinct if _said(equal(*pair), pair)}


def _said(verdict: object, pair: tuple[str, str]) -> bool:
    if not isinstance(verdict, (bool, np.bool_)):  # one without a return would call every answer wrong
        raise TypeError(f"rule must return True or False; got {verdict!r} for answer and reference {pair}")
    return bool(verdict)


def equivalent(answer: str | None, reference: str | None, rule: Rule = "exact") -> bool:
    r"""Whether an answer equals the reference. None equals nothing, not even None.

    rule  "exact": same `normalize`d form. "math": equal as they are read, else equal for math-verify, which
          takes a few milliseconds; the order of the two does not matter. A pair that it cannot decide within
          its time limit is not equal. Works in any thread; verdicts are kept on disk. "number", "choice",
          "string": see above. A function is called as rule(answer, reference).

    Raises TypeError for what is neither a text nor None, ValueError for an unknown rule, and nothing for any
    two strings.
    """
    for name, value in (("answer", answer), ("reference", reference)):
        check_type(name, value, (str, type(None)), "a text or None")
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

    Raises TypeError for what is no Problem and no Rationale; ValueError for an unknown rule, two problems
    with one id, or a rationale whose problem is missing.
    """
    problems = check_each("problems", problems, *PROBLEMS)
    rationales = check_each("rationales", rationales, Rationale, "a list of Rationale")
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
        check_type(f"answer of problem {problem.id!r}", problem.answer, str, "a text")
        references[problem.id] = problem.answer
    return references


def split(grades: Iterable[Grade]) -> tuple[list[Rationale], list[Rationale]]:
    """(positives, negatives): the rationales graded right, and those graded wrong or none, in their order."""
    sides: dict[bool, list[Rationale]] = {True: [], False: []}
    for one in grades:
        sides[one.positive].append(one.rationale)
    return sides[True], sides[False]
