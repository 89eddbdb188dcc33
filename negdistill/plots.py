"""Figures of the notebooks. Each function takes a frame and returns a matplotlib Figure.

    frame, one row per question  -->  Figure with intervals, legible on a white and on a black page

The background is transparent and every text is one mid-grey, so one picture serves both colour schemes of the
book. The colours are those of Okabe and Ito that keep a contrast of 3:1 on white and on black; lines also
differ by marker, so none is told by colour alone. Whiskers are 95 % intervals from resampling questions: the
rationales of one question are alike, so resampling them would give intervals that are too narrow.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

TEXT = "#757575"  # contrast 4.6:1 on white, 4.5:1 on black
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # blue, vermillion, green, purple
MARKERS = ("o", "s", "^", "D")
INTERVAL = {"errorbar": ("ci", 95), "seed": 0}
BARS = {**INTERVAL, "saturation": 1, "err_kws": {"color": TEXT, "linewidth": 1.0}}
RC = {
    "figure.figsize": (5.8, 3.5),
    "figure.dpi": 150,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor"), TEXT),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), TEXT),
}


def style() -> None:
    """Set matplotlib's defaults for the figures of this module; call it once, before the first figure."""
    sns.set_theme(context="paper", style="ticks", palette=COLOURS, font_scale=1.1, rc=RC)


def accuracy_by_level(questions: pd.DataFrame, reference: pd.DataFrame | None = None) -> Figure:
    """Share of right rationales against level, one line per teacher, with intervals.

    questions  one row per teacher and question: teacher, level (1-5), share (of its rationales, 0-1)
    reference  rates to compare with, one row per teacher and level: teacher, level, share (0-1); dashed,
               in the colours of `questions` in order

    Raises ValueError for a frame without these columns or without rows, as all functions here do.
    """
    _require("questions", questions, "teacher", "level", "share")
    figure, axes = plt.subplots(layout="constrained")
    for place, (teacher, group) in enumerate(questions.groupby("teacher", sort=False)):
        look = {
            "color": _colours(place + 1)[place],
            "marker": MARKERS[place % len(MARKERS)],
            "label": teacher,
        }
        sns.lineplot(group, x="level", y="share", err_style="bars", ax=axes, **INTERVAL, **look)
    if reference is not None:
        _require("reference", reference, "teacher", "level", "share")
        for place, (teacher, group) in enumerate(reference.groupby("teacher", sort=False)):
            colour = _colours(place + 1)[place]
            axes.plot(group["level"], group["share"], linestyle="--", color=colour, label=teacher)
    axes.set(xlabel="level", ylabel="share of rationales graded right", ylim=(0, 1))
    axes.set_xticks(sorted(questions["level"].dropna().unique()))
    return _done(figure)


def correct_counts(questions: pd.DataFrame) -> Figure:
    """Share of questions by the number of their rationales graded right, a bar per teacher, with intervals.

    questions  one row per teacher and question: teacher, right (from 0 to the number of its rationales)
    """
    _require("questions", questions, "teacher", "right")
    counts = range(int(questions["right"].max()) + 1)
    indicators = pd.concat(
        questions[["teacher"]].assign(right=count, share=(questions["right"] == count).astype(float))
        for count in counts
    )
    figure, axes = plt.subplots(layout="constrained")
    palette = _colours(questions["teacher"].nunique())
    sns.barplot(indicators, x="right", y="share", hue="teacher", palette=palette, ax=axes, **BARS)
    axes.set(xlabel="rationales graded right, per question", ylabel="share of questions")
    return _done(figure)


def label_changes(questions: pd.DataFrame) -> Figure:
    """Labels that a looser pair of rules changes to right, a bar per pair and teacher, with intervals.

    questions  one row per teacher, pair of rules and question: teacher, rules (text beside the bars), changed
               (labels that became right, per 1,000 rationales of the question)
    """
    _require("questions", questions, "teacher", "rules", "changed")
    pairs, teachers = questions["rules"].nunique(), questions["teacher"].nunique()
    figure, axes = plt.subplots(layout="constrained", figsize=(5.8, 1.2 + 0.22 * pairs * (teachers + 1)))
    what = {"x": "changed", "y": "rules", "hue": "teacher", "orient": "h"}
    sns.barplot(questions, palette=_colours(teachers), ax=axes, **what, **BARS)
    axes.set(xlabel="labels that became right, per 1,000 rationales", ylabel="")
    return _done(figure)


def _colours(n: int) -> list[str]:
    """The first n colours, from the first again when there are more than four."""
    return [COLOURS[place % len(COLOURS)] for place in range(n)]


def _done(figure: Figure) -> Figure:
    """Untitle the legend; close the figure for pyplot, so that a notebook shows it once, as a value."""
    figure.axes[0].legend(title=None)
    plt.close(figure)
    return figure


def _require(name: str, frame: pd.DataFrame, *columns: str) -> None:
    wrong = [f"no column {column}" for column in columns if column not in frame.columns]
    if wrong or frame.empty:
        raise ValueError(
            f"{name} must be a frame with the columns {', '.join(columns)} and at least one row; "
            f"got {', '.join(wrong) or 'no row'}"
        )
