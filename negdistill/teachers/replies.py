"""Replies: what a server said, read as it said it; and what follows where that was no answer.

200, choices       text, reasoning, why it ended, tokens                                     answer
400, 413, 422 …    the question is turned away: recorded with the server's words             "record"
401, 402, 404 …    key, money, model or address are wrong: nobody is asked any more          "stop"
429, 5xx, no JSON  ask again, in the end leave the question for the next run                 "skip"
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from negdistill.data.prompts import STOP
from negdistill.teachers.transport import Response

LONGEST_RETRY_AFTER = 600.0  # seconds; a server that asks for more has given up for today
ALWAYS = 1_000_000  # as often as the teacher's `retries` allow
LONGEST_WORDS = 500  # characters of what a server said that are kept

_THOUGHT = re.compile(r"think|thought|reason", re.IGNORECASE)
_TYPES = {  # of an error that has no status
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "overloaded_error": 503,
    "server_error": 500,
    "api_error": 500,
    "context_length": 400,
    "content_filter": 400,
}
_FILTER = re.compile(r"content_filter|content_policy|responsibleai", re.IGNORECASE)
_MODERATED = re.compile(
    r"moderat|flagged|content|polic(y|ies)|safety|inappropriate|sensitive|harmful|prohibited",
    re.IGNORECASE,
)
_MONEY = re.compile(
    r"insufficient[_ ](quota|balance|credit|fund)|exceeded[_ ](your[_ ])?current[_ ]quota|quota[_ ]exceeded"
    r"|billing[_ ]hard|out of credit|no credits",
    re.IGNORECASE,
)
_KEY = re.compile(r"api[ _-]?key", re.IGNORECASE)
_MODEL = re.compile(
    r"model[_ ]not[_ ](found|exist)|\bmodel\b[^.,;]{0,80}\b(not found|not exist|doesn't exist|not a valid|"
    r"is not (supported|available|valid|served)|unknown)|(invalid|unknown|no such|unrecognized) model",
    re.IGNORECASE,
)
_SETTING = re.compile(
    r"unsupported_(parameter|value)|unknown_parameter|unsupported parameter|unrecognized request argument",
    re.IGNORECASE,
)
_LOADING = re.compile(r"\bloading\b", re.IGNORECASE)


class Answer(NamedTuple):
    """What a choice says; `finish` as in `Reply`, tokens at most those that were told to `read`."""

    text: str
    reasoning: str
    finish: str | None
    prompt_tokens: int
    completion_tokens: int


class Failure(NamedTuple):
    """A request without an answer.

    why    in words, without the key   verdict  "record", "stop", "skip"; "key": "skip" once one was answered
    tries  how many more requests may end like this     after  seconds to wait before the next
    spent  whether the tokens may count all the same
    """

    why: str
    verdict: str
    tries: int = 0
    after: float = 0.0
    spent: bool = False


# --- answers ------------------------------------------------------------------------------------------


def read(
    response: Response, chat: bool, most: tuple[int, int], mask: Callable[[str], str]
) -> Answer | Failure:
    """What the server said. `most`: tokens that prompt and completion can have; `mask`: cuts out the key."""
    try:
        row = json.loads(response.data)
    except (ValueError, RecursionError):
        row = None
    if not 200 <= response.status < 300:
        return judge(response.status, *_words(row, response, mask), retry_after(response.headers))
    if not isinstance(row, dict):
        kind = mask(response.headers.get("content-type", "no type"))
        return _unusable(f"no JSON of an answer came ({kind}): {_start(response, mask)}")
    choice = _choice(row)
    if choice is None or (choice.get("error") and not _said(choice)[0]):
        error = row.get("error") or (choice or {}).get("error")
        return _stated(error, response, mask) if error else _unusable("an answer without choices came")
    return _answer(choice, row.get("usage"), chat, most, mask)


def _choice(row: dict) -> dict | None:
    """The first of the choices, by their index where they have one; None where there is none to read."""
    choices = row.get("choices")
    good = [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
    first = next((one for one in good if one.get("index") == 0), good[0] if good else None)
    good = first and (isinstance(first.get("message"), dict) or "text" in first or first.get("error"))
    return first if good else None


def _said(choice: dict) -> tuple[str, str, str]:
    """Text, reasoning and refusal of a choice."""
    message = (
        choice["message"] if isinstance(choice.get("message"), dict) else {"content": choice.get("text")}
    )
    text, reasoning, refusal = "", "", plain(message.get("refusal"))
    content = message.get("content")
    for part in content if isinstance(content, list) else [content]:
        kind = str(part.get("type") or "") if isinstance(part, dict) else ""
        if kind == "refusal":
            refusal += plain(part)
        elif _THOUGHT.search(kind) or (kind and part.get("thought") is True):
            reasoning += plain(part)
        else:
            text += plain(part)
    names = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
    apart = next((said for name in names if (said := plain(message.get(name)))), "")
    return text, apart or reasoning, refusal


def plain(value: object) -> str:
    """The text of a text, of a number, of a list of parts one after the other, of a part: else ""."""
    if isinstance(value, str):  # halves of surrogate pairs are no characters
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return "".join(map(plain, value))
    if isinstance(value, dict):
        names = ("text", "content", "value", "thinking", "reasoning", "summary", "refusal")
        return next((said for name in names if (said := plain(value.get(name)))), "")
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else ""


def _answer(
    choice: dict, usage: object, chat: bool, most: tuple[int, int], mask: Callable[[str], str]
) -> Answer:
    text, reasoning, refusal = _said(choice)
    reason = choice.get("finish_reason")
    finish = reason if reason is None or isinstance(reason, str) else json.dumps(reason)
    if refusal or reason == "content_filter":
        text, finish = text or refusal, "refused"
    elif not chat:
        text, end, _ = text.partition(STOP)  # of servers that do not stop there
        finish = "stop" if end else finish
    usage = usage if isinstance(usage, dict) else {}
    counts = (
        count(usage.get("prompt_tokens"), 1, most[0]),
        count(usage.get("completion_tokens"), 1 if text or reasoning else 0, most[1]),
    )
    return Answer(mask(text), mask(reasoning), finish and mask(plain(finish)), *counts)


def count(value: object, least: int, most: int) -> int:
    """A number of tokens that can be; anything else says nothing, and then it is the most they can be."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    known = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    return value if known else most


# --- no answers ---------------------------------------------------------------------------------------


def _unusable(why: str) -> Failure:
    return Failure(why, "skip", tries=2, spent=True)


def _stated(error: object, response: Response, mask: Callable[[str], str]) -> Failure:
    """An error in place of an answer, under a status of 200: as its own code says, else asked once more."""
    words, code = _words({"error": error}, response, mask)
    named = next((status for name, status in _TYPES.items() if name in code), None)
    number = re.search(r"(?<!\d)[1-5]\d\d(?!\d)", code)
    if status := int(number[0]) if number else named:
        return judge(status, words, code, tries=1 if status >= 500 else ALWAYS)
    return Failure(f"an error came in place of an answer: {words}", "skip", tries=1, spent=True)


def _words(row: object, response: Response, mask: Callable[[str], str]) -> tuple[str, str]:
    """What a server says of an error, and its code and type."""
    error = row.get("error", row) if isinstance(row, dict) else None
    if not isinstance(error, dict):
        error = {"message": error}
    said = plain(error.get("message")) or plain(error.get("detail")) or _start(response, mask)
    if 300 <= response.status < 400:
        said = f"it redirects to {response.headers.get('location')}; base_url may have to begin so"
    more = error.get("metadata")  # of a provider behind the server
    said += f" {json.dumps(more)}" if isinstance(more, dict) and more else ""
    code = " ".join(str(error[name]) for name in ("code", "type") if error.get(name) is not None)
    return mask(" ".join(said.split()))[:LONGEST_WORDS], mask(code)[:LONGEST_WORDS]


def _start(response: Response, mask: Callable[[str], str]) -> str:
    text = mask(response.data[:10_000].decode("utf-8", "replace"))
    return repr(" ".join(text.split())[:200])


def judge(status: int, words: str, code: str = "", after: float = 0.0, tries: int = ALWAYS) -> Failure:
    """What a status of 300 or more means; only where the server broke down may the request count."""
    why, said = f"status {status}: {words}", f"{code} {words}"
    if status in (401, 407) or (
        status == 400 and _KEY.search(words)
    ):  # their words may hold a part of the key
        return Failure(f"the server does not accept the key (status {status})", "stop")
    if status == 402 or (400 <= status < 500 and _MONEY.search(said)):
        return Failure(why, "stop")
    if status in (408, 409, 425, 429) or status >= 500:
        if after > LONGEST_RETRY_AFTER:
            return Failure(why, "stop")
        return Failure(why, "skip", tries, after, spent=status >= 500 and not _LOADING.search(words))
    if status == 400 and _FILTER.search(code):
        return Failure(why, "refused")
    if status in (404, 405, 410) or status < 400 or _MODEL.search(said) or _SETTING.search(said):
        return Failure(why, "stop")
    if status == 403 and not _MODERATED.search(said):
        return Failure(f"the server does not accept the key (status {status}): {words}", "key")
    return Failure(why, "record" if status in (400, 403, 413, 414, 422, 451) else "skip")


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait, as seconds, milliseconds or a date; 0 where it does not say."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return max(0.0, float(headers.get(name, "")) / unit)
        except ValueError:
            pass
    try:
        when = parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return 0.0
