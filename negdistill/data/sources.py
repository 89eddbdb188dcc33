r"""Sources: the public question sets and the released rationales, read as they lie on disk.

    set                in the data folder                                           split and size
    math               MATH/train.jsonl, MATH/test.jsonl                            train 7,500, test 5,000
    gsm8k              GSM8K/train.jsonl, GSM8K/test.jsonl                          train 7,473, test 1,319
    asdiv              ASDiv/ASDiv.xml                                              test 2,084
    multiarith         MultiArith/MultiArith.json                                   test 600
    svamp              SVAMP/SVAMP.json                                             test 1,000
    tdg-gpt-3.5-turbo  TDG/GPT3.5-turbo-MATH/train_gpt3.5_<subject>_8/<k>.jsonl     8 rationales for each
    tdg-gpt-4          TDG/GPT4-MATH/train_gpt4_<subject>_8/<k>.jsonl               question of math, train
    arithmetic         nothing, it is generated                                    see `negdistill.arithmetic`

A .jsonl may be packed (.jsonl.gz), a TDG folder may be an archive (.tar.xz, .tar.gz) of the same name.

Between row and record only this is changed:
    white space  stripped around texts; body and question (asdiv, svamp) are joined by one space, and no
                 punctuation is added where a body ends without
    prefixes     "Problem:", "Solution:" and the line "Let's think step by step" are cut off
    answer       math: last \boxed; others: plain number, 1,000 -> 1000, 51.0 -> 51, U+2212 -> -
    solution     gsm8k: without the calculator marks <<48/2=24>>, with its last line "#### 72";
                 asdiv, multiarith, svamp: the equation
    spelling     of two subjects, see SPELLING
    chal-680     of svamp stores the answer 1 against its own equation and story (4 - 2 + 3). It is read as 5;
                 against the stored answer that moves a score by at most 0.1 points.
Two training solutions of math end in an empty box: their answer is "", which no rationale equals.
"""

from __future__ import annotations

import random
import re
from decimal import Decimal
from functools import partial
from pathlib import Path

from negdistill.checks import check_choice, check_path, check_whole
from negdistill.data import arithmetic
from negdistill.data.answers import final_answer
from negdistill.data.folders import data_folder, find
from negdistill.data.formats import ON_ERROR, collect, line_rows, list_rows, number_text, unpack, xml_rows
from negdistill.data.records import Problem, Rationale
from negdistill.data.released import SAMPLES, TDG, loss, tdg_rows

PROBLEM_SETS = {  # name: splits
    "math": ("train", "test"),
    "gsm8k": ("train", "test"),
    "asdiv": ("test",),
    "multiarith": ("test",),
    "svamp": ("test",),
    "arithmetic": tuple(arithmetic.SPLITS),
}
RATIONALE_SETS = (*TDG, "arithmetic")
SPELLING = {"Common-Divison": "Common-Division", "Substraction": "Subtraction"}

_PREFIX = re.compile(r"(?:(?:Problem|Solution):|Let's think step by step\.?(?=\n|$))\s*")
_MARK = re.compile(r"<<[^<>]*>>")
_NUMBER = re.compile(r"[-\N{MINUS SIGN}]?[0-9][0-9,]*(?:\.[0-9]+)?")
_UNIT = re.compile(r"\s*\([^()]*\)$")


def load_problems(
    name: str,
    split: str = "test",
    data_dir: str | Path | None = None,
    *,
    n: int | None = None,
    seed: int = 0,
) -> list[Problem]:
    """Problems of one set, in the order of its file.

    name      one of PROBLEM_SETS
    split     one of PROBLEM_SETS[name]
    data_dir  data folder; None: NEGDISTILL_DATA, else the user's cache
    n, seed   seeded sample of n problems without replacement, in file order; None is all of them.
              arithmetic has no end: n problems are generated

    Raises FileNotFoundError, saying what to type, where the data is missing; TypeError for an argument of
    another type; ValueError for a wrong argument, and for a malformed, truncated or non-UTF-8 row with its
    file and line.
    """
    check_choice("name", name, PROBLEM_SETS)
    check_draw(n, seed, data_dir)
    check_choice(f"split of {name}", split, PROBLEM_SETS[name])
    if name == "arithmetic":
        return arithmetic.generate(split, _generated(n), seed)
    file, read_rows, convert = _FORMATS[name]
    path = find(data_folder(data_dir), name, file.format(split=split))
    rows = read_rows(*unpack(path), str(path))
    problems = _some(path, collect(rows, lambda key, row: convert(f"{split}:{key}", row)))
    problems = [problem for problem in problems if problem]  # None: asdiv, not a single number
    return [problems[i] for i in _sample(len(problems), n, seed)]


def load_rationales(
    name: str,
    data_dir: str | Path | None = None,
    *,
    n: int | None = None,
    seed: int = 0,
    strength: str | None = None,
    on_error: str = "raise",
) -> list[Rationale]:
    """Eight rationales per question of one teacher, question by question.

    name      one of RATIONALE_SETS; `problem_id` is an id of `load_problems("math", "train")`, and of
              `load_problems("arithmetic", "train", n=n, seed=seed)` for arithmetic
    n, seed   number of questions; the same n and seed give the same questions in `load_problems`
    strength  arithmetic only: "weak" (what None means) or "strong"
    on_error  "raise" at a malformed row, or "skip": leave it out, and warn with the number of such rows and
              of all rationales that are lost

    `data_dir` and errors as in `load_problems`.
    """
    check_choice("name", name, RATIONALE_SETS)
    check_choice("on_error", on_error, ON_ERROR)
    check_draw(n, seed, data_dir)
    if name == "arithmetic":
        problems = arithmetic.generate("train", _generated(n), seed)
        return arithmetic.teach(problems, strength or "weak", SAMPLES, seed)
    check_choice(f"strength of {name}", strength, (None,))
    path, teacher = find(data_folder(data_dir), name, TDG[name]), name.removeprefix("tdg-")
    groups = collect(tdg_rows(path), lambda key, row: _rationales(key, row, teacher), on_error, loss)
    return [one for i in _sample(len(_some(path, groups)), n, seed) for one in groups[i]]


def check_draw(n: int | None, seed: int, data_dir: str | Path | None = None) -> None:
    """TypeError for what is no number of records, seed or folder; ValueError for a seed below 0."""
    if n is not None:
        check_whole("n", n)
    check_whole("seed", seed, 0)
    if data_dir is not None:
        check_path("data_dir", data_dir)


def _generated(n: int | None) -> int:
    if n is None:
        raise ValueError("n must be a number for arithmetic, which is generated without end; got None")
    return n


def _sample(size: int, n: int | None, seed: int) -> list[int]:
    if n is None:
        return list(range(size))
    if not 1 <= n <= size:
        raise ValueError(f"n must be from 1 to {size}, the size of this set, or None for all; got {n!r}")
    return sorted(random.Random(int(seed)).sample(range(size), n))


def _some(path: Path, records: list) -> list:
    if not records:
        raise ValueError(f"{path} holds no row that can be read")
    return records


# --- rows to records ----------------------------------------------------------------------------------


def _without_prefix(text: str) -> str:
    """Cut one prefix off a question or rationale, and the white space around what is left."""
    text = text.strip()
    return text[match.end() :] if (match := _PREFIX.match(text)) else text


def _text(row: dict, field: str) -> str:
    if not isinstance(row[field], str):
        raise TypeError(f"{field} must be text; got {row[field]!r}")
    return row[field].strip()


def _plain_number(text: str) -> str:
    """At most a minus and a point: 1,000 -> 1000, 51.0 -> 51; ValueError for all but one number."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"expected one number as the answer; got {text!r}")
    value = Decimal(text.replace(",", "").replace("\N{MINUS SIGN}", "-"))
    exact = f"{value:f}" if value else "0"
    return exact.rstrip("0").rstrip(".") if "." in exact else exact


def _math(key: str, row: dict) -> Problem:
    solution = _text(row, "solution")
    answer = final_answer(solution)
    if answer is None and r"\boxed{}" not in solution:
        raise ValueError(r"the solution has no \boxed answer")
    level = re.search("[1-5]", _text(row, "level"))  # two of the training problems have "Level ?"
    return Problem(
        id=_text(row, "tdg") if key.startswith("train") else key,
        question=_without_prefix(_text(row, "problem")),
        answer=answer or "",
        solution=solution,
        subject=_text(row, "type"),
        level=int(level[0]) if level else None,
        source="math",
    )


def solution_and_answer(text: str) -> tuple[str, str]:
    """Both out of a text of GSM8K: the solution without calculator marks, and what follows its last ####."""
    solution = _MARK.sub("", text)
    return solution, solution.rpartition("####")[2].strip()


def _gsm8k(key: str, row: dict) -> Problem:
    if (text := _text(row, "answer")).count("####") != 1:
        raise ValueError("the answer must have one line #### <number>")
    solution, answer = solution_and_answer(text)
    answer = _plain_number(answer)
    return Problem(key, _without_prefix(_text(row, "question")), answer, solution, "", None, "gsm8k")


def _asdiv(_: str, row: dict) -> Problem | None:
    """None where the answer is not a single number but a name, a time, a ratio, several values, ..."""
    answer = _UNIT.sub("", _text(row, "Answer"))
    subject = _text(row, "Solution-Type")
    single = _NUMBER.fullmatch(answer)
    problem = Problem(
        id=_text(row, "ID"),
        question=_without_prefix(f"{_text(row, 'Body')} {_text(row, 'Question')}"),
        answer=_plain_number(answer) if single else answer,
        solution=_text(row, "Formula"),
        subject=SPELLING.get(subject, subject),
        level=int(row["Grade"]),
        source="asdiv",
    )
    return problem if single else None


def _multiarith(_: str, row: dict) -> Problem:
    (equation,), (answer,) = row["lEquations"], row["lSolutions"]
    question = _without_prefix(_text(row, "sQuestion"))
    return Problem(
        str(row["iIndex"]),
        question,
        _plain_number(number_text(answer, "the answer")),
        equation,
        "",
        None,
        "multiarith",
    )


def _svamp(_: str, row: dict) -> Problem:
    subject, answer = _text(row, "Type"), _plain_number(number_text(row["Answer"], "the answer"))
    return Problem(
        id=_text(row, "ID"),
        question=_without_prefix(f"{_text(row, 'Body')} {_text(row, 'Question')}"),
        answer="5" if (row["ID"], answer) == ("chal-680", "1") else answer,
        solution=_text(row, "Equation"),
        subject=SPELLING.get(subject, subject),
        level=None,
        source="svamp",
    )


def _rationales(key: str, row: dict, teacher: str) -> list[Rationale]:
    texts = row["generated_answer"]
    if not isinstance(texts, list) or [type(text) for text in texts] != [str] * SAMPLES:
        raise ValueError(f"generated_answer must be a list of {SAMPLES} texts")
    return [Rationale(key, index, _without_prefix(text), teacher) for index, text in enumerate(texts)]


_FORMATS = {  # name: file, reader of its rows, converter of a row
    "math": ("MATH/{split}.jsonl", line_rows, _math),
    "gsm8k": ("GSM8K/{split}.jsonl", line_rows, _gsm8k),
    "asdiv": ("ASDiv/ASDiv.xml", partial(xml_rows, tag="Problem"), _asdiv),
    "multiarith": ("MultiArith/MultiArith.json", list_rows, _multiarith),
    "svamp": ("SVAMP/SVAMP.json", list_rows, _svamp),
}
