"""Claims: what is said about wrong answers, judged from the committed predictions.

    `predictions.predictions`      --Comparison-->  a difference, its interval over questions and seeds, p
    `judge`                        one row per comparison of every claim of the plan
    `claim_verdict`                what they say together

No number comes from anywhere but those files. A comparison whose rows are not there yet stays, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from negdistill.bookmaking.agreement import kappa, kappa_difference, kappa_share
from negdistill.bookmaking.claims_plan import REAL, SAME_ACCURACY, Comparison, Plan
from negdistill.bookmaking.predictions import chapters, predictions, rows_of, select
from negdistill.stats import VERDICTS, Difference, bootstrap_accuracy, holm, overlap, paired, verdict
from negdistill.training.method_table import COT, NEGATIVE

AGAIN = "CoT KD, again"
NOT_RUN, NOT_ASKED, SMALL = "not run yet", "not asked here", "smaller run"
NOT_PLANNED = "not planned"  # with this student
MIXED = "mixed"  # decided throughout, though not alike
DECIDES = ("decides", "real")  # roles of what decides, with the embedded and with the real student
COLUMNS = ["claim", "role", "label", "state", "value", "low", "high", "p", "sign", "baseline", "wider"]

# --- comparing ----------------------------------------------------------------------------------------


def pair(folder: str | Path, of: Comparison) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both sides of a comparison, of the seeds that both have. ValueError where a method is missing."""
    frame = select(predictions(folder, of.chapter), of.where)
    one, other = rows_of(frame, of.one), rows_of(frame, of.other)
    return one[one["seed"].isin(other["seed"])], other[other["seed"].isin(one["seed"])]


def compare(folder: str | Path, of: Comparison) -> Difference:
    """The paired difference of a comparison; errors as `pair`."""
    return paired(*pair(folder, of))


def is_there(folder: str | Path, of: Comparison) -> bool:
    """Whether the predictions hold both sides of a comparison."""
    if not chapters(folder).get(of.chapter, Path()).is_file():
        return False
    methods = set(select(predictions(folder, of.chapter), of.where)["method"].unique())
    return methods >= {*of.one, *of.other}


# --- judging ------------------------------------------------------------------------------------------


def judge_one(folder: str | Path, plan: Plan, of: Comparison) -> dict[str, object]:
    """A comparison as a row of COLUMNS, without the claim and its role."""
    row = {"label": of.label, "sign": of.sign, "wider": of.wider, "state": NOT_RUN}
    if not is_there(folder, of):
        return row
    one, other = pair(folder, of)
    baseline = bootstrap_accuracy(other)
    floor = plan.real_floor if of.chapter == REAL else plan.floor
    state = SMALL if of.chapter in plan.waiting else NOT_ASKED if baseline.low < floor else ""
    return row | paired(one, other)._asdict() | {"state": state, "baseline": baseline.value}


def _overlaps(folder: str | Path, chapter: str, wider: str, state: str) -> Iterator[dict[str, object]]:
    """Rows of a claim on overlap: students of positives and of negatives that solve equally many questions,
    beside two students of positives that do."""
    label = "100 kappa: positives and negatives − positives and positives"
    decides = {"role": "decides", "label": label, "sign": -1, "state": NOT_RUN, "wider": wider}
    where = {"budget": SAME_ACCURACY}
    methods = (COT, NEGATIVE, AGAIN)
    if not is_there(folder, Comparison("", chapter, where, methods[:1], methods[1:])):
        yield decides
        return
    frame = select(predictions(folder, chapter), where)
    right, wrong, again = (rows_of(frame, [method]) for method in methods)
    yield decides | kappa_difference(right, wrong, again)._asdict() | {"state": state}
    apart = paired(wrong, right)._asdict() | {"p": None}
    yield {"role": "ours", "label": "accuracy: negatives − positives", "state": "", "sign": 0} | apart
    measures = {"kappa": kappa, "kappa as a share of the largest possible": kappa_share, "overlap": overlap}
    for name, measure in measures.items():
        for whom, part in (("negatives", wrong), ("positives", again)):
            found = measure(right, part)._asdict()
            yield {"role": "ours", "label": f"positives and {whom}: {name}", "state": "", "sign": 0} | found
    gain = right.assign(correct=(right["correct"].to_numpy(bool) | _beside(right, wrong)))
    yield {"role": "ours", "label": "solved by the negative student alone", "state": "", "sign": 0} | (
        paired(gain, right)._asdict() | {"p": None}
    )


def _beside(right: pd.DataFrame, wrong: pd.DataFrame) -> np.ndarray:
    """Whether the other method solves each row's question under its seed."""
    solved = wrong.set_index(["seed", "problem_id"])["correct"]
    return solved.loc[list(zip(right["seed"], right["problem_id"], strict=True))].to_numpy(bool)


def judge(folder: str | Path, plan: Plan) -> pd.DataFrame:
    """All numbers of all claims, a row each, in COLUMNS, and holm.

    role      "decides"; "real", what decides with the real student; "control"; "ours", what is only shown
    state     "", NOT_RUN where the predictions lack a side, SMALL where the chapter waits for its size, else
              NOT_ASKED where the baseline solves too little
    value     a fraction, with its interval; sign says on which side of zero the claim expects it
    baseline  accuracy of what is subtracted
    holm      p of what decides, corrected for all comparisons that were asked of the same student
    """
    rows = []
    for claim in plan.claims:
        size = SMALL if claim.overlap in plan.waiting else ""
        found = list(_overlaps(folder, claim.overlap, claim.wider, size)) if claim.overlap else []
        groups = {"decides": claim.decided_by, "control": claim.controls, "real": claim.real}
        for role, several in groups.items():
            found += [{"role": role, **judge_one(folder, plan, of)} for of in several]
        rows += [{"claim": claim.number, **row} for row in found]
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS)
    asked = frame["p"].where(frame["state"] == "").astype(float)
    corrected = [holm(asked.where(frame["role"] == role)) for role in DECIDES]
    return frame.assign(holm=corrected[0].fillna(corrected[1]))


def claim_verdict(rows: pd.DataFrame, role: str = "decides") -> str:
    """One of stats.VERDICTS, MIXED, NOT_ASKED, NOT_PLANNED or NOT_RUN, from the rows that decide a claim.

    role  "decides", or "real" for the verdict with the real student

    NOT_PLANNED where there are none, NOT_RUN where one of them is missing or small, NOT_ASKED where none of
    the others could be asked; opposite where anything that was asked is; else undecided where anything is,
    what all of it is, or MIXED.
    """
    decides = rows[rows["role"] == role]
    if decides.empty:
        return NOT_PLANNED
    if decides["state"].isin([NOT_RUN, SMALL]).any():
        return NOT_RUN
    found = {verdict(row, row.sign) for row in decides[decides["state"] == ""].itertuples()}
    if not found:
        return NOT_ASKED
    for first in (VERDICTS[1], VERDICTS[3]):
        if first in found:
            return first
    return found.pop() if len(found) == 1 else MIXED


def too_wide(judged: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Rows that decide a claim with an interval wider than the plan allows, and no reason in it."""
    asked = judged[(judged["state"] == "") & judged["role"].isin(DECIDES)]
    limits = dict(zip(DECIDES, (plan.half_width, plan.real_half_width), strict=True))
    most = asked["role"].map(limits).astype(float)
    half = (asked["high"] - asked["low"]) / 2
    return asked[(half > most) & (asked["wider"] == "")]
