"""Reproduction: some answers of the book, made again by the package as it is, beside the committed ones.

    notebook, profile, fewer seeds or rows  --run, in folders apart-->  predictions
    these and the committed ones  --answer by answer-->  a line of book/reproduced.csv

Hours of training are not repeated for every change of code that they depend on. A part of them is: where all
its answers are the same ones, the change has not touched these.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TextIO

import pandas as pd

from negdistill.bookmaking import pipeline
from negdistill.bookmaking.damage import BESIDE
from negdistill.bookmaking.documents import put_rows, read_rows
from negdistill.bookmaking.planning import Failure, Job, apart, inputs_of, plan, select, shared_inputs, stored
from negdistill.bookmaking.predictions import PREDICTIONS
from negdistill.bookmaking.provenance import Execution, code, table
from negdistill.runs.digests import digest_file, digest_json

RECORDS = "reproduced.csv"  # below book/
RESULTS = ("answer", "correct", "steps", "tokens")  # of an answer; the other columns say which one it is


def reproduce(
    root: Path,
    profile: str,
    only: Sequence[str],
    overrides: Mapping[str, object] | None = None,
    say: Callable[[str], None] = lambda line: None,
    jobs: int | None = None,
    terminal: TextIO | None = None,
) -> list[dict[str, object]]:
    """Run notebooks apart from what the profile has, and compare their answers with those it has.

    overrides  parameters that take a part of the chapter, such as {"seeds": [0]}

    A record for each notebook that ran, also written to book/reproduced.csv in the place of an older one. Its
    counts: answers compared, equal ones, and `of` how many that the profile has. ValueError for a notebook
    without predictions, there or here, and where none of its answers is among those that the profile has;
    else as `pipeline.run`, after what did run was compared.
    """
    planned = plan(root, profile, only, overrides)
    chosen = [job for job in planned if job.name in select([job.name for job in planned], only)]
    for job in chosen:
        committed(job)  # before hours are spent
    now, failed, found = standing(root, profile), None, []
    try:
        pipeline.run(root, profile, only, False, overrides, say, jobs, terminal, aside=True)
    except Failure as failure:  # what lies there may be of an earlier reproduction
        failed, chosen = failure, [job for job in chosen if job.name in failure.done]
    for job in chosen:
        again = pd.read_parquet(committed(apart(root, profile, job)))
        counts = compare(job.name, pd.read_parquet(committed(job)), again, say)
        given = {name: value for name, value in (overrides or {}).items() if name in job.parameters}
        found.append(now[job.name] | {"date": str(date.today()), "changed": json.dumps(given)} | counts)
        put_rows(root / "book" / RECORDS, found[-1:], ("scale", "chapter"))
    if failed:
        raise failed
    return found


def committed(job: Job) -> Path:
    """The predictions beside an executed notebook; ValueError where there are none."""
    path = job.target.with_suffix(BESIDE[PREDICTIONS])
    if stored(job) is None or not path.is_file():
        raise ValueError(
            f"{job.name} has no predictions to compare ({path}); run it with the profile instead"
        )
    return path


def compare(
    name: str, ours: pd.DataFrame, again: pd.DataFrame, say: Callable[[str], None] = lambda line: None
) -> dict[str, int]:
    """Counts of the answers that both frames have: answers, equal ones, and `of` all of the first.

    name  of the notebook, in front of what is said and of a ValueError
    """
    keys = [column for column in ours if column not in RESULTS]
    if list(again.columns) != list(ours.columns):
        raise ValueError(f"{name}: columns must be {', '.join(ours)}; got {', '.join(again)}")
    for frame in (ours, again):
        if (twice := frame.duplicated(keys)).any():
            raise ValueError(
                f"{name}: an answer must stand once; {frame[twice].iloc[0][keys].to_dict()} repeats"
            )
    both = ours.merge(again, on=keys, suffixes=("", " again"))
    if both.empty:
        raise ValueError(
            f"{name}: none of the answers made is among those compared with; choose other parameters"
        )
    pairs = [(both[column], both[f"{column} again"]) for column in RESULTS if column in ours]
    same = pd.concat([(a == b) | (a.isna() & b.isna()) for a, b in pairs], axis=1).all(axis=1)
    for method, count in both.loc[~same, "method"].value_counts().items():
        say(f"{name}: different: {count} of {(both['method'] == method).sum()} answers of {method}")
    return {"answers": len(both), "equal": int(same.sum()), "of": len(ours)}


# --- records ------------------------------------------------------------------------------------------


def standing(root: Path, profile: str) -> dict[str, dict[str, str]]:
    """What a comparison holds for: of each notebook all that its outputs depend on, and its predictions."""
    jobs, shared = plan(root, profile), shared_inputs(root, profile)
    made = {job.name: stored(job) for job in jobs}
    files = {job.name: job.target.with_suffix(BESIDE[PREDICTIONS]) for job in jobs if made[job.name]}
    return {
        job.name: {
            "scale": profile,
            "chapter": job.name,
            "inputs": digest_json([inputs_of(job, shared, made), job.parameters]),
            "predictions": digest_file(files[job.name]),
        }
        for job in jobs
        if job.name in files and files[job.name].is_file()
    }


def in_words(record: Mapping[str, object]) -> str:
    """As "5,600 of 44,800 answers, all the same"."""
    different = record["answers"] - record["equal"]
    outcome = f"{different:,} of them different" if different else "all the same"
    return f"{record['answers']:,} of {record['of']:,} answers, {outcome}"


def holding(root: Path, profile: str) -> dict[str, str]:
    """In words what was made again, for each chapter where that was done with all as it is now."""
    known = [one for one in read_rows(root / "book" / RECORDS) if one["scale"] == profile]
    now = standing(root, profile) if known else {}
    return {
        one["chapter"]: f"made again: {in_words(one)}"
        for one in known
        if one["chapter"] in now and now[one["chapter"]].items() <= one.items()
    }


def listing(root: Path, runs: Sequence[Execution]) -> str:
    """A table, in MyST, of what was made again of the predictions that are shown."""
    shown = {run.made.artifacts.get(PREDICTIONS): run.link for run in runs}
    rows = [
        [
            shown[one["predictions"]],
            one["date"],
            ", ".join(code(f"{name}={value!r}") for name, value in json.loads(one["changed"]).items()),
            in_words(one),
        ]
        for one in read_rows(root / "book" / RECORDS)
        if one["predictions"] in shown
    ]
    return table(["chapter", "date", "with", "made again"], rows) if rows else "Nothing was made again yet."
