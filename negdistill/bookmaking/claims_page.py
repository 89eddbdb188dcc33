"""The page of the claims: a card for each, and the figure that stands in it.

judge(folder, plan)  -->  cards, in MyST, and a forest plot of what decides, for the claims.md of an edition
plan_page            -->  the plan in words, for book/plan.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from negdistill.bookmaking.claims import (
    DECIDES,
    MIXED,
    NOT_ASKED,
    NOT_RUN,
    SMALL,
    claim_verdict,
    is_there,
)
from negdistill.bookmaking.claims_plan import TEACHERS, Claim, Comparison, Plan, read_plan
from negdistill.bookmaking.documents import read_yaml
from negdistill.bookmaking.editions import ENGLISH, Edition
from negdistill.bookmaking.plots_claims import forest
from negdistill.bookmaking.tables import percent, published_methods, published_solved
from negdistill.stats import VERDICTS, verdict

NO_NUMBER = "not available to us"
BADGES = dict(zip((*VERDICTS, MIXED), ("success", "danger", "info", "secondary", "primary"), strict=True))


def signed(value: float, low: float, high: float) -> str:
    """Fractions as points, with signs: "+1.2 [−0.3, +2.7]"."""
    ends = (f"{round(100 * number, 1) + 0.0:+.1f}".replace("-", "−") for number in (value, low, high))
    return "{} [{}, {}]".format(*ends)


def published_difference(one: str, other: str, teacher: str) -> float | None:
    """Of two methods in the paper's Table 2 for LLaMA-7B, a fraction; None where a row is not printed."""
    table = published_methods()
    table = table[(table["student"] == "LLaMA 7B") & table["teacher"].isin(["", TEACHERS[teacher]])]
    accuracy = table.set_index("method")["accuracy"]
    return None if {one, other} - set(accuracy.index) else float(accuracy[one] - accuracy[other])


def published(claim: Claim, edition: Edition = ENGLISH) -> str:
    """What the paper says about a claim, in a line."""
    found = []
    for one, other in claim.differences:
        gains = (
            f"{100 * published_difference(one, other, name):+.2f} ({TEACHERS[name]})" for name in TEACHERS
        )
        found.append(f"{one} − {other} {', '.join(gains)}".replace("-", "−").replace("GPT−", "GPT-"))
    if claim.overlap:
        found.append(edition.say("overlap {:.3f} of the union").format(published_solved().loc["all", "iou"]))
    found += [edition.say(claim.published)] if claim.published else []
    return "; ".join(found) or edition.say(NO_NUMBER)


def _published_of(of: Comparison, claim: Claim) -> float | None:
    """None where the claim names no published difference of the two, as where other questions were asked."""
    pairs = [((one,), (other,)) for one, other in claim.differences]
    teacher = of.where.get("teacher", "weak")
    return published_difference(*of.one, *of.other, teacher) if (of.one, of.other) in pairs else None


# --- cards --------------------------------------------------------------------------------------------


def figure_of(claim: Claim, rows: pd.DataFrame, plan: Plan) -> tuple[pd.DataFrame, Figure] | None:
    """The numbers of what decides a claim and their figure; None where nothing of it is there."""
    there = rows[rows["role"].isin(DECIDES) & (rows["state"] != NOT_RUN)]
    if there.empty:
        return None
    known = {of.label: _published_of(of, claim) for of in (*claim.decided_by, *claim.real)}
    shown = there[["label", "value", "low", "high"]].assign(
        series="", small=there["state"] == SMALL, published=there["label"].map(known).astype(float)
    )
    return shown, forest(shown, plan.margin)


def controls_say(rows: pd.DataFrame, edition: Edition = ENGLISH) -> str:
    """One line: how many controls there are, and which of them differ from zero."""
    controls = rows[(rows["role"] == "control")]
    there = controls[~controls["state"].isin([NOT_RUN])]
    if controls.empty:
        return edition.say("There are no controls to this claim.")
    if there.empty:
        return edition.say("None of its {} controls has been run yet.").format(len(controls))
    apart = [row for row in there.itertuples() if row.low > 0 or row.high < 0]
    differ = "; ".join(f"{row.label} {signed(row.value, row.low, row.high)}" for row in apart)
    several = (", none differs from zero.", ", 1 differs from zero: {1}.", ", {0} differ from zero: {1}.")
    counted = [("Of {} controls", (len(controls),)), (several[min(len(apart), 2)], (len(apart), differ))]
    if len(there) < len(controls):
        counted.insert(1, (", {} run so far", (len(there),)))
    return "".join(edition.say(text).format(*numbers) for text, numbers in counted)


def _said(row: NamedTuple) -> tuple[str, str]:
    """The number of a row, and what it says alone."""
    if row.state == NOT_RUN:
        return "", NOT_RUN
    numbers = row.value, row.low, row.high
    if row.role == "ours":
        if "accuracy" in row.label:
            return signed(*numbers), ""
        return ("{:.3f} [{:.3f}, {:.3f}]".format(*numbers) if "kappa" in row.label else percent(*numbers)), ""
    alone = NOT_ASKED if row.state == NOT_ASKED else verdict(row, row.sign)
    return signed(*numbers), f"{alone}, {SMALL}" if row.state == SMALL else alone


def numbers_table(rows: pd.DataFrame) -> Iterator[str]:
    """Lines of a table in Markdown, from rows of `claims.COLUMNS` and holm; bold is what decides."""
    yield "| what is compared | points | says | p | Holm |\n| --- | --- | --- | --- | --- |"
    for row in rows.itertuples():
        number, says = _said(row)
        ps = ("" if pd.isna(p) else f"{p:.4f}" for p in (row.p, row.holm))
        bold = f"**{row.label}**" if row.role in DECIDES else row.label
        yield f"| {bold} | {number} | {says} | {' | '.join(ps)} |"


def _badge(kind: str, found: str, edition: Edition) -> str:
    return f"{{bdg-{BADGES.get(found, 'light')}}}`{edition.say(kind).format(edition.say(found))}`"


def _numbers(claim: Claim, rows: pd.DataFrame, edition: Edition) -> str:
    """The table of all numbers, or from another language a link to the English one."""
    title = edition.say("All numbers")
    if edition != ENGLISH:
        return f"[{title}](#claim-{claim.number})"
    return f":::{{dropdown}} {title}\n:class-container: numbers\n" + "\n".join(numbers_table(rows)) + "\n:::"


def card(claim: Claim, rows: pd.DataFrame, has_figure: bool, edition: Edition = ENGLISH) -> str:
    """A claim in MyST: its sentence, verdicts, figure, the published numbers, its controls, all numbers."""
    say, number = edition.say, claim.number
    kinds = zip(("embedded: {}", "real: {}"), DECIDES, strict=True)
    alt = "Differences that decide claim {}, with 95 % intervals; the table below has the numbers."
    place, up = (f"claim-{edition.folder}", "../") if edition.folder else ("claim", "")
    figure = f":::{{figure}} {up}_static/claim_{number:02}.png\n:figclass: plot claim\n"
    parts = [
        f"({place}-{number})=\n### {number}. {say(claim.says)}",
        " ".join(_badge(kind, claim_verdict(rows, role), edition) for kind, role in kinds),
        *([f"{figure}:alt: {say(alt).format(number)}\n:::"] if has_figure else []),
        say("**Published:** {}.").format(published(claim, edition)),
        say("**Controls:** {}").format(controls_say(rows, edition)),
        _numbers(claim, rows, edition),
    ]
    return "\n\n".join(parts)


def cards(judged: pd.DataFrame, plan: Plan, edition: Edition = ENGLISH) -> str:
    """All cards of an edition's claims.md, from the rows of `claims.judge`."""
    texts = []
    for claim in plan.claims:
        rows = judged[judged["claim"] == claim.number]
        there = rows["role"].isin(DECIDES) & (rows["state"] != NOT_RUN)
        texts.append(card(claim, rows, bool(there.any()), edition))
    return "\n\n".join(texts)


def claim_figures(judged: pd.DataFrame, plan: Plan) -> dict[str, tuple[pd.DataFrame, Figure]]:
    """The figures of the cards by the name of their file below book/_static."""
    made = {
        claim.number: figure_of(claim, judged[judged["claim"] == claim.number], plan) for claim in plan.claims
    }
    return {f"claim_{number:02}.png": found for number, found in made.items() if found}


# --- the plan -----------------------------------------------------------------------------------------


def _asked(several: tuple[Comparison, ...]) -> str:
    return "; ".join(of.label for of in several) or "nothing"


def _decider(one: Claim) -> str:
    overlap = f"the overlap of solved sets in chapter *{one.overlap}*, corrected for chance"
    return overlap if one.overlap else _asked(one.decided_by + one.real)


def plan_page(root: Path) -> str:
    """What book/plan.yml and the profile of the book say, in Markdown."""
    plan = read_plan(root / "book" / "plan.yml")
    sizes = read_yaml(root / "notebooks" / "profiles" / "book.yml")
    claims = [
        f"**{one.number}. {one.says}**\n: Decided by: {_decider(one)}.\n: Controls: {_asked(one.controls)}."
        for one in plan.claims
    ]
    names = ("questions", "samples", "steps", "batch_size", "test_questions", "seeds")
    rows = [
        f"| {chapter} | " + " | ".join(_size(values.get(name, "")) for name in names) + " |"
        for chapter, values in sizes.items()
    ]
    head = "| chapter | " + " | ".join(name.replace("_", " ") for name in names) + " |\n" + "| --- " * 7 + "|"
    waiting = [f"- *{chapter}*: {why}." for chapter, why in plan.waiting.items()]
    waiting += [f"- For claim {number}: {_asked(several)}." for number, several in _missing(root, plan)]
    parts = ["## Claims", "\n\n".join(claims), "## Sizes", "\n".join([head, *rows])]
    parts += [
        "## On another task",
        "\n".join(f"- {run}: {_asked(several)}." for run, several in plan.elsewhere.items()),
        "## When, not only whether",
        plan.sweeps,
        "## Pilot",
        plan.pilot,
        "## Still to run",
        "\n".join(waiting) or "None.",
        "## Changes since",
        _changes(plan) or "None so far.",
    ]
    return "\n\n".join(parts)


def _changes(plan: Plan) -> str:
    """Folded by date, for they are many; the newest first, as in the file."""
    days: dict[object, list[str]] = {}
    for one in plan.changes:
        days.setdefault(one["date"], []).append(f"- {one['what']} {one['why']}")
    return "\n\n".join(
        f":::{{dropdown}} {day}: {len(lines)} change{'s' * (len(lines) > 1)}\n" + "\n".join(lines) + "\n:::"
        for day, lines in days.items()
    )


def _missing(root: Path, plan: Plan) -> Iterator[tuple[int, tuple[Comparison, ...]]]:
    """Claims by number, and their comparisons of which the committed predictions lack a side."""
    for claim in plan.claims:
        several = (*claim.decided_by, *claim.real, *claim.controls)
        lost = tuple(of for of in several if not is_there(root / "book" / "executed", of))
        if lost:
            yield claim.number, lost


def _size(value: object) -> str:
    return (
        f"{len(value)}" if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else str(value)
    )
