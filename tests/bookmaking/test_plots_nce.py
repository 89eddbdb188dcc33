"""Figures of the chapter on NCE: the distribution of beta."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest

from negdistill.bookmaking import plots_nce

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


def test_it_names_what_is_missing():
    with pytest.raises(ValueError, match="rationales must be a frame .*no column beta"):
        plots_nce.beta_curves(rationales().drop(columns="beta"), "label")
