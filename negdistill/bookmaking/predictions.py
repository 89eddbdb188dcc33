"""Predictions: what the methods of the executed chapters answered.

executed notebook, NN_name.parquet beside it  --predictions-->      a frame, checked against its digest
folders below, runs with another teacher      --predictions-->      join it
an earlier run of the same chapter            --earlier_answers-->  what a longer run takes over
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pyarrow import parquet

from negdistill.bookmaking.tables import with_shifted
from negdistill.runs.digests import digest_file

PREDICTIONS = "predictions.parquet"
TOLD_BY = ("task", "student", "teacher")  # parameters by which runs of one chapter are told apart


def chapters(folder: str | Path) -> dict[str, Path]:
    """Files of predictions by what their notebooks declare them to be: {"negdistill": {"predictions": name}}.

    folder  of executed notebooks. ValueError where two declare the same.
    """
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).resolve().glob("[!.]*.ipynb")):
        if "." in path.stem:  # a run that failed, kept for its traceback
            continue
        kept = _declared(path).predictions
        if kept in found:
            raise ValueError(f"{path} declares predictions {kept!r}, as {found[kept].stem} does; rename one")
        if kept:
            found[kept] = path.with_suffix(".parquet")
    return found


def other_teachers(folder: str | Path, chapter: str) -> list[Path]:
    """Files of predictions in folders below, of runs of a chapter of this folder that differ in the teacher.

    A run on another task, or of another student, is none of them, whoever taught it.
    """
    own = chapters(folder).get(chapter)
    if own is None:
        return []
    below = (chapters(path).get(chapter) for path in sorted(Path(folder).glob("[!.]*/")))
    asked = _declared(own.with_suffix(".ipynb"))
    return [
        path for path in below if path and asked.differs_in_teacher(_declared(path.with_suffix(".ipynb")))
    ]


class _Declared(NamedTuple):
    """What a notebook declares its predictions to be; their digest and its parameters, in its provenance."""

    predictions: str
    digest: str
    parameters: Mapping[str, object]

    def differs_in_teacher(self, other: _Declared) -> bool:
        same = {name: self.parameters.get(name) == other.parameters.get(name) for name in TOLD_BY}
        return same == {name: name != "teacher" for name in TOLD_BY}


def _declared(path: Path) -> _Declared:
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> _Declared:
    declared = json.loads(path.read_text("utf-8"))["metadata"].get("negdistill", {})
    made = declared.get("manifest", {})
    digest = made.get("artifacts", {}).get(PREDICTIONS, "")
    return _Declared(declared.get("predictions", ""), digest, made.get("parameters", {}))


@lru_cache(maxsize=16)
def _predictions(*runs: tuple[Path, str, object]) -> pd.DataFrame:
    """The answers of runs, each a file, its digest and its teacher, which several are told apart by."""
    frames = []
    for path, digest, _ in runs:
        if digest_file(path) != digest:
            raise ValueError(
                f"{path} is not what its notebook left: the digests differ; restore it, or run the "
                "notebook again"
            )
        frames.append(parquet.read_table(path).to_pandas())
    if len(runs) == 1:
        return frames[0]
    taught = (frame.assign(teacher=teacher) for frame, (*_, teacher) in zip(frames, runs, strict=True))
    return pd.concat(taught, ignore_index=True)


def predictions(folder: str | Path, chapter: str) -> pd.DataFrame:
    """What a chapter's methods answered: method, seed, problem_id, level, answer, correct, and more columns.

    chapter  what its notebook declares its predictions to be

    Runs with other teachers, in folders below, join it, and the column `teacher` tells them apart.
    FileNotFoundError where no chapter left them in the folder, ValueError where a file was changed since.
    """
    path = chapters(folder).get(chapter)
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"no predictions {chapter!r} in {folder}: they are written with the executed notebook that "
            "declares them; run `python -m negdistill run --profile book`"
        )
    runs = [(one, _declared(one.with_suffix(".ipynb"))) for one in (path, *other_teachers(folder, chapter))]
    return _predictions(*((one, made.digest, made.parameters.get("teacher")) for one, made in runs))


def select(frame: pd.DataFrame, where: Mapping[str, object]) -> pd.DataFrame:
    """The rows with these values; set "shifted" is all but "test", questions apart."""
    for column, value in where.items():
        if (column, value) == ("set", "shifted"):
            frame = with_shifted(frame)["shifted"]
        elif column not in frame:
            return frame.iloc[:0]
        else:
            frame = frame[frame[column] == value]
    return frame


def rows_of(frame: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """The rows of the methods, questions numbered apart, as of one method."""
    parts = [frame[frame["method"] == method] for method in methods]
    if missing := [method for method, part in zip(methods, parts, strict=True) if part.empty]:
        raise ValueError(
            f"predictions must hold {missing[0]!r}; they hold {sorted(frame['method'].unique())}"
        )
    if len(parts) > 1:
        parts = [part.assign(problem_id=f"{n}:" + part["problem_id"]) for n, part in enumerate(parts)]
    return pd.concat(parts).assign(method="")


def earlier_answers(notebook: str | Path, common: Mapping[str, object]) -> pd.DataFrame:
    """The predictions of an earlier run of a chapter, to add seeds and conditions to without its fits.

    notebook  an executed notebook; "" for none, which gives an empty frame
    common    parameters by name that both runs must agree on: all that decides an answer, but for what the
              columns of the predictions tell apart

    ValueError for a notebook that was not run by the package or has no predictions beside it, for a parameter
    that differs, and for predictions that were changed since.
    """
    if not notebook:
        return pd.DataFrame()
    path = Path(notebook).resolve()
    made, beside = _declared(path), path.with_suffix(".parquet")
    if not (made.digest and beside.is_file()):
        raise ValueError(f"{path} must be an executed notebook with its predictions beside it")
    for name, value in common.items():
        if made.parameters.get(name) != value:
            raise ValueError(
                f"{name} must be {made.parameters.get(name)!r} as in the earlier run, {path}; got {value!r}: "
                "its answers are those of another experiment, leave `earlier` empty"
            )
    return _predictions((beside, made.digest, None))  # of this run alone, whatever lies around it
