"""Figures of the chapter on when wrong answers pay; style as in `plots`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from negdistill.bookmaking.plots import TEXT, _legend_below, _look, _require, _whiskers


def sweeps(table: pd.DataFrame) -> Figure:
    """What wrong answers add, a panel per axis, a place per value of it, a mark per method, and zero.

    table  one row per axis, value and method: axis, value, method, difference, low, high (fractions, -1
           to 1). Values stand in the order they come in
    """
    _require("table", table, "axis", "value", "method", "difference", "low", "high")
    methods, panels = list(table["method"].unique()), list(table.groupby("axis", sort=False))
    tall = len(panels)
    figure, axes = plt.subplots(
        tall, 1, figsize=(5.2, 1.8 * tall + 0.4), sharey=True, squeeze=False, layout="constrained"
    )  # one below the other: on a phone, panels side by side would be too small to read
    for axis, (name, part) in zip(axes.flat, panels, strict=True):
        values = list(part["value"].unique())
        axis.axhline(0, color=TEXT, linewidth=1)
        for place, (method, rows) in enumerate(part.groupby("method", sort=False)):
            at = [values.index(value) for value in rows["value"]]
            shift = (place - (len(methods) - 1) / 2) * 0.6 / len(methods)
            look = _look(methods.index(method)) | {"linestyle": "", "label": method}
            axis.errorbar(
                np.array(at) + shift, rows["difference"], yerr=_whiskers(rows, "difference"), **look
            )
        axis.set_xticks(range(len(values)), [str(value) for value in values])
        axis.locator_params(axis="y", nbins=5)
        axis.set(xlabel=name, xlim=(-0.6, len(values) - 0.4))
    figure.supylabel("accuracy minus control", color=TEXT, fontsize="medium")
    return _legend_below(figure)
