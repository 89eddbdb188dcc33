"""Figures of the chapter on when wrong answers pay; style as in `plots`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from negdistill.bookmaking.plots import TEXT, _legend_below, _look, _require, _whiskers

FAR = 10  # points: an interval that stays further from zero is written at the edge, or all others shrink


def sweeps(table: pd.DataFrame) -> Figure:
    """What wrong answers add in points: a panel per axis, a place per value, a mark per method, and zero.

    table  one row per axis, value and method: axis, value, method, difference, low, high (fractions, -1
           to 1). Values stand in the order they come in. Where intervals come within ten points of zero,
           those that do not are shown as an arrow at the edge, with the difference beside it
    """
    _require("table", table, "axis", "value", "method", "difference", "low", "high")
    table = table.assign(**{name: 100 * table[name] for name in ("difference", "low", "high")})
    far = (table["low"] > FAR) | (table["high"] < -FAR)
    table["far"] = far & ~far.all()
    methods, panels = list(table["method"].unique()), list(table.groupby("axis", sort=False))
    tall = len(panels)
    figure, axes = plt.subplots(
        tall, 1, figsize=(5.2, 1.8 * tall + 0.4), sharey=True, squeeze=False, layout="constrained"
    )  # one below the other: on a phone, panels side by side would be too small to read
    for axis, (name, part) in zip(axes.flat, panels, strict=True):
        values = list(part["value"].unique())
        axis.axhline(0, color=TEXT, linewidth=1)
        for place, (method, rows) in enumerate(part.groupby("method", sort=False)):
            shift = (place - (len(methods) - 1) / 2) * 0.6 / len(methods)
            at = np.array([values.index(value) + shift for value in rows["value"]])
            look = _look(methods.index(method)) | {"linestyle": "", "label": method}
            near = rows["difference"].mask(rows["far"])
            axis.errorbar(at, near, yerr=_whiskers(rows, "difference"), **look)
            for x, value in zip(at[rows["far"]], rows["difference"][rows["far"]], strict=True):
                _beyond(axis, x, value, look["color"])
        axis.set_xticks(range(len(values)), [str(value) for value in values])
        axis.locator_params(axis="y", nbins=5)
        axis.set(xlabel=name, xlim=(-0.6, len(values) - 0.4))
    figure.supylabel("accuracy minus control, points", color=TEXT, fontsize="medium")
    return _legend_below(figure)


def _beyond(axis: plt.Axes, x: float, value: float, colour: str) -> None:
    """An arrow at the lower or upper edge of a panel, and the value beside it."""
    edge, inside = (0, 0.16) if value < 0 else (1, 0.84)
    frame = axis.get_xaxis_transform()  # x as data, y as a part of the height
    arrow = {"arrowstyle": "->", "color": colour, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", (x, edge), (x, inside), xycoords=frame, textcoords=frame, arrowprops=arrow)
    text = f"{value:+.0f}".replace("-", "\N{MINUS SIGN}")
    place = {"xycoords": frame, "textcoords": "offset points", "va": "center", "fontsize": "small"}
    axis.annotate(text, (x, (edge + inside) / 2), (5, 0), color=TEXT, **place)
