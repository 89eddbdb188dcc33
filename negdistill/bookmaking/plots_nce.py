"""Figures of the chapter on NCE; style as in `plots`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from negdistill.bookmaking.plots import INTERVAL, MARKERS, _colours, _done, _look, _require


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


def beta_means(questions: pd.DataFrame, x: str, hue: str) -> Figure:
    """Mean beta with intervals, a mark per `x` and `hue`.

    questions  one row per question, `x` and `hue`: these two columns and beta (0-1)
    """
    _require("questions", questions, x, hue, "beta")
    figure, axes = plt.subplots(layout="constrained")
    names = list(questions[hue].unique())
    look = {
        "dodge": 0.1 * len(names) if len(names) > 1 else False,
        "linestyle": "none",
        "err_kws": {"linewidth": 1.2},
    }
    look |= {"markers": [MARKERS[place % len(MARKERS)] for place in range(len(names))]}
    sns.pointplot(
        questions, x=x, y="beta", hue=hue, palette=_colours(len(names)), ax=axes, **look, **INTERVAL
    )
    axes.set(ylabel="mean beta", ylim=(0, None))
    return _done(figure)
