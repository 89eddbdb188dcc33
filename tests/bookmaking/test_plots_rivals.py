"""The figure of the chapter on rivals: a panel per method with both sides of the held-out rationales."""

import matplotlib

matplotlib.use("Agg")

import pandas as pd
import pytest

from negdistill.bookmaking.plots_rivals import likelihood_curves

pytestmark = pytest.mark.usefixtures("styled")


def points(methods, seeds=(0,)):
    rows = [
        {
            "method": name,
            "steps": 10 - step,
            "seed": seed,
            "log_prob_right": -step - seed,
            "log_prob_wrong": -2.0 * step,
        }
        for name in methods
        for seed in seeds
        for step in (1, 5, 9)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("methods", [["DPO"], ["DPO", "KTO"], ["a", "b", "c", "d"]])
def test_a_panel_per_method_with_right_and_wrong_in_the_order_of_steps(methods):
    figure = likelihood_curves(points(methods))
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == methods
    for axis in shown:
        right, wrong = (line for line in axis.lines if line.get_label() in ("right", "wrong"))
        assert list(right.get_xdata()) == list(wrong.get_xdata()) == [1, 5, 9]
        assert list(right.get_ydata()) == [-9, -5, -1] and list(wrong.get_ydata()) == [-18, -10, -2]
    assert [text.get_text() for text in shown[0].get_legend().get_texts()] == ["right", "wrong"]
    assert sum(axis.get_xlabel() != "" for axis in shown) == min(3, len(methods))


def test_a_panel_is_as_high_as_what_it_shows():
    both = points(["DPO", "KTO"])
    both.loc[both["method"] == "KTO", ["log_prob_right", "log_prob_wrong"]] *= 100
    low, deep = (axis.get_ylim() for axis in likelihood_curves(both).axes)
    assert -25 < low[0] and deep[0] < -1500


def test_seeds_are_averaged_and_their_interval_drawn():
    axis = likelihood_curves(points(["DPO"], seeds=(0, 1, 2))).axes[0]
    assert list(axis.lines[0].get_ydata()) == [-10, -6, -2]
    low, high = axis.collections[0].get_segments()[0][:, 1]
    assert -11 <= low < -10 < high <= -9


def test_it_names_what_is_missing():
    with pytest.raises(ValueError, match="points must be a frame .*no column log_prob_wrong"):
        likelihood_curves(points(["DPO"]).drop(columns="log_prob_wrong"))
