"""The figure of the student's chapter: a loss and its moving mean."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest

from negdistill.bookmaking import plots

HISTORY = pd.DataFrame({"step": range(1, 8), "loss": [5.0, 4.0, 4.5, 3.0, 2.0, 2.5, 1.0]})


def test_loss_curve_draws_every_step_and_the_mean_of_the_last_few():
    (axes,) = plots.loss_curve(HISTORY, 3, 5.2).axes
    steps, mean, guessing = (np.asarray(line.get_ydata(), dtype=float) for line in axes.lines)
    losses = list(HISTORY["loss"])
    assert list(steps) == losses
    means = [sum(part) / len(part) for part in (losses[max(0, i - 2) : i + 1] for i in range(7))]
    np.testing.assert_allclose(mean, means)
    assert set(guessing) == {5.2}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mean of 3 steps", "guessing"]
    assert axes.get_ylim()[0] == 0


def test_loss_curve_refuses_what_it_cannot_draw():
    with pytest.raises(ValueError, match="history must be a frame with the columns step, loss"):
        plots.loss_curve(HISTORY[["step"]], 3)
    with pytest.raises(ValueError, match="window must be at least 1 step; got 0"):
        plots.loss_curve(HISTORY, 0)
