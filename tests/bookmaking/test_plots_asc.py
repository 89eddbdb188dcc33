"""Figures of the chapter on voting: accuracy against the number of samples, and calibration."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest

from negdistill.bookmaking import plots

RULES = ("SC", "WS", "WS per token", "ASC", "best of n", "pass@n")


pytestmark = pytest.mark.usefixtures("styled")


def points():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"student": student, "rule": rule, "n": n, "accuracy": rng.uniform(0.2, 0.8)}
        for student in ("NAT", "CoT KD")
        for rule in RULES
        for n in (4, 1, 2)
    )
    return frame.assign(low=frame["accuracy"] - 0.1, high=frame["accuracy"] + 0.05)


def bins():
    frame = pd.DataFrame(
        {"ranker": ranker, "score": score, "share": score**2} for ranker in "ab" for score in (0.1, 0.5, 0.9)
    )
    return frame.assign(low=frame["share"] - 0.05, high=frame["share"] + 0.1)


def test_sample_curves_draws_every_rule_with_its_band():
    frame = points()
    figure = plots.sample_curves(frame)
    assert [axes.get_title() for axes in figure.axes] == ["NAT", "CoT KD"]
    for axes in figure.axes:
        part = frame[frame["student"] == axes.get_title()].sort_values("n")
        assert [line.get_label() for line in axes.lines] == list(RULES) and len(axes.collections) == len(
            RULES
        )
        for line, band in zip(axes.lines, axes.collections, strict=True):
            rows = part[part["rule"] == line.get_label()]
            assert line.get_xdata().tolist() == [1, 2, 4]
            assert line.get_ydata().tolist() == rows["accuracy"].tolist()
            corners = band.get_paths()[0].vertices
            assert corners[:, 1].min() == rows["low"].min() and corners[:, 1].max() == rows["high"].max()
        looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in axes.lines}
        assert len(looks) == len(RULES)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(RULES)


def test_calibration_curves_draws_shares_with_intervals_and_the_diagonal():
    frame = bins()
    figure = plots.calibration_curves(frame)
    (axes,) = figure.axes
    assert axes.lines[0].get_xydata().tolist() == [[0, 0], [1, 1]]
    for bar in axes.containers:
        rows = frame[frame["ranker"] == bar.get_label()]
        assert bar.lines[0].get_xydata().tolist() == rows[["score", "share"]].to_numpy().tolist()
        ends = np.array(bar.lines[2][0].get_segments())[:, :, 1]
        assert ends == pytest.approx(rows[["low", "high"]].to_numpy())
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


@pytest.mark.parametrize(
    "call, frame, column", [("sample_curves", points, "n"), ("calibration_curves", bins, "share")]
)
def test_bad_frames_are_refused(call, frame, column):
    with pytest.raises(ValueError, match=f"must be a frame with the columns .*; got no column {column}"):
        getattr(plots, call)(frame().drop(columns=column))
    with pytest.raises(ValueError, match="at least one row; got no row"):
        getattr(plots, call)(frame().head(0))
