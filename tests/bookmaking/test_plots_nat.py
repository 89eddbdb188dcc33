"""Figures of the chapters on the negative adapter and on NAT: overlaps, and means of alpha."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest

from negdistill.bookmaking import plots

pytestmark = pytest.mark.usefixtures("styled")


def table():
    frame = pd.DataFrame(
        {"source": source, "group": group, "iou": 0.1 * place + 0.1, "chance": chance}
        for source, chance in (("ours", 0.3), ("published", None))
        for place, group in enumerate(("bags", "boxes", "all"))
    )
    return frame.assign(
        low=frame["iou"] - 0.05, high=frame["iou"] + 0.2, chance=frame["chance"].astype(float)
    )


def test_overlaps_draws_each_group_with_its_interval_and_chance_where_it_is_known():
    frame = table()
    figure = plots.overlaps(frame)
    assert [axes.get_title() for axes in figure.axes] == ["ours", "published"]
    for axes in figure.axes:
        part = frame[frame["source"] == axes.get_title()]
        (bar,) = axes.containers
        np.testing.assert_allclose(np.array(bar.lines[0].get_xdata(), float), part["iou"])
        whiskers = np.array(bar.lines[2][0].get_segments())
        np.testing.assert_allclose(whiskers[:, :, 0].astype(float), part[["low", "high"]])
        assert [label.get_text() for label in axes.get_yticklabels()] == list(part["group"])
        drawn = [line.get_label() for line in axes.lines]
        assert ("if independent" in drawn) == (axes.get_title() == "ours")
    chance = next(line for line in figure.axes[0].lines if line.get_label() == "if independent")
    np.testing.assert_allclose(np.array(chance.get_xdata(), float), 0.3)


@pytest.mark.parametrize("order", [["ours", "published"], ["published", "ours"]])
def test_no_overlap_lies_outside_its_panel(order):
    frame = table().set_index("source").loc[order].reset_index()
    frame.loc[frame["source"] == order[1], ["iou", "high"]] = 0.9, 0.95  # far above those of the first panel
    for axes in plots.overlaps(frame).axes:
        low, high = axes.get_xlim()
        assert low == 0 and high > 0.95


def test_means_are_drawn_as_the_mean_over_questions_and_an_interval_around_it():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"kind": kind, "text": text, "alpha": rng.normal(0.1 * place - 0.1, 0.02)}
        for place, kind in enumerate(("digit", "operator", "word"))
        for text in ("right", "wrong")
        for _ in range(30)
    )
    axes = plots.means(frame, "alpha", "kind", "text", "alpha").axes[0]
    means = frame.groupby(["kind", "text"])["alpha"].mean()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["digit", "operator", "word"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["right", "wrong"]
    marks = [line for line in axes.lines if line.get_marker() in plots.MARKERS and len(line.get_ydata()) == 3]
    assert len(marks) == 2 and marks[0].get_marker() != marks[1].get_marker()
    for line, text in zip(marks, ("right", "wrong"), strict=True):
        np.testing.assert_allclose(line.get_ydata(), means.xs(text, level="text"))
    spans = [line.get_ydata() for line in axes.lines if line.get_marker() not in plots.MARKERS]
    around = [span for span in spans if len(span) == 2 and span[0] != span[1]]
    assert len(around) == 6
    for low, high in around:
        assert any(min(low, high) < mean < max(low, high) for mean in means)


@pytest.mark.parametrize("column", ["source", "iou", "chance"])
def test_overlaps_names_what_is_missing(column):
    with pytest.raises(ValueError, match=f"table must be a frame .*no column {column}"):
        plots.overlaps(table().drop(columns=column))


def test_means_names_what_is_missing():
    with pytest.raises(ValueError, match="questions must be a frame .*no column kind"):
        plots.means(pd.DataFrame({"text": ["a"], "alpha": [0.0]}), "alpha", "kind", "text", "alpha")
    with pytest.raises(ValueError, match="no row"):
        plots.means(pd.DataFrame(columns=["kind", "text", "alpha"]), "alpha", "kind", "text", "alpha")
