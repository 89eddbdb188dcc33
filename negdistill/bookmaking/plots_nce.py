"""Figures of the chapter on NCE; style as in `plots`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from negdistill.bookmaking.plots import _done, _look, _require


def beta_curves(rationales: pd.DataFrame, group: str) -> Figure:
    """Share of rationales with at most a given beta, one line per group.

    rationales  one row per rationale: `group`, beta (0-1)
    """
    _require("rationales", rationales, group, "beta")
    figure, axes = plt.subplots(layout="constrained")
    for place, (name, part) in enumerate(rationales.groupby(group, sort=False)):
        look = {"color": _look(place)["color"], "linestyle": _look(4 * place)["linestyle"]}
        sns.ecdfplot(part, x="beta", ax=axes, label=str(name), **look)
    axes.set(xlabel="beta", ylabel="share of rationales with at most this beta", ylim=(0, 1))
    return _done(figure)
