r"""Finding: the final answer of a text, as it is written there.

    boxed    the content of the last \boxed or \fbox
    lenient  boxed, else "#### X", else "the answer is X", else the last number
    choice   a letter A to J: of the first three of lenient, else "option X", (X), or X at the very end
    text     the first three of lenient, else the last line

Reasoning up to </think> is no answer, and neither is a <think> that never ends.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque

from negdistill.checks import check_choice
from negdistill.data.reading import read

_THOUGHT = re.compile(r"\A.*</think(?:ing)?>|<think(?:ing)?>.*\Z", re.DOTALL | re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # \{ and \} are tokens of their own, they open and close nothing
_BARE_BOX_END = re.compile(r"\$|\\\)|\\\]|\n|[.;]\s")
_STATED = re.compile(
    r"(?:\banswers?\b(?: to [^.\n:]{1,80}?)?[*_]*"
    r"(?: is\b| are\b| would be\b| will be\b| should be\b| must be\b|\s*[:：=])(?: that\b)?"
    r"|\b(?:respuesta|réponse|risposta|resposta|antwort|ответ)\b(?: \w+)??[*_]*"
    r"(?: es\b| est\b| è| é| ist\b| lautet\b|\s*[:：])"
    r"|答案(?:应该|應該|就)?[是为為]?|答えは|答え(?=[:：])|(?:정답|답)(?:은|(?=\s*[:：])))"
    r"[:：、]?[*_`]*[:：]?\s*",
    re.IGNORECASE,
)
_STATED_MATH = re.compile(
    r"[*_`]*(?:\$\$(.+?)\$\$|\\\[(.+?)\\\]|\$((?:\\.|[^$\\\n])+)\$|\\\((.+?)\\\))", re.DOTALL
)
_SENTENCE_END = re.compile(
    r"\n|(?<!\bRs)(?<!\bapprox)(?<!\bca)(?<!\bvs)(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)(?<!\bMt)"
    r"[.!?][*_`\"')\]]*(?:\s|\Z)|[。！？]"
)
_MORE_VALUE = re.compile(  # after a formula, what is part of the number
    r"(?:\}|\*\*|\s)*(?:hundred|thousand|[mbtr]+illion|dozen|lakh|crore|[ap]\.?\s?m\b)s?|\s*[万萬亿億千百만억]",
    re.IGNORECASE,
)
_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n]+)")
_HEADING = re.compile(
    r"[*_\s]*(?:step|part|case|solution|conclusion|explanation|verification|check|note|summary|final)\b",
    re.IGNORECASE,
)
_MARKS = ("**", "__", "*", "`")
_FRACTION = r"\\[dt]?frac ?\{\d+\} ?\{\d+\}"
_DIGITS = r"(?:\d{1,3}(?:(?:,|\{,\}|,\\!|\\,|['’ \u2009\u202f\u00a0])\d{3}(?!\d))+|\d+)(?:\.\d+)?"
_NUMBER = re.compile(
    r"(?<![^\W\u3040-\uff0f\uff1a-\uffdc])(?<![.^])(?<!\^\{)[-−–]?"
    rf"(?:\d+ ?{_FRACTION}|{_FRACTION}|\d+ \d+/\d+(?![\d/])|\d*[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]"
    rf"|{_DIGITS}(?:/\d+|\^\{{?-?\d+\}}?)?|\.\d+)"
    r"(?:\s(?:hundred|thousand|million|billion|trillion|dozen)s?\b|[万萬亿億千百만억])*"
)


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


def _unmarked(said: str) -> str:
    """Without marks of emphasis around it, or of which one half is in it."""
    said = said.strip()
    for mark in _MARKS:
        if said.startswith(mark) and said.endswith(mark) and said.count(mark) == 2:
            said = said[len(mark) : -len(mark)]
        elif said.count(mark) % 2:
            said = said.removesuffix(mark).removeprefix(mark)
    return said.strip()


def _stated(text: str) -> str | None:
    stated = _last(_STATED, text)
    if stated is None:
        return None
    rest = text[stated.end() :]
    math = _STATED_MATH.match(rest)
    if math is None or rest[: math.end()].count("$") == 2 and re.match(r"\$\d[^$]*\s\$\Z", math[0]):
        bare = _SENTENCE_END.split(rest, maxsplit=1)[0]
        bare = _unmarked(bare)
        return bare.removeprefix("$") if bare.count("$") % 2 else bare  # here a $ is a currency
    after = _SENTENCE_END.split(rest[math.end() :], maxsplit=1)[0]
    if "$" in after or r"\(" in after:  # the answer is $3$ and $4$
        return math[0] + after
    if more := _MORE_VALUE.match(after):  # the answer is $1.5$ million
        return math[0] + more[0]
    return next(filter(None, math.groups())).rstrip(" .")


def _hashed(text: str) -> str | None:
    """What follows the last #### that marks an answer and no heading."""
    for mark in reversed(list(_HASHES.finditer(text))):
        said = _stated(mark[1]) or _unmarked(mark[1])
        ends = not text[mark.end() :].strip()
        if not _HEADING.match(said) and (ends or (said[:1] not in "#" and read(said).kind == "number")):
            return said
    return None


def _last_number(text: str) -> str | None:
    number = _last(_NUMBER, text)
    return number[0] if number else None


def _last_line(text: str) -> str | None:
    return text.strip().rpartition("\n")[2]


# --- choice -------------------------------------------------------------------------------------------

_MENTION = re.compile(r"[(\[]\s*([A-Ja-j])\s*[)\]]|(?<![A-Za-z\\'’])([A-J])(?![A-Za-z'’])")
_REFUSED = re.compile(
    r"(?:\bnot|\bnor|\bneither|\brather than|\binstead of|\bunlike|n't|\bexcept|\bthan"
    r"|\brul\w+ out|\beliminat\w+|\bexclud\w+)"
    r"(?: be)?(?: the)?(?: option| choice| answer)?\s*\Z",
    re.IGNORECASE,
)
_GOES_ON = re.compile(r"\s+(?!(?:is|was|because|since|as|and|or|which|for|with|not|but|seems|would)\b)[a-z]")
_EITHER = re.compile(r"[\s,;/&*_()\[\]]*(?:\b(?:and|or)\b)?[\s*_]*(?:option\s|choice\s)?[\s*_()\[\]]*\Z")
_OPTION = re.compile(r"\b(?:option|choice|answer)s?\b[\s:*_]*[(\[]?([A-J])(?![A-Za-z'’])", re.IGNORECASE)
_AT_THE_END = re.compile(r"(?<![A-Za-z\\'’])([A-J])[\s.)*_`$}]*\Z")
_AT_THE_START = re.compile(r"[\s*_`]*([A-Ja-j])[\s*_`]*(?:[.):][^\n]*)?\Z")


SHORT = 40  # characters; a shorter text is an answer, not an argument


def _mentions(text: str) -> list[re.Match[str]]:
    """Options that the text names and does not refuse."""
    return [one for one in _MENTION.finditer(text) if _means(one, one[1], one[2])]


def _means(found: re.Match[str], sure: str | None, bare: str | None) -> bool:
    """Whether a letter is an option that the text does not refuse; bare, A and I may be words."""
    text = found.string
    return not _REFUSED.search(text, max(0, found.start() - SHORT), found.start()) and (
        bool(sure) or bare not in ("A", "I") or not _GOES_ON.match(text, found.end())
    )


def _letter(answer: str) -> str | None:
    """The option that an answer names; None where it names none, "" where it leaves it open between two."""
    bare = answer.strip(" *_`$.,:;{}")
    if re.fullmatch("[A-Ja-j]", bare):
        return bare.upper()
    named = _mentions(answer)
    named = [one for one in named if one[1]] or named
    if not named:
        return None
    letters = [(one[1] or one[2]).upper() for one in named]
    if (
        len(named) > 1
        and letters[0] != letters[1]
        and _EITHER.match(answer, named[0].end(), named[1].start())
    ):
        return ""
    return letters[0]


def _choice(text: str) -> str | None:
    text = unicodedata.normalize("NFKC", text)
    if start := _AT_THE_START.fullmatch(text.strip()):
        return start[1].upper()
    for said in (_boxed(text), _hashed(text), _stated(text)):
        letter = _letter(said or "")
        if letter is not None:
            return letter or None
    if len(text) < SHORT and _letter(text) == "":
        return None
    options = [one[1] for one in _OPTION.finditer(text) if _means(one, None, one[1])]
    options = options or [one[1] for one in _mentions(text) if one[1]]
    end = _AT_THE_END.search(text)
    if end and not options and not (end[1] == "I" and text[: end.start()].strip()):
        options = [end[1]] if not _REFUSED.search(text, max(0, end.start() - SHORT), end.start()) else []
    return options[-1].upper() if options else None


# --- rules --------------------------------------------------------------------------------------------

EXTRACT_RULES = {
    "boxed": (_boxed,),
    "lenient": (_boxed, _hashed, _stated, _last_number),
    "choice": (_choice,),
    "text": (_boxed, _hashed, _stated, _last_line),
}


def final_answer(text: str, rule: str = "boxed") -> str | None:
    r"""The final answer of a text, as it is written there without surrounding white space; None without one.

    rule  "boxed": the last \boxed or \fbox, with or without braces (`\boxed 2` ends with its formula or
          sentence). A box that is empty or never closed holds no answer, and earlier boxes do not count.
          "lenient": the first to be found of: boxed; "#### X", the mark of GSM8K; the last "the answer is X"
          or "Answer: X", up to the end of the sentence or of a formula that X begins with; the last number.
          "choice", "text": see above; a choice is returned as a capital letter.

    Raises ValueError for an unknown rule, and nothing for any text.
    """
    check_choice("rule", rule, EXTRACT_RULES)
    text = _THOUGHT.sub("", text) if "think" in text.lower() else text
    for find in EXTRACT_RULES[rule]:
        if answer := (find(text) or "").strip():
            return answer
    return None
