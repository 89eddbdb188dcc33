"""The figure of a claim: what decides it, as a forest plot; style as in `plots`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from negdistill.bookmaking.plots import COLOURS, TEXT, _require


def forest(rows: pd.DataFrame, margin: float) -> Figure:
    """Differences with their intervals, one below the other, each below its name; zero, and a band that does
    not matter.

    rows    columns label, value, low, high (fractions), small (whether of a smaller run: drawn hollow),
            published (a fraction, NaN for none: a diamond)
    margin  half the width of the band, a fraction
    """
    _require("rows", rows, "label", "value", "low", "high", "small", "published")
    figure, axes = plt.subplots(layout="constrained", figsize=(4.4, 0.55 + 0.42 * len(rows)))
    axes.axvspan(-100 * margin, 100 * margin, color=TEXT, alpha=0.15, linewidth=0)
    axes.axvline(0, color=TEXT, linewidth=1)
    for place, row in enumerate(rows.itertuples()):
        ends = [[100 * max(0, row.value - row.low)], [100 * max(0, row.high - row.value)]]
        fill = "none" if row.small else COLOURS[0]
        axes.errorbar(
            *(100 * row.value, place),
            xerr=ends,
            marker="o",
            color=COLOURS[0],
            markerfacecolor=fill,
            markersize=5,
            elinewidth=1.5,
        )
        if pd.notna(row.published):
            axes.plot(
                100 * row.published, place, marker="D", color=COLOURS[1], markersize=5, linestyle="none"
            )
        axes.text(
            *(0, place - 0.28, row.label),
            transform=axes.get_yaxis_transform(),
            fontsize=8,
            va="bottom",
            ha="left",
        )
    axes.set(ylim=(len(rows) - 0.5, -0.9), yticks=[], xlabel="difference, points")
    axes.spines["left"].set_visible(False)
    plt.close(figure)
    return figure
