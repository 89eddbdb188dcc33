"""Released teachers: the files of the rationales that came with the paper, in a folder or an archive.

    GPT4-MATH/train_gpt4_<subject>_8/<k>.jsonl    seven subjects, k from 0 without gaps, ten questions each
    one line                                      {"generated_answer": [eight texts], "question": ..., ...}

Nothing is extracted to disk.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from negdistill.data.formats import Row, broken, line_rows, unpack

TDG = {"tdg-gpt-3.5-turbo": "TDG/GPT3.5-turbo-MATH", "tdg-gpt-4": "TDG/GPT4-MATH"}  # name: folder
TDG_SUBJECTS = (
    *("algebra", "counting_and_probability", "geometry", "intermediate_algebra"),
    *("number_theory", "prealgebra", "precalculus"),
)
QUESTIONS, SAMPLES = 7_500, 8  # of a released teacher, and its rationales per question
MOST_FILES = 1_000  # of a subject; the largest has 175

_MEMBER = re.compile(rf"(?:^|/)train_gpt[0-9.]+_({'|'.join(TDG_SUBJECTS)})_{SAMPLES}/([0-9]+)\.jsonl$")


def tdg_files(path: Path) -> tuple[dict[tuple[str, int], tuple[str, bytes]], str]:
    """Files of one released teacher, (subject, k) -> (place for messages, bytes), from its folder or archive;
    and why the archive could not be read to its end ("" if it could).

    ValueError for a file with a number that none of them has, and for a sparse one, which has no end.
    """
    files = {}
    if path.is_dir():
        for file in path.rglob("*.jsonl"):
            if place := _member(str(path), file.as_posix()):
                files[place] = (str(file), unpack(file)[0])
        return files, ""
    content, why = unpack(path)
    members = []
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                if member.isfile() and _MEMBER.search(member.name):
                    whole = not member.issparse()
                    members.append((member.name, archive.extractfile(member).read() if whole else None))
    except (tarfile.TarError, ValueError, OverflowError) as error:
        why = why or f"the file is cut off or damaged: {error}"
    for name, data in members:
        if data is None:
            raise ValueError(f"{path} must hold whole files; {name} is sparse; pack it anew")
        files[_member(str(path), name)] = (f"{path}!{name}", data)
    return files, why


def _member(path: str, name: str) -> tuple[str, int] | None:
    """Subject and number of a teacher's file by its name; None for any other."""
    if not (match := _MEMBER.search(name)):
        return None
    if len(match[2]) >= len(str(MOST_FILES)):  # the numbers have no gaps: all below it would be missing
        raise ValueError(f"{path} must hold files numbered below {MOST_FILES}; got {name[:200]}; remove it")
    return match[1], int(match[2])


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


def loss(questions: int) -> str:
    """What a released teacher lacks, in words; one file that is missing holds ten questions."""
    lost, whole = (QUESTIONS - questions) * SAMPLES, QUESTIONS * SAMPLES
    return f"{lost:,} of {whole:,} rationales are lost"
