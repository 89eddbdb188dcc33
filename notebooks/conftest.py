"""nbval compares every output of a notebook but images; a glued figure is an image under another name."""

import pytest


def pytest_collectstart(collector: pytest.Collector) -> None:
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("application/papermill.record/image/png",)
