r"""Sources: the public question sets and the released rationales, read as they lie on disk.

    set                in the data folder                                           split and size
    math               MATH/train.jsonl, MATH/test.jsonl                            train 7,500, test 5,000
    gsm8k              GSM8K/train.jsonl, GSM8K/test.jsonl                          train 7,473, test 1,319
    asdiv              ASDiv/ASDiv.xml, ASDiv/nfolds/asdiv-a/fold0.txt ... fold4    test 2,084, ASDiv-A 1,218
    multiarith         MultiArith/MultiArith.json                                   test 600
    svamp              SVAMP/SVAMP.json                                             test 1,000
    tdg-gpt-3.5-turbo  TDG/GPT3.5-turbo-MATH/train_gpt3.5_<subject>_8/<k>.jsonl     8 rationales for each
    tdg-gpt-4          TDG/GPT4-MATH/train_gpt4_<subject>_8/<k>.jsonl               question of math, train
    arithmetic         nothing, it is generated                                    see `negdistill.arithmetic`

A .jsonl may be packed (.jsonl.gz), a TDG folder may be an archive (.tar.xz, .tar.gz) of the same name.

Between row and record only this is changed:
    white space  stripped around texts; body and question (asdiv, svamp) are joined by one space, and no
                 punctuation is added where a body ends without
    prefixes     "Problem:", "Solution:" and the line "Let's think step by step" are cut off, unless kept
    answer       math: last \boxed; others: plain number, 1,000 -> 1000, 51.0 -> 51, U+2212 -> -
    solution     gsm8k: without the calculator marks <<48/2=24>>, with its last line "#### 72";
                 asdiv, multiarith, svamp: the equation
    spelling     of two subjects, see SPELLING
    chal-680     of svamp stores the answer 1 against its own equation and story (4 - 2 + 3). It is read as 5;
                 against the stored answer that moves a score by at most 0.1 points.
Two training solutions of math end in an empty box: their answer is "", which no rationale equals.
"""

from __future__ import annotations

import io
import os
import random
import re
import tarfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path

import platformdirs

from negdistill.checks import check_choice
from negdistill.data import arithmetic
from negdistill.data.answers import final_answer
from negdistill.data.formats import Row, broken, gather, line_rows, list_rows, unpack, xml_rows
from negdistill.data.records import Problem, Rationale

PROBLEM_SETS = {  # name: splits
    "math": ("train", "test"),
    "gsm8k": ("train", "test"),
    "asdiv": ("test",),
    "multiarith": ("test",),
    "svamp": ("test",),
    "arithmetic": tuple(arithmetic.SPLITS),
}
TDG = {"tdg-gpt-3.5-turbo": "TDG/GPT3.5-turbo-MATH", "tdg-gpt-4": "TDG/GPT4-MATH"}  # name: folder
TDG_SUBJECTS = (
    *("algebra", "counting_and_probability", "geometry", "intermediate_algebra"),
    *("number_theory", "prealgebra", "precalculus"),
)
RATIONALE_SETS = (*TDG, "arithmetic")
SAMPLES = 8  # rationales per question
SPELLING = {"Common-Divison": "Common-Division", "Substraction": "Subtraction"}

_PREFIX = re.compile(r"(?:(?:Problem|Solution):|Let's think step by step\.?(?=\n|$))\s*")
_MARK = re.compile(r"<<[^<>]*>>")
_NUMBER = re.compile(r"[-\N{MINUS SIGN}]?[0-9][0-9,]*(?:\.[0-9]+)?")
_UNIT = re.compile(r"\s*\([^()]*\)$")
_MEMBER = re.compile(rf"(?:^|/)train_gpt[0-9.]+_({'|'.join(TDG_SUBJECTS)})_{SAMPLES}/([0-9]+)\.jsonl$")


def load_problems(
    name: str,
    split: str = "test",
    data_dir: str | Path | None = None,
    *,
    subset: str | None = None,
    n: int | None = None,
    seed: int = 0,
    keep_prefix: bool = False,
    on_error: str = "raise",
) -> list[Problem]:
    """Problems of one set, in the order of its file.

    name         one of PROBLEM_SETS
    split        one of PROBLEM_SETS[name]
    data_dir     data folder; None: NEGDISTILL_DATA, else the user's cache
    subset       asdiv only: "a" is ASDiv-A; None is every question whose answer is a single number
    n, seed      seeded sample of n problems without replacement, in file order; None is all of them.
                 arithmetic has no end: n problems are generated
    keep_prefix  keep "Problem:" where a file has it
    on_error     "raise" at a malformed row, or "skip": leave it out, and warn with the count

    Raises FileNotFoundError, saying what to type, where the data is missing; ValueError for a wrong argument,
    and for a malformed, truncated or non-UTF-8 row with its file and line.
    """
    check_choice("name", name, PROBLEM_SETS)
    check_choice(f"split of {name}", split, PROBLEM_SETS[name])
    check_choice(f"subset of {name}", subset, (None, "a") if name == "asdiv" else (None,))
    if name == "arithmetic":
        return arithmetic.generate(split, _generated(n), seed)
    folder = data_folder(data_dir)
    file, read_rows, convert = _FORMATS[name]
    path, cut = find(folder, name, file.format(split=split)), str if keep_prefix else _without_prefix
    rows = read_rows(*unpack(path), str(path))
    problems = _collect(path, rows, lambda key, row: convert(f"{split}:{key}", row, cut), on_error)
    problems = [problem for problem in problems if problem]  # None: asdiv, not a single number
    if subset == "a":
        problems = _asdiv_a(folder, problems)
    return [problems[i] for i in _sample(len(problems), n, seed)]


def load_rationales(
    name: str,
    data_dir: str | Path | None = None,
    *,
    n: int | None = None,
    seed: int = 0,
    strength: str | None = None,
    keep_prefix: bool = False,
    on_error: str = "raise",
) -> list[Rationale]:
    """Eight rationales per question of one teacher, question by question.

    name         one of RATIONALE_SETS; `problem_id` is an id of `load_problems("math", "train")`, and of
                 `load_problems("arithmetic", "train", n=n, seed=seed)` for arithmetic
    n, seed      number of questions; the same n and seed give the same questions in `load_problems`
    strength     arithmetic only: "weak" (what None means) or "strong"
    keep_prefix  keep the text exactly as the teacher wrote it; else "Solution:", "Let's think step by step"
                 and the white space around the text are cut off

    `data_dir`, `on_error` and errors as in `load_problems`.
    """
    check_choice("name", name, RATIONALE_SETS)
    if name == "arithmetic":
        problems = arithmetic.generate("train", _generated(n), seed)
        return arithmetic.teach(problems, strength or "weak", SAMPLES, seed)
    check_choice(f"strength of {name}", strength, (None,))
    cut = str if keep_prefix else _without_prefix
    teacher = name.removeprefix("tdg-")
    path = find(data_folder(data_dir), name, TDG[name])
    groups = _collect(path, tdg_rows(path), lambda key, row: _rationales(key, row, teacher, cut), on_error)
    return [rationale for i in _sample(len(groups), n, seed) for rationale in groups[i]]


def _generated(n: int | None) -> int:
    if n is None:
        raise ValueError("n must be a number for arithmetic, which is generated without end; got None")
    return n


def _sample(size: int, n: int | None, seed: int) -> list[int]:
    if n is None:
        return list(range(size))
    if not 1 <= n <= size:
        raise ValueError(f"n must be from 1 to {size}, the size of this set, or None for all; got {n!r}")
    return sorted(random.Random(seed).sample(range(size), n))


def _collect(path: Path, rows: Iterator[Row], convert: Callable, on_error: str) -> list:
    pairs = ((place, lambda key=key, read=read: convert(key, read())) for place, key, read in rows)
    if not (collected := list(gather(pairs, on_error))):
        raise ValueError(f"{path} holds no row that can be read")
    return collected


# --- folders ------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where `python -m negdistill data get` writes."""
    return Path(platformdirs.user_cache_dir("negdistill", appauthor=False)) / "data"


def data_folder(data_dir: str | Path | None = None) -> Path:
    """The folder to read: the argument, else NEGDISTILL_DATA, else the user's cache."""
    return Path(data_dir or os.environ.get("NEGDISTILL_DATA") or cache_folder()).expanduser()


def locate(folder: Path, path: str) -> Path | None:
    """File or folder `path` of a data folder, plain or packed; None where it is missing."""
    candidates = (folder / f"{path}{packing}" for packing in ("", ".gz", ".tar.xz", ".tar.gz"))
    return next((candidate for candidate in candidates if candidate.exists()), None)


def find(folder: Path, name: str, path: str) -> Path:
    """As `locate`; FileNotFoundError, saying what to type, where it is missing."""
    if found := locate(folder, path):
        return found
    raise FileNotFoundError(
        f"{name} needs {path}, which is not in {folder}; type `python -m negdistill data get {name}` to "
        f"fetch it into {cache_folder()}, or set NEGDISTILL_DATA (or data_dir) to a folder that has it"
    )


# --- files to rows ------------------------------------------------------------------------------------


def tdg_files(path: Path) -> tuple[dict[tuple[str, int], tuple[str, bytes]], str]:
    """Files of one released teacher, (subject, k) -> (place for messages, bytes), from its folder or archive;
    and why the archive could not be read to its end ("" if it could). Nothing is extracted to disk.
    """
    files = {}
    if path.is_dir():
        for file in path.rglob("*.jsonl"):
            if match := _MEMBER.search(file.as_posix()):
                files[match[1], int(match[2])] = (str(file), file.read_bytes())
        return files, ""
    content, why = unpack(path)
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                if member.isfile() and (match := _MEMBER.search(member.name)):
                    data = archive.extractfile(member).read()
                    files[match[1], int(match[2])] = (f"{path}!{member.name}", data)
    except tarfile.TarError as error:
        why = why or f"the file is cut off or damaged: {error}"
    return files, why


def tdg_rows(path: Path) -> Iterator[Row]:
    """Lines by subject and file number (2.jsonl comes before 10.jsonl); the key is algebra/0.jsonl:3."""
    files, why = tdg_files(path)
    if why:
        yield str(path), "", partial(broken, why)
    for subject in TDG_SUBJECTS:
        last = max((k for other, k in files if other == subject), default=0)
        for k in range(last + 1):
            if (subject, k) not in files:
                yield f"{path}, {subject}/{k}.jsonl", "", partial(broken, "the file is missing")
                continue
            where, data = files[subject, k]
            for place, line, read in line_rows(data, "", where):
                yield place, f"{subject}/{k}.jsonl:{line}", read


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
    return f"{value.normalize() + 0:f}"


def _math(key: str, row: dict, cut: Callable) -> Problem:
    solution = _text(row, "solution")
    answer = final_answer(solution)
    if answer is None and r"\boxed{}" not in solution:
        raise ValueError(r"the solution has no \boxed answer")
    level = re.search("[1-5]", _text(row, "level"))  # two of the training problems have "Level ?"
    return Problem(
        id=_text(row, "tdg") if key.startswith("train") else key,
        question=cut(_text(row, "problem")),
        answer=answer or "",
        solution=solution,
        subject=_text(row, "type"),
        level=int(level[0]) if level else None,
        source="math",
    )


def _gsm8k(key: str, row: dict, cut: Callable) -> Problem:
    solution = _MARK.sub("", _text(row, "answer"))
    if solution.count("####") != 1:
        raise ValueError("the answer must have one line #### <number>")
    answer = _plain_number(solution.rpartition("####")[2])
    return Problem(key, cut(_text(row, "question")), answer, solution, "", None, "gsm8k")


def _asdiv(_: str, row: dict, cut: Callable) -> Problem | None:
    """None where the answer is not a single number but a name, a time, a ratio, several values, ..."""
    answer = _UNIT.sub("", _text(row, "Answer"))
    subject = _text(row, "Solution-Type")
    single = _NUMBER.fullmatch(answer)
    problem = Problem(
        id=_text(row, "ID"),
        question=cut(f"{_text(row, 'Body')} {_text(row, 'Question')}"),
        answer=_plain_number(answer) if single else answer,
        solution=_text(row, "Formula"),
        subject=SPELLING.get(subject, subject),
        level=int(row["Grade"]),
        source="asdiv",
    )
    return problem if single else None


def _asdiv_a(folder: Path, problems: list[Problem]) -> list[Problem]:
    folds = [find(folder, "asdiv", f"ASDiv/nfolds/asdiv-a/fold{i}.txt") for i in range(5)]
    members = {member for fold in folds for member in fold.read_text(encoding="utf-8").split()}
    return [problem for problem in problems if problem.id in members]


def _multiarith(_: str, row: dict, cut: Callable) -> Problem:
    (equation,), (answer,) = row["lEquations"], row["lSolutions"]
    question = cut(_text(row, "sQuestion"))
    return Problem(str(row["iIndex"]), question, _plain_number(str(answer)), equation, "", None, "multiarith")


def _svamp(_: str, row: dict, cut: Callable) -> Problem:
    subject, answer = _text(row, "Type"), _plain_number(str(row["Answer"]))
    return Problem(
        id=_text(row, "ID"),
        question=cut(f"{_text(row, 'Body')} {_text(row, 'Question')}"),
        answer="5" if (row["ID"], answer) == ("chal-680", "1") else answer,
        solution=_text(row, "Equation"),
        subject=SPELLING.get(subject, subject),
        level=None,
        source="svamp",
    )


def _rationales(key: str, row: dict, teacher: str, cut: Callable) -> list[Rationale]:
    texts = row["generated_answer"]
    if not isinstance(texts, list) or [type(text) for text in texts] != [str] * SAMPLES:
        raise ValueError(f"generated_answer must be a list of {SAMPLES} texts")
    return [Rationale(key, index, cut(text), teacher) for index, text in enumerate(texts)]


_FORMATS = {  # name: file, reader of its rows, converter of a row
    "math": ("MATH/{split}.jsonl", line_rows, _math),
    "gsm8k": ("GSM8K/{split}.jsonl", line_rows, _gsm8k),
    "asdiv": ("ASDiv/ASDiv.xml", partial(xml_rows, tag="Problem"), _asdiv),
    "multiarith": ("MultiArith/MultiArith.json", list_rows, _multiarith),
    "svamp": ("SVAMP/SVAMP.json", list_rows, _svamp),
}
