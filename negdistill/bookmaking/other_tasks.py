"""Chapters that were run on another task: a folder of book/executed each, named like the profile.

book/executed/<profile>/NN_name.ipynb, .parquet  --table-->     a CSV in book/tables
                                                 --gains-->     what a figure of book/_static draws
                                                 --sections-->  tables of a page, and their provenance

Compared is what book/plan.yml asks under the name of the folder, else every method with CoT KD.

They stand beside the chapter's own run and decide no claim.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from negdistill.bookmaking.claims import COLUMNS, NOT_RUN, judge_one
from negdistill.bookmaking.claims_page import numbers_table
from negdistill.bookmaking.claims_plan import REAL, Comparison, Plan
from negdistill.bookmaking.predictions import chapters, other_teachers, predictions
from negdistill.bookmaking.provenance import Execution, listing
from negdistill.bookmaking.provenance import table as markdown
from negdistill.bookmaking.results import in_markdown
from negdistill.bookmaking.tables import method_table, percents
from negdistill.stats import holm
from negdistill.training.method_table import COT

ALL = "all"
SPANS = ("difference", "difference_low", "difference_high")


def folders(executed: Path) -> list[Path]:
    """Folders of such runs, by name; what begins with a dot is a program's own."""
    taught = {path.parent for chapter in chapters(executed) for path in other_teachers(executed, chapter)}
    found = (path for path in executed.glob("[!.]*/") if chapters(path))
    return sorted(path for path in found if path.resolve() not in taught)


def _chapter(folder: Path) -> tuple[str, Path]:
    """What a run declares its predictions to be, and their file; ValueError where there are several."""
    found = list(chapters(folder).items())
    if len(found) != 1:
        names = ", ".join(path.stem for _, path in found)
        raise ValueError(f"{folder} must hold one chapter; it holds {names}: run its profile with --only")
    return found[0]


def table(folder: Path) -> pd.DataFrame:
    """Every method on all questions and on those of each subject.

    Columns: set, ALL or a subject; method; what `tables.method_table` gives; baseline, CoT KD throughout.
    """
    frame = predictions(folder, _chapter(folder)[0]).drop(columns="set")
    parts = [(ALL, frame), *frame.groupby("subject")]
    found = [method_table(part).reset_index().assign(set=name) for name, part in parts]
    whole = pd.concat(found, ignore_index=True).assign(baseline=COT)
    return whole[["set", *(name for name in whole if name != "set")]]


def compared(folder: Path, plan: Plan) -> pd.DataFrame:
    """What is asked of a run, on all questions: rows of `claims.COLUMNS`, and holm over all of them."""
    chapter = _chapter(folder)[0]
    methods = predictions(folder, chapter)["method"].unique()
    usual = (Comparison(f"{one} − {COT}", chapter, {}, (one,), (COT,)) for one in methods if one != COT)
    asked = plan.elsewhere.get(folder.name) or tuple(usual)
    named = (of._replace(label=of.label.removeprefix(f"{REAL}: ")) for of in asked)  # as all of the page
    sized = plan._replace(waiting={})  # those sizes are of the chapter's own run
    rows = pd.DataFrame([judge_one(folder, sized, of) for of in named]).reindex(columns=COLUMNS)
    return rows.assign(holm=holm(rows["p"].where(rows["state"] == "").astype(float)))


def gains(folder: Path, plan: Plan) -> pd.DataFrame:
    """The differences of `compared` in the columns that `plots_claims.forest` draws."""
    rows = compared(folder, plan)
    drawn = rows.loc[rows["state"] != NOT_RUN, ["label", "value", "low", "high"]].reset_index(drop=True)
    return drawn.assign(series="", small=False, published=float("nan"))


def sections(executed: Path, plan: Plan) -> str:
    """Of every run in Markdown: each method on all questions and on each subject, what is compared, and the
    provenance."""
    return "\n\n".join(_section(folder, plan) for folder in folders(executed))


def _section(folder: Path, plan: Plan) -> str:
    rows = table(folder)
    sets = list(rows["set"].unique())
    gained = rows[rows["set"] == ALL].set_index("method")
    cells = rows.assign(text=percents(rows, "accuracy")).pivot(index="method", columns="set", values="text")
    cells.insert(1, f"− {COT}", percents(gained, *SPANS).where(gained["difference"].notna(), ""))
    named = [name for name in sets if name != ALL]
    shown = cells.loc[gained.index, [ALL, f"− {COT}", *named]]
    names = map(in_markdown, shown.columns)
    lines = ([in_markdown(name), *texts] for name, texts in zip(shown.index, shown.to_numpy(), strict=True))
    run = Execution.read(_chapter(folder)[1].with_suffix(".ipynb"))
    solved, asked = markdown(["method", *names], lines), "\n".join(numbers_table(compared(folder, plan)))
    return f"{solved}\n\n{asked}\n\n{listing(run)}"
