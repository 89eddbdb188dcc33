"""Figures of the chapter on NCE: the distribution of beta, and its means."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest

from negdistill.bookmaking import plots, plots_nce

pytestmark = pytest.mark.usefixtures("styled")


def rationales():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"level": level, "label": label, "beta": rng.uniform(0.05 * level, 0.1 * level + 0.1 * place)}
        for level in (1, 2, 3)
        for place, label in enumerate(("right", "wrong"))
        for _ in range(20)
    )


def test_beta_curves_draw_the_share_of_rationales_up_to_each_beta():
    frame = rationales()
    axes = plots_nce.beta_curves(frame, "label").axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["right", "wrong"]
    assert len(axes.lines) == 2
    assert axes.lines[0].get_linestyle() != axes.lines[1].get_linestyle()
    for line, (_, part) in zip(axes.lines, frame.groupby("label", sort=False), strict=True):
        at, share = np.array(line.get_xdata()), np.array(line.get_ydata())
        for beta in part["beta"]:
            expected = (part["beta"] <= beta).mean()
            assert share[at <= beta + 1e-12].max() == pytest.approx(expected)


def test_beta_means_draw_the_mean_over_questions_and_an_interval_around_it():
    frame = rationales()
    axes = plots_nce.beta_means(frame, "level", "label").axes[0]
    means = frame.groupby(["level", "label"])["beta"].mean()
    marks = [line for line in axes.lines if line.get_marker() in plots.MARKERS and len(line.get_ydata()) == 3]
    assert len(marks) == 2 and marks[0].get_marker() != marks[1].get_marker()
    for line, label in zip(marks, ("right", "wrong"), strict=True):
        np.testing.assert_allclose(line.get_ydata(), means.xs(label, level="label"))
    spans = [line.get_ydata() for line in axes.lines if line.get_marker() not in plots.MARKERS]
    assert len([span for span in spans if len(span) == 2 and span[0] < span[1]]) == 6


def test_they_name_what_is_missing():
    with pytest.raises(ValueError, match="rationales must be a frame .*no column beta"):
        plots_nce.beta_curves(rationales().drop(columns="beta"), "label")
    with pytest.raises(ValueError, match="questions must be a frame .*no column kind"):
        plots_nce.beta_means(rationales(), "kind", "label")
