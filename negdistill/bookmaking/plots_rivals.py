"""Figures of the chapter on rivals; style as in `plots`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from negdistill.bookmaking.plots import INTERVAL, _done, _look, _require

SIDES = {"log_prob_right": "right", "log_prob_wrong": "wrong"}


def likelihood_curves(points: pd.DataFrame) -> Figure:
    """Log-probability per token of held-out rationales against steps, right and wrong, a panel per method.

    points  columns method, steps, seed, log_prob_right, log_prob_wrong, all finite; whiskers are 95 %
            intervals of the mean over seeds, and absent where there is one

    Each panel has a vertical axis of its own: what one row falls in a training is a hundred times another's.
    """
    _require("points", points, "method", "steps", "seed", *SIDES)
    methods = list(dict.fromkeys(points["method"]))
    wide = min(3, len(methods))
    tall = -(-len(methods) // wide)
    figure, axes = plt.subplots(tall, wide, figsize=(2.9 * wide, 2.2 * tall), sharex=True, squeeze=False)
    for axis, method in zip(axes.flat, methods, strict=False):
        part = points[points["method"] == method].sort_values("steps")
        for place, (column, label) in enumerate(SIDES.items()):
            look = _look(place) | {"label": label, "legend": False, "err_style": "bars"}
            sns.lineplot(part, x="steps", y=column, ax=axis, **INTERVAL, **look)
        axis.set(title=method, ylabel="", xlabel="")
    for axis in axes.flat[len(methods) :]:
        axis.set_visible(False)
    for axis in np.ravel(axes[:, 0]):
        axis.set_ylabel("log-probability\nper token")
    for column in axes.T:
        lowest = [axis for axis in column if axis.get_visible()][-1]
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel("optimiser steps")
    axes[0, 0].legend(title="held-out rationales")
    return _done(figure)
