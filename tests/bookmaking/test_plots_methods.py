"""Figures of the chapter on baselines: curves against a budget, and differences around zero."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from negdistill.bookmaking import plots

METHODS = ("CoT KD", "UL", "NAT", "NAT, empty branch", "Negatives first")


pytestmark = pytest.mark.usefixtures("styled")


def points(teachers=("weak", "strong")):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"teacher": teacher, "method": method, "steps": steps, "accuracy": rng.uniform(0.2, 0.8)}
        for teacher in teachers
        for method in METHODS
        for steps in (300, 100, 200)
    )
    return frame.assign(low=frame["accuracy"] - 0.1, high=frame["accuracy"] + 0.2)


def table():
    frame = pd.DataFrame(
        {"teacher": teacher, "method": method, "difference": 0.1 * place - 0.2}
        for teacher in ("weak", "strong")
        for place, method in enumerate(METHODS)
    )
    return frame.assign(low=frame["difference"] - 0.05, high=frame["difference"] + 0.15)


def bars(axes):
    """Label, line of marks and whiskers (n, 2 ends, 2 coordinates) of each error-bar container."""
    return {
        bar.get_label(): (bar.lines[0], np.array(bar.lines[2][0].get_segments())) for bar in axes.containers
    }


def test_budget_curves_draws_a_panel_per_teacher_and_each_value_with_its_interval():
    frame = points()
    figure = plots.budget_curves(frame, "steps", "optimiser steps")
    assert [axes.get_title() for axes in figure.axes] == ["weak", "strong"]
    for axes in figure.axes:
        drawn = bars(axes)
        assert tuple(drawn) == METHODS and axes.get_xlabel() == "optimiser steps"
        part = frame[frame["teacher"] == axes.get_title()]
        for method, (line, whiskers) in drawn.items():
            wanted = part[part["method"] == method].sort_values("steps")
            np.testing.assert_allclose(line.get_xydata(), wanted[["steps", "accuracy"]])
            np.testing.assert_allclose(whiskers[:, :, 1], wanted[["low", "high"]])
    assert figure.axes[0].get_ylabel() == "accuracy" and figure.axes[0].get_ylim()[0] == 0
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(METHODS)


def test_no_two_of_eight_lines_look_alike_nor_by_colour_alone():
    looks = [plots._look(place) for place in range(8)]
    assert len({tuple(look.values()) for look in looks}) == 8
    assert len({(look["marker"], look["linestyle"]) for look in looks}) == 8
    assert len({(look["color"], look["fillstyle"]) for look in looks}) == 8  # where no line is drawn


def test_differences_draws_a_mark_per_teacher_and_method_around_zero():
    frame = table()
    (axes,) = plots.differences(frame, "points").axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(METHODS)
    assert axes.lines[0].get_xdata() == [0, 0] and axes.yaxis_inverted() and axes.get_xlabel() == "points"
    drawn = bars(axes)
    assert list(drawn) == ["weak", "strong"]
    for teacher, (line, whiskers) in drawn.items():
        wanted = frame[frame["teacher"] == teacher]
        np.testing.assert_allclose(line.get_xydata()[:, 0], wanted["difference"])
        np.testing.assert_allclose(whiskers[:, :, 0], wanted[["low", "high"]])
        assert [round(height) for height in line.get_ydata()] == list(range(len(METHODS)))
    assert not set(drawn["weak"][0].get_ydata()) & set(drawn["strong"][0].get_ydata())


def test_an_interval_that_leaves_out_its_value_by_rounding_is_drawn():
    frame = table().assign(low=lambda rows: rows["difference"] + 1e-9)
    _, whiskers = bars(plots.differences(frame, "points").axes[0])["weak"]
    np.testing.assert_allclose(whiskers[:, 0, 0], frame["difference"][:5])


@pytest.mark.parametrize(
    ("make", "frame", "name"),
    [
        (lambda frame: plots.budget_curves(frame, "steps", ""), points(), "points"),
        (lambda frame: plots.differences(frame, ""), table(), "table"),
    ],
)
def test_a_frame_without_a_column_or_a_row_is_refused(make, frame, name):
    with pytest.raises(ValueError, match=f"{name} must be a frame with the columns .*; got no column low"):
        make(frame.drop(columns="low"))
    with pytest.raises(ValueError, match=f"{name} must be .* at least one row; got no row"):
        make(frame.iloc[:0])
    assert plt.get_fignums() == []


def test_figures_are_closed_so_that_a_notebook_shows_them_once():
    plots.budget_curves(points(("weak",)), "steps", "steps")
    plots.differences(table(), "points")
    assert plt.get_fignums() == []
