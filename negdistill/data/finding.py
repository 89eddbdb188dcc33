r"""Finding: the final answer of a text, as it is written there.

    boxed    the content of the last \boxed or \fbox
    lenient  boxed, else <answer>X</answer>, else "#### X", else "the answer is X", else the last number
    choice   a letter A to J: of the first four of lenient, else as `choosing` says
    text     the first four of lenient, else the last line

Reasoning up to </think> is no answer, and neither is a <think> that never ends, whatever its marks look like.
"""

from __future__ import annotations

import re
from collections import deque

from negdistill.checks import check_choice, check_type
from negdistill.data.choosing import SHORT, choice, spelt
from negdistill.data.reading import read
from negdistill.data.units import SCALE

_THOUGHT = re.compile(  # <think>, [/THINK], <|end_of_thought|>, <|START_THINKING|>, <|channel|>analysis
    r"(?:[<◁]\|?|\[(?=/?think))(?:(?P<ends>/|end_(?:of_)?)|(?:begin_|start_)?(?:of_)?)(?:\w+:)?"
    r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad)\|?[>\]▷]"
    r"|<\|channel\|>(?:(?P<final>final)|analysis|commentary)(?:<\|message\|>)?|(?P<bare>assistantfinal)",
    re.IGNORECASE,
)
_MARKED = ("<", "◁", "think]", "assistantfinal")  # what every one of them has, in small letters
_END_OF_TURN = re.compile(r"(?:(?:<\|\w+\|>|</s>|<eos>|<end_of_turn>)\s*){1,9}\Z")
_TAGGED = re.compile(r"<((?:final[_ ]?)?answer)>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
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
    r"[*_`]*(?:\$\$(.+?)\$\$|\\\[(.+?)\\\]|\$((?:\\.|[^$\\\n])+)\$(?!\d)|\\\((.+?)\\\))", re.DOTALL
)
_SENTENCE_END = re.compile(
    r"\n|(?<!\bRs)(?<!\bapprox)(?<!\bca)(?<!\bvs)(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\bSt)(?<!\bMt)"
    r"[.!?][*_`\"')\]]*(?:\s|\Z)|[。！？]"
)
_MORE_VALUE = re.compile(  # after a formula, what is part of the number
    r"(?:\}|\*\*|\s)*(?:hundred|thousand|[mbtr]+illion|dozen|lakh|crore|[ap]\.?\s?m\b)s?"
    rf"|\s*(?:{SCALE})",
    re.IGNORECASE,
)
_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n]+)")
_HEADING = re.compile(
    r"[*_\s]*(?:step|part|case|solution|conclusion|explanation|verification|check|note|summary|final)\b",
    re.IGNORECASE,
)
_MARKS = ("**", "__", "*", "`")
_FRACTION = r"\\[dt]?frac ?\{\d+\} ?\{\d+\}"
_DIGITS = r"(?:\d{1,3}(?:(?:,|\{,\}|,\\!|\\,|['’ \u2009\u202f\u00a0])\d{3}(?!\d))+|\d+)(?:\.\d+(?:\.{3}|…)?)?"
_NUMBER = re.compile(
    r"(?<![^\W\u3040-\uff0f\uff1a-\uffdc])(?<![.^])(?<!\^\{)[-−–]?"
    rf"(?:\d+ ?{_FRACTION}|{_FRACTION}|\d+ \d+/\d+(?![\d/])|\d*[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞]"
    rf"|{_DIGITS}(?:/\d+|\^\{{?-?\d+\}}?)?|\.\d+)"
    r"(?:\s(?:hundred|thousand|million|billion|trillion|dozen)s?\b|"
    rf"{SCALE})*"
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
    said = next(filter(None, math.groups())).rstrip()
    return said if said.endswith("..") else said.rstrip(" .")


def _tagged(text: str) -> str | None:
    tagged = _last(_TAGGED, text)
    return _stated(tagged[2]) or _unmarked(tagged[2]) if tagged else None


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


def _spelt_out(text: str) -> str | None:
    return text if len(text) < SHORT and read(text).value is not None else None


def _last_line(text: str) -> str | None:
    return text.strip().rpartition("\n")[2]


def _choice(text: str) -> str | None:
    text = spelt(text)
    return choice(text, (find(text) for find in (_boxed, _tagged, _hashed, _stated)))


# --- rules --------------------------------------------------------------------------------------------

EXTRACT_RULES = {
    "boxed": (_boxed,),
    "lenient": (_boxed, _tagged, _hashed, _stated, _last_number, _spelt_out),
    "choice": (_choice,),
    "text": (_boxed, _tagged, _hashed, _stated, _last_line),
}


def _without_thoughts(text: str) -> str:
    """What follows the last end of reasoning, up to where more of it begins."""
    if not any(mark in text.lower() for mark in _MARKED):
        return text
    start, end = 0, None
    for mark in _THOUGHT.finditer(text):
        if mark["ends"] or mark["final"] or mark["bare"]:
            start, end = mark.end(), None
        elif end is None:
            end = mark.start()
    return _END_OF_TURN.sub("", text[start:end].rstrip())


def final_answer(text: str, rule: str = "boxed") -> str | None:
    r"""The final answer of a text, as it is written there without surrounding white space; None without one.

    rule  "boxed": the last \boxed or \fbox, with or without braces (`\boxed 2` ends with its formula or
          sentence). A box that is empty or never closed holds no answer, and earlier boxes do not count.
          "lenient": the first to be found of: boxed; <answer>X</answer>; "#### X", the mark of GSM8K; the
          last "the answer is X" or "Answer: X", up to the end of the sentence or of a formula that X begins
          with; the last number; a short text that is a number in words.
          "choice", "text": see above; a choice is returned as a capital letter.

    Raises TypeError for what is no text, ValueError for an unknown rule, and nothing for any text.
    """
    check_type("text", text, str, "a text")
    check_choice("rule", rule, EXTRACT_RULES)
    text = _without_thoughts(text)
    for find in EXTRACT_RULES[rule]:
        if answer := (find(text) or "").strip():
            return answer
    return None
