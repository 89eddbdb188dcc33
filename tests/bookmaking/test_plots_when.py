"""The figure of the chapter on when wrong answers pay: a panel per condition, a mark per row."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest

from negdistill.bookmaking.plots_when import sweeps

pytestmark = pytest.mark.usefixtures("styled")


def table(panels, methods=("NAT", "MIX")):
    rows = [
        {"axis": axis, "value": value, "method": method, "difference": place / 20 + at / 100}
        for axis, values in panels.items()
        for place, value in enumerate(values)
        for at, method in enumerate(methods)
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(low=frame["difference"] - 0.02, high=frame["difference"] + 0.01)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_values_in_their_order_and_marks_beside_each_other(count):
    panels = {f"axis {at}": [70, 300, "all"][: 1 + at % 3] for at in range(count)}
    figure = sweeps(table(panels))
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_xlabel() for axis in shown] == list(panels)
    for axis, values in zip(shown, panels.values(), strict=True):
        assert [text.get_text() for text in axis.get_xticklabels()] == [str(one) for one in values]
        marks = {one.get_label(): one for one in axis.containers}
        for at, method in enumerate(("NAT", "MIX")):
            data, _, (whisker,) = marks[method]
            assert np.allclose(data.get_ydata(), [5 * place + at for place in range(len(values))])
            assert np.allclose(np.round(data.get_xdata()), range(len(values)))
            low, high = whisker.get_segments()[0][:, 1]
            assert np.allclose([low, high], [at - 2, at + 1])
        nat, mix = (marks[name][0].get_xdata() for name in ("NAT", "MIX"))
        assert (nat < mix).all()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["NAT", "MIX"]


@pytest.mark.parametrize("value, shown, edge", [(-0.25, "\N{MINUS SIGN}25", 0), (0.4, "+40", 1)])
def test_what_is_far_from_zero_stands_at_the_edge_and_shrinks_no_other(value, shown, edge):
    frame = table({"rank": [2, 8]})
    frame.loc[3, ["difference", "low", "high"]] = [value, value - 0.05, value + 0.05]
    (axis,) = sweeps(frame).axes
    arrow, text = axis.texts
    assert text.get_text() == shown and arrow.xy[1] == edge
    assert np.isclose(arrow.xy[0], 1.15), "the mark's own place: the second value, the second method"
    assert -20 < axis.get_ylim()[0] and axis.get_ylim()[1] < 20


def test_where_all_are_far_all_are_marks():
    (axis,) = sweeps(table({"rank": [2]}).assign(difference=0.5, low=0.4, high=0.6)).axes
    assert not axis.texts and axis.get_ylim()[1] > 60


def test_it_names_what_is_missing():
    with pytest.raises(ValueError, match="table must be a frame .*no column high"):
        sweeps(table({"rank": [2]}).drop(columns="high"))
