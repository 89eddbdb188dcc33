"""Figures: what is drawn is what the frame says, and it can be read on both kinds of page."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb, to_rgba

from negdistill.bookmaking import plots

TEACHERS = ("weak", "strong")


pytestmark = pytest.mark.usefixtures("styled")


def questions(n=40, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"teacher": teacher, "level": level, "right": right}
        for teacher in TEACHERS
        for level in range(1, 6)
        for right in rng.binomial(8, 0.8 - 0.1 * level, n)
    )
    return frame.assign(share=frame["right"] / 8)


def changes(n=30):
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {"teacher": teacher, "rules": rules, "changed": 125 * count}
        for teacher in TEACHERS
        for rules in ("boxed + math", "lenient + exact", "lenient + math")
        for count in rng.binomial(8, 0.1, n)
    )


def drawn(figure):
    """Bars with a height or width, and the legend's words."""
    (axes,) = figure.axes
    bars = [bar for container in axes.containers for bar in container if hasattr(bar, "get_height")]
    return axes, bars, [text.get_text() for text in axes.get_legend().get_texts()]


def luminance(colour):
    channels = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", ["white", "black"])
def test_text_and_marks_can_be_read_on_white_and_on_black(page):
    assert contrast(plots.TEXT, page) >= 4.5
    assert all(contrast(colour, page) >= 3 for colour in plots.COLOURS)


def test_style_makes_background_transparent_and_every_text_grey():
    figure = plots.accuracy_by_level(questions())
    (axes,) = figure.axes
    assert figure.get_facecolor()[3] == 0 and axes.get_facecolor()[3] == 0
    labels = [axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_legend().get_texts()]
    assert {to_rgba(label.get_color()) for label in labels} == {to_rgba(plots.TEXT)}


@pytest.mark.parametrize(
    "make", [lambda: plots.accuracy_by_level(questions()), lambda: plots.label_changes(changes())]
)
def test_figures_are_closed_so_that_a_notebook_shows_them_once(make):
    make()
    assert plt.get_fignums() == []


def test_accuracy_by_level_draws_the_mean_of_each_level_with_an_interval():
    frame = questions()
    axes, _, legend = drawn(plots.accuracy_by_level(frame))
    lines = {line.get_label(): line for line in axes.lines if line.get_label() in TEACHERS}
    assert tuple(lines) == TEACHERS == tuple(legend)
    for teacher, line in lines.items():
        means = frame[frame["teacher"] == teacher].groupby("level")["share"].mean()
        np.testing.assert_allclose(line.get_xydata(), np.c_[means.index, means], atol=1e-12)
    assert len({line.get_marker() for line in lines.values()}) == 2
    whiskers = [segment for bars in axes.collections for segment in bars.get_segments()]
    assert len(whiskers) == 10
    assert all(low[1] < high[1] for low, high in whiskers)
    assert axes.get_xlabel() == "level" and "share" in axes.get_ylabel() and axes.get_ylim() == (0, 1)


def test_accuracy_by_level_resamples_questions_not_rationales():
    def width(n, copies):
        frame = pd.DataFrame(
            {"teacher": "weak", "level": 1, "share": np.tile([0.0, 1.0], n // 2).repeat(copies)}
        )
        (bars,) = plots.accuracy_by_level(frame).axes[0].collections
        ((low, high),) = bars.get_segments()
        return high[1] - low[1]

    normal = 2 * 1.96 * 0.5 / np.sqrt(100)
    assert width(100, 1) == pytest.approx(normal, rel=0.1)
    assert width(100, 8) == pytest.approx(
        normal / np.sqrt(8), rel=0.1
    )  # what counting rationales would claim


def test_accuracy_by_level_draws_the_reference_dashed_in_the_same_colours():
    reference = pd.DataFrame(
        {"teacher": f"{teacher} on MATH", "level": level, "share": 1 - level / 10}
        for teacher in TEACHERS
        for level in range(1, 6)
    )
    axes, _, legend = drawn(plots.accuracy_by_level(questions(), reference))
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [line.get_label() for line in dashed] == legend[2:] == ["weak on MATH", "strong on MATH"]
    assert [line.get_color() for line in dashed] == list(plots.COLOURS[:2])
    np.testing.assert_allclose(dashed[0].get_ydata(), [0.9, 0.8, 0.7, 0.6, 0.5])


def test_correct_counts_draws_a_bar_per_count_and_teacher_that_sum_to_one():
    frame = questions()
    axes, bars, legend = drawn(plots.correct_counts(frame))
    counts = range(frame["right"].max() + 1)
    assert tuple(legend) == TEACHERS
    assert len(bars) == len(TEACHERS) * len(counts)
    for teacher, container in zip(TEACHERS, axes.containers, strict=True):
        heights = [bar.get_height() for bar in container]
        assert sum(heights) == pytest.approx(1)
        right = frame.loc[frame["teacher"] == teacher, "right"]
        assert heights == pytest.approx([(right == count).mean() for count in counts])
    assert len([line for line in axes.lines if len(line.get_xdata()) == 2]) == len(bars)  # a whisker each
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [str(count) for count in counts]
    assert "per question" in axes.get_xlabel() and "share of questions" in axes.get_ylabel()


def test_label_changes_draws_a_bar_per_pair_of_rules_and_teacher():
    frame = changes()
    axes, bars, legend = drawn(plots.label_changes(frame))
    assert tuple(legend) == TEACHERS
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(frame["rules"].unique())
    for teacher, container in zip(TEACHERS, axes.containers, strict=True):
        means = frame[frame["teacher"] == teacher].groupby("rules", sort=False)["changed"].mean()
        assert [bar.get_width() for bar in container] == pytest.approx(list(means))
    assert len(bars) == len([line for line in axes.lines if len(line.get_xdata()) == 2]) == 6
    assert "per 1,000" in axes.get_xlabel()


def test_figures_are_the_same_every_time():
    frame = questions()
    whiskers = [
        [line.get_xydata().tolist() for line in plots.correct_counts(frame).axes[0].lines] for _ in range(2)
    ]
    assert whiskers[0] == whiskers[1]


@pytest.mark.parametrize("figure", [plots.accuracy_by_level, plots.correct_counts, plots.label_changes])
def test_a_frame_without_a_column_or_a_row_is_refused(figure):
    whole = changes() if figure is plots.label_changes else questions()
    with pytest.raises(
        ValueError, match=r"questions must be a frame with the columns .*; got no column teacher"
    ):
        figure(whole.drop(columns="teacher"))
    with pytest.raises(ValueError, match=r"questions must be .* at least one row; got no row"):
        figure(whole.iloc[:0])


def test_a_reference_without_a_column_is_refused():
    with pytest.raises(ValueError, match="reference must be a frame .*; got no column share"):
        plots.accuracy_by_level(questions(), pd.DataFrame({"teacher": ["x"], "level": [1]}))
