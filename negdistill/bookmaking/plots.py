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
from matplotlib.ticker import MaxNLocator

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
    "patch.force_edgecolor": False,
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
        sns.lineplot(
            group, x="level", y="share", err_style="bars", ax=axes, markeredgewidth=0, **INTERVAL, **look
        )
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


def budget_curves(points: pd.DataFrame, x: str, label: str) -> Figure:
    """Accuracy against a budget, one line per method with its intervals, one panel per teacher.

    points  one row per teacher, method and budget: teacher, method, column `x`, accuracy, low, high (0-1)
    label   of the horizontal axis
    """
    _require("points", points, "teacher", "method", x, "accuracy", "low", "high")
    panels, methods = list(points.groupby("teacher", sort=False)), points["method"].unique()
    size = (max(5.8, 3.6 * len(panels)), 3.5)
    figure, grid = plt.subplots(
        1, len(panels), layout="constrained", figsize=size, sharey=True, squeeze=False
    )
    for axes, (teacher, panel) in zip(grid[0], panels, strict=True):
        for place, method in enumerate(methods):
            line = panel[panel["method"] == method].sort_values(x)
            whiskers = _whiskers(line, "accuracy")
            axes.errorbar(line[x], line["accuracy"], whiskers, label=method, elinewidth=0.8, **_look(place))
        axes.set(xlabel=label, title=teacher)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    grid[0][0].set(ylabel="accuracy", ylim=(0, None))
    return _legend_below(figure)


def differences(table: pd.DataFrame, label: str) -> Figure:
    """Differences with their intervals, a line of the figure per method, a mark per teacher, and zero.

    table  one row per teacher and method: teacher, method, difference, low, high (fractions, -1 to 1)
    label  of the horizontal axis
    """
    _require("table", table, "teacher", "method", "difference", "low", "high")
    methods, teachers = list(table["method"].unique()), list(table.groupby("teacher", sort=False))
    height = 1.2 + max(0.32, 0.13 * len(teachers)) * len(methods)  # marks of one line do not touch
    figure, axes = plt.subplots(layout="constrained", figsize=(5.8, height))
    axes.axvline(0, color=TEXT, linewidth=1)
    for place, (teacher, part) in enumerate(teachers):
        shift = (place - (len(teachers) - 1) / 2) * 0.6 / len(teachers)
        heights = [methods.index(method) + shift for method in part["method"]]
        look = _look(place) | {"linestyle": "", "label": teacher}
        axes.errorbar(part["difference"], heights, xerr=_whiskers(part, "difference"), **look)
    axes.set_yticks(range(len(methods)), methods)
    axes.set(xlabel=label, ylim=(len(methods) - 0.5, -0.5))
    return _legend_below(figure)


def _legend_below(figure: Figure) -> Figure:
    """One legend for all panels, where it covers none of them; then as `_done`."""
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    plt.close(figure)
    return figure


def _look(place: int) -> dict[str, object]:
    """Colour, marker and dash of the line at a place; lines that share a colour differ in the other two, and
    in whether their marks are filled.
    """
    turn, colour = divmod(place, len(COLOURS))
    marker = MARKERS[(colour + turn) % len(MARKERS)]
    look = {"color": COLOURS[colour], "marker": marker, "linestyle": ("-", "--", ":")[turn % 3]}
    return look | {"fillstyle": "none" if turn % 2 else "full"}


def _whiskers(frame: pd.DataFrame, value: str) -> list[pd.Series]:
    """Distances from a value down to `low` and up to `high`, at least 0: rounding may take them below."""
    return [(frame[value] - frame["low"]).clip(lower=0), (frame["high"] - frame[value]).clip(lower=0)]


def overlaps(table: pd.DataFrame) -> Figure:
    """Intersection over union of two solved sets, a line of the figure per group, one panel per source.

    table  one row per source and group: source, group, iou, low, high (0-1), chance (0-1 or missing; a bar)
    """
    _require("table", table, "source", "group", "iou", "low", "high", "chance")
    panels = list(table.groupby("source", sort=False))
    height = 1.3 + 0.3 * max(len(panel) for _, panel in panels)
    figure, grid = plt.subplots(
        1, len(panels), layout="constrained", figsize=(8, height), sharex=True, squeeze=False
    )
    for axes, (source, panel) in zip(grid[0], panels, strict=True):
        places = range(len(panel))
        look = {"linestyle": "", "color": COLOURS[0], "marker": MARKERS[0], "label": "solved by both"}
        axes.errorbar(panel["iou"], places, xerr=_whiskers(panel, "iou"), **look)
        if panel["chance"].notna().any():
            look = {"linestyle": "", "color": COLOURS[1], "marker": "|", "markersize": 14}
            axes.plot(panel["chance"], places, label="if independent", **look)
        axes.set_yticks(places, panel["group"])
        axes.invert_yaxis()
        axes.set(xlabel="intersection over union", title=source)
    grid[0][0].set_xlim(left=0)  # last: it ends the scaling of all panels
    return _legend_below(figure)


def means(questions: pd.DataFrame, y: str, x: str, hue: str, label: str) -> Figure:
    """Means of `y` with intervals, a mark per `x` and `hue`, and zero.

    questions  one row per question, `x` and `hue`: these two columns and `y`
    label      of the vertical axis
    """
    _require("questions", questions, x, hue, y)
    figure, axes = plt.subplots(layout="constrained")
    axes.axhline(0, color=TEXT, linewidth=1)
    names = list(questions[hue].unique())
    look = {
        "markers": [MARKERS[place % len(MARKERS)] for place in range(len(names))],
        "palette": _colours(len(names)),
        "dodge": 0.1 * len(names) if len(names) > 1 else False,
        "linestyle": "none",
        "err_kws": {"linewidth": 1.2},
    }
    sns.pointplot(questions, x=x, y=y, hue=hue, ax=axes, **look, **INTERVAL)
    axes.set(ylabel=label)
    return _done(figure)


def loss_curve(history: pd.DataFrame, window: int, guessing: float | None = None) -> Figure:
    """Loss of single steps, faint, and their moving mean.

    history   one row per step: step, loss (nats per target)
    window    steps of the mean, at least 1; fewer at the beginning
    guessing  loss of a guess that takes all tokens for equally likely, dashed
    """
    _require("history", history, "step", "loss")
    if window < 1:
        raise ValueError(f"window must be at least 1 step; got {window}")
    figure, axes = plt.subplots(layout="constrained")
    axes.plot(history["step"], history["loss"], color=COLOURS[0], alpha=0.25, linewidth=0.8)
    mean = history["loss"].rolling(window, min_periods=1).mean()
    axes.plot(history["step"], mean, color=COLOURS[0], label=f"mean of {window} steps")
    if guessing is not None:
        axes.axhline(guessing, color=TEXT, linestyle="--", linewidth=1, label="guessing")
    axes.set(xlabel="optimiser step", ylabel="loss (nats per token)", ylim=(0, None))
    return _done(figure)


def sample_curves(points: pd.DataFrame) -> Figure:
    """Accuracy against the number of samples, a line with a band per rule, one panel per student.

    points  one row per student, rule and number: student, rule, n, accuracy, low, high (0-1)
    """
    _require("points", points, "student", "rule", "n", "accuracy", "low", "high")
    panels, rules = list(points.groupby("student", sort=False)), list(points["rule"].unique())
    size = (max(5.8, 3.2 * len(panels)), 3.7)
    figure, grid = plt.subplots(
        1, len(panels), layout="constrained", figsize=size, sharey=True, squeeze=False
    )
    for axes, (student, panel) in zip(grid[0], panels, strict=True):
        for place, rule in enumerate(rules):
            line, look = panel[panel["rule"] == rule].sort_values("n"), _look(place)
            axes.fill_between(line["n"], line["low"], line["high"], color=look["color"], alpha=0.1, lw=0)
            axes.plot(line["n"], line["accuracy"], label=rule, markersize=4, **look)
        axes.set(xlabel="samples per question", title=student)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    grid[0][0].set(ylabel="accuracy", ylim=(0, None))
    return _legend_below(figure)


def calibration_curves(bins: pd.DataFrame) -> Figure:
    """Share of right rationales against the ranker's score, a line with intervals each, and the diagonal.

    bins  one row per ranker and bin: ranker, score (mean of the bin), share, low, high (0-1)
    """
    _require("bins", bins, "ranker", "score", "share", "low", "high")
    figure, axes = plt.subplots(layout="constrained")
    axes.plot([0, 1], [0, 1], color=TEXT, linestyle="--", linewidth=1)
    for place, (ranker, line) in enumerate(bins.groupby("ranker", sort=False)):
        whiskers = _whiskers(line, "share")
        axes.errorbar(line["score"], line["share"], whiskers, label=ranker, elinewidth=0.8, **_look(place))
    axes.set(xlabel="score of the ranker", ylabel="share graded right", xlim=(0, 1), ylim=(0, 1))
    return _legend_below(figure)
