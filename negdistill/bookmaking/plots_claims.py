"""The figure of a claim, and of all uses of wrong answers: a forest plot; style as in `plots`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from negdistill.bookmaking.plots import COLOURS, MARKERS, TEXT, _require

NAME, MARK = 0.19, 0.17  # inches for a name, and for each mark below it
AXIS, LEGEND = 0.5, 0.18  # inches for the axis, and for each series in the legend


def forest(rows: pd.DataFrame, margin: float) -> Figure:
    """Differences with their intervals below their names, those of one name together; zero, and a band that
    does not matter. Narrow, with the names inside, so that a phone shows it in letters that can be read.

    rows    columns label, series (who was measured, in the legend where there are several), value, low, high
            (fractions), small (whether of a smaller run: hollow), published (a fraction: a diamond; or NaN)
    margin  half the width of the band, a fraction
    """
    _require("rows", rows, "label", "series", "value", "low", "high", "small", "published")
    series, groups = list(dict.fromkeys(rows["series"])), list(rows.groupby("label", sort=False))
    room = NAME * len(groups) + MARK * len(rows)
    height = room + AXIS + LEGEND * len(series) * (len(series) > 1)
    figure, axes = plt.subplots(layout="constrained", figsize=(3.8, height))
    axes.grid(visible=False)
    place = 0.0
    for label, part in groups:
        place += NAME
        at = axes.get_yaxis_transform()
        axes.text(0, place - 0.03, label, transform=at, fontsize=8, va="bottom", ha="left")
        below = [place, place + MARK * len(part)]  # and not behind the name
        axes.fill_betweenx(below, -100 * margin, 100 * margin, color=TEXT, alpha=0.15, linewidth=0)
        axes.vlines(0, *below, color=TEXT, linewidth=1)
        for row in part.itertuples():
            place += MARK
            _mark(axes, row, place - 0.6 * MARK, series.index(row.series))
    axes.set(ylim=(room, 0), yticks=[], xlabel="difference, points")
    axes.spines["left"].set_visible(False)
    if len(series) > 1:
        handles = [
            axes.errorbar([], [], xerr=[], label=name, **_look(turn)) for turn, name in enumerate(series)
        ]
        figure.legend(handles=handles, loc="outside lower center", fontsize=8)
    plt.close(figure)
    return figure


def _look(turn: int) -> dict[str, object]:
    return {
        "color": COLOURS[turn],
        "marker": MARKERS[turn],
        "markersize": 5,
        "elinewidth": 1.5,
        "linestyle": "",
    }


def _mark(axes: Axes, row: tuple, place: float, turn: int) -> None:
    """A difference and its interval, hollow where the run is small, and the published number beside it."""
    ends = [[100 * max(0, row.value - row.low)], [100 * max(0, row.high - row.value)]]
    fill = {"markerfacecolor": "none"} if row.small else {}
    axes.errorbar(100 * row.value, place, xerr=ends, **_look(turn), **fill)
    if pd.notna(row.published):
        look = {"marker": "D", "color": COLOURS[1], "markersize": 8, "markerfacecolor": "none"}
        axes.plot(100 * row.published, place, linestyle="none", **look)  # around a dot, where one lies there
