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
        {"axis": axis, "value": value, "method": method, "difference": place / 10 + at / 100}
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
            assert np.allclose(data.get_ydata(), [place / 10 + at / 100 for place in range(len(values))])
            assert np.allclose(np.round(data.get_xdata()), range(len(values)))
            low, high = whisker.get_segments()[0][:, 1]
            assert np.allclose([low, high], [at / 100 - 0.02, at / 100 + 0.01])
        nat, mix = (marks[name][0].get_xdata() for name in ("NAT", "MIX"))
        assert (nat < mix).all()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["NAT", "MIX"]


def test_it_names_what_is_missing():
    with pytest.raises(ValueError, match="table must be a frame .*no column high"):
        sweeps(table({"rank": [2]}).drop(columns="high"))
