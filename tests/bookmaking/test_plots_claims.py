"""The forest plot: every mark where its number is, everything inside of the figure."""

import pandas as pd
import pytest

from negdistill.bookmaking.plots_claims import forest

pytestmark = pytest.mark.usefixtures("styled")

ROWS = pd.DataFrame(
    [
        ("marked", "embedded student, weak teacher", 0.03, 0.01, 0.05, False, None),
        ("marked", "real student", -0.01, -0.06, 0.04, True, None),
        ("in a vote", "embedded student, weak teacher", 0.0, -0.01, 0.01, True, 0.015),
        ("in a vote", "embedded student, strong teacher", 0.02, -0.01, 0.05, False, None),
    ],
    columns=["label", "series", "value", "low", "high", "small", "published"],
).astype({"published": float})


def marks(axes):
    """Markers, points and heights of what is drawn, those of the lines at zero left out."""
    lines = [
        line for line in axes.lines if line.get_marker() not in ("None", "", None) and len(line.get_xdata())
    ]
    return [(line.get_marker(), line.get_xdata()[0], line.get_ydata()[0], line) for line in lines]


def test_a_mark_for_each_row_below_its_name_and_hollow_where_the_run_is_small():
    (axes,) = forest(ROWS, 0.02).axes
    drawn = marks(axes)
    published = [mark for mark in drawn if mark[0] == "D"]
    assert [mark[1] for mark in published] == pytest.approx([1.5])
    own = sorted((mark for mark in drawn if mark[0] != "D"), key=lambda mark: mark[2])
    assert [mark[1] for mark in own] == pytest.approx((100 * ROWS["value"]).tolist())
    assert [mark[3].get_markerfacecolor() == "none" for mark in own] == ROWS["small"].tolist()
    looks = {series: mark[0] for series, mark in zip(ROWS["series"], own, strict=True)}
    assert len(set(looks.values())) == 3  # told apart without colour
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert list(heights) == ["marked", "in a vote"]
    assert heights["marked"] < own[0][2] < own[1][2] < heights["in a vote"] < own[2][2] < own[3][2]


@pytest.mark.parametrize("rows", [ROWS, ROWS[ROWS["series"] == "real student"]], ids=["three series", "one"])
def test_names_and_legend_stay_inside_of_the_figure(rows):
    figure = forest(rows, 0.02)
    figure.draw_without_rendering()
    assert len(figure.legends) == (rows["series"].nunique() > 1)
    for part in [*figure.axes[0].texts, *figure.legends]:
        box = part.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="published"):
        forest(ROWS.drop(columns="published"), 0.02)


def test_nothing_is_hidden_neither_names_by_lines_nor_a_dot_by_the_published_number():
    figure = forest(ROWS.assign(published=ROWS["value"]), 0.02)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert all(mark[3].get_markerfacecolor() == "none" for mark in marks(axes) if mark[0] == "D")
    drawn = [path.transformed(axes.transData) for one in axes.collections for path in one.get_paths()]
    names = [text.get_window_extent() for text in axes.texts]
    assert len(drawn) >= 2 * len(names)
    assert not any(path.intersects_bbox(name) for path in drawn for name in names)
