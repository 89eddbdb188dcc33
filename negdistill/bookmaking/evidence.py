"""Evidence: what the committed predictions say beside the claims, and the files that show it.

    uses           what each use of wrong answers adds to the same student without it     --> headline.png
    conditions     what NAT gains under every condition that was run                      --> conditions.png
    result_tables  all methods of every chapter, side by side                             --> a CSV each
    refresh        writes those files, and the cards of book/claims.md in every language

A figure carries the digest of the numbers that it shows, so that a test can tell when they have changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from negdistill.bookmaking import other_tasks, plots
from negdistill.bookmaking.claims import compare, is_there, judge
from negdistill.bookmaking.claims_page import cards, claim_figures
from negdistill.bookmaking.claims_plan import METHODS, REAL, TEACHERS, Plan, read_plan
from negdistill.bookmaking.editions import editions
from negdistill.bookmaking.plots_claims import forest
from negdistill.bookmaking.predictions import chapters, predictions, rows_of, select
from negdistill.bookmaking.tables import method_table
from negdistill.runs.digests import digest_json
from negdistill.runs.files import atomic_path, atomic_write_text
from negdistill.stats import paired

STEPS, BEST = "equal steps", "best point"
BUDGETS = (STEPS, "as in the paper", BEST)
EMPTY = "NAT, empty branch"
REAL_STUDENT = "real student"
# columns that tell a chapter's predictions apart, beside method, seed and question
KEYS = ("teacher", "student", "variant", "set", "budget", "axis", "at", "check")


def uses(folder: str | Path, plan: Plan) -> pd.DataFrame:
    """What each use of wrong answers adds, in the columns that `plots_claims.forest` draws.

    Compared is a student that uses them with one that does not, as the plan says. A use whose predictions are
    not there is left out; one of a chapter that waits for its planned size is marked as small.
    """
    rows = []
    for use, several in plan.uses.items():
        for of in several:
            if is_there(folder, of):
                teacher = of.where.get("teacher", "weak")
                who = REAL_STUDENT if of.chapter == REAL else f"embedded student, {teacher} teacher"
                row = {"label": use, "series": who, "small": of.chapter in plan.waiting, "published": None}
                rows.append(row | compare(folder, of)._asdict())
    return pd.DataFrame(rows).astype({"published": float})


def conditions(folder: str | Path) -> pd.DataFrame:
    """What NAT gains over CoT KD, and over its empty branch, under each condition that was run.

    Columns: kind ("budget", "level" or "ablation"), condition, teacher, against, difference, low and high, p.
    """
    frame, rows = predictions(folder, "methods"), []
    there = [budget for budget in BUDGETS if (frame["budget"] == budget).any()]
    for teacher in TEACHERS:
        for budget in there:
            part = select(frame, {"teacher": teacher, "budget": budget})
            rows += _gains(part, {"kind": "budget", "condition": budget, "teacher": teacher})
        part = select(frame, {"teacher": teacher, "budget": BEST})
        for of, group in part.groupby("level"):
            rows += _gains(group, {"kind": "level", "condition": f"level {of:.0f}", "teacher": teacher})
    for variant, part in predictions(folder, "ablations").groupby("variant", sort=False):
        rows += _gains(part, {"kind": "ablation", "condition": variant, "teacher": "weak"})
    return pd.DataFrame(rows)


def _gains(part: pd.DataFrame, named: Mapping[str, object]) -> list[dict[str, object]]:
    nat = rows_of(part, ["NAT"])
    there = [other for other in ("CoT KD", EMPTY) if (part["method"] == other).any()]
    found = {other: paired(nat, rows_of(part, [other])) for other in there}
    names = ("difference", "low", "high", "p")
    return [
        {**named, "against": other, **dict(zip(names, values, strict=True))}
        for other, values in found.items()
    ]


def result_tables(folder: str | Path) -> dict[str, pd.DataFrame]:
    """All methods of every chapter that left predictions in the folder, by chapter.

    Columns: what tells a chapter's predictions apart beside method, seed and question; method; what
    `tables.method_table` gives; and the baseline of the differences: CoT KD, in the chapter on NCE KD, of a
    vote SC by the same student, and where it is missing the first row.
    """
    tables = {}
    for kind, path in chapters(folder).items():
        frame = predictions(folder, kind)
        if kind == "votes":
            frame = frame.assign(student=frame["method"].str.rpartition(", ")[0])
        keys = [name for name in KEYS if name in frame]
        groups = frame.groupby(keys, sort=False) if keys else [((), frame)]
        parts = []
        for values, part in groups:
            wanted = {"nce": "KD", "votes": f"{values[0]}, SC" if values else ""}.get(kind, "CoT KD")
            methods = part["method"].unique()
            baseline = wanted if wanted in methods else methods[0]
            table = method_table(part.drop(columns=keys), baseline=baseline).reset_index()
            parts.append(table.assign(**dict(zip(keys, values, strict=True)), baseline=baseline))
        whole = pd.concat(parts, ignore_index=True)
        tables[path.stem] = whole[[*keys, *(name for name in whole if name not in keys)]]
    return tables


# --- files --------------------------------------------------------------------------------------------

TABLE = re.compile(r"(<!-- claims: begin -->\n).*?(<!-- claims: end -->)", re.DOTALL)
DIGITS = 4  # of a fraction, in the files: a hundredth of a point


def figures(used: pd.DataFrame, under: pd.DataFrame, plan: Plan) -> dict[str, tuple[pd.DataFrame, Figure]]:
    """The committed figures by name of their file: the numbers shown, and the figure.

    used, under  what `uses` and `conditions` return
    """
    plots.style()
    under = under[under["kind"] != "ablation"]  # those are a figure of their own chapter
    under = under.rename(columns={"condition": "label", "difference": "value"}).assign(
        series="NAT − " + under["against"] + ", " + under["teacher"] + " teacher",
        small=METHODS in plan.waiting,
        published=float("nan"),
    )
    shown = {"headline.png": used, "conditions.png": under}
    return {name: (frame, forest(frame, plan.margin)) for name, frame in shown.items()}


def other_figures(folder: Path, plan: Plan) -> dict[str, tuple[pd.DataFrame, Figure]]:
    """As `figures`, what the methods gain on each other task."""
    found = {other.name: other_tasks.gains(other, plan) for other in other_tasks.folders(folder)}
    return {f"{name}.png": (frame, forest(frame, plan.margin)) for name, frame in found.items() if len(frame)}


def digest(frame: pd.DataFrame) -> str:
    """sha256 of a table of numbers, as the figure that shows it carries it."""
    return digest_json(frame.round(DIGITS).to_dict("records"))


def _write_cards(page: Path, text: str) -> None:
    whole, found = TABLE.subn(lambda mark: f"{mark[1]}{text}\n{mark[2]}", page.read_text("utf-8"))
    if found != 1:
        raise ValueError(
            f"{page} must hold <!-- claims: begin --> and <!-- claims: end --> once; got {found}"
        )
    atomic_write_text(page, whole)


def refresh(root: Path) -> list[Path]:
    """Write all that follows from book/plan.yml and the predictions in book/executed: the cards of
    book/claims.md and of its other editions, all figures of book/_static that show results, and a CSV for
    every chapter and other task, in book/tables. Returns the paths written."""
    book = root / "book"
    folder, written = book / "executed", []
    plan = read_plan(book / "plan.yml")
    judged = judge(folder, plan)
    for edition in editions(book):
        written.append(book / edition.folder / "claims.md")
        _write_cards(written[-1], cards(judged, plan, edition))
    under = conditions(folder)
    drawn = figures(uses(folder, plan), under, plan) | claim_figures(judged, plan)
    drawn |= other_figures(folder, plan)
    for name, (frame, figure) in drawn.items():
        with atomic_path(book / "_static" / name) as path:
            figure.savefig(path, metadata={"Description": digest(frame)})
        written.append(book / "_static" / name)
    others = {other.name: other_tasks.table(other) for other in other_tasks.folders(folder)}
    for name, frame in {**result_tables(folder), **others, "conditions": under}.items():
        written.append(book / "tables" / f"{name}.csv")
        with atomic_path(written[-1]) as path:
            frame.round(DIGITS).to_csv(path, index=False)
    return written
