"""Records: what flows through the method, and the files it comes from: JSON lines, a JSON list, XML elements.

    Problem  --teacher-->  Rationale  --grade-->  right | wrong | none
             --student-->  Sample     --grade-->

Every record is frozen and holds plain Python values only, so it can be hashed, compared and written as
one line of JSON. Readers say which file and line they stumble over.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its reference.

    id        unique within the data set, the key that rationales and predictions carry
    question  problem text, without prefixes such as "Problem:"
    answer    final answer, already extracted from the reference
    solution  the data set's own solution text
    subject   topic as the data set names it, "" where it has none
    level     difficulty (MATH and the embedded benchmark 1-5, ASDiv grade 1-6), None where it has none
    source    name of the data set, as `load_problems` takes it
    """

    id: str
    question: str
    answer: str
    solution: str
    subject: str
    level: int | None
    source: str


PROBLEMS = (Problem, "a list of Problem, as load_problems() gives it")  # for `check_each`


@dataclass(frozen=True, slots=True)
class Rationale:
    """One answer of a teacher to one problem; `index` counts its samples from 0."""

    problem_id: str
    index: int
    text: str
    teacher: str


@dataclass(frozen=True, slots=True)
class Sample(Rationale):
    """A rationale that a student drew; it is graded like any other.

    ids       tokens drawn, the end-of-text token included where it came
    log_prob  natural logarithm of the probability of `ids` under the model itself, at temperature 1, whatever
              they were drawn with; at most 0
    finished  whether the end-of-text token came before the limit
    """

    ids: tuple[int, ...]
    log_prob: float
    finished: bool

    @property
    def tokens(self) -> int:
        """Number of tokens drawn, the end-of-text token included."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Reply(Rationale):
    """A rationale as it was got from a teacher, and how that went.

    finish             as the server says why it ended: "stop", "length", "error", "MAX_TOKENS", None where it
                       does not say; and three words of our own. "refused": the text, if any, says why;
                       "empty": it stopped without a text; "rejected": the server turned the question away
    prompt_tokens      as the teacher counts them; where it does not say, or says what cannot be, the most
                       they can be
    completion_tokens  likewise
    request            sha256 of all that decides the answer, except chance: model, prompt, settings
    reasoning          what the server said apart from the text, "" where nothing
    error              why the question was turned away, in the server's words; "" where it was not
    question           the beginning of the question's sha256, which tells questions of one id apart
    settings           what else the request asked: temperature, beginning of a sha256 of the rest
    """

    finish: str | None
    prompt_tokens: int
    completion_tokens: int
    request: str
    reasoning: str = ""
    error: str = ""
    question: str = ""
    settings: str = ""
