"""nbval compares every output of a notebook but images; a glued figure is an image under another name."""

import os

import pytest

from negdistill.bookmaking.pipeline import QUIET

os.environ.update(QUIET)  # kernels inherit it


def pytest_collectstart(collector: pytest.Collector) -> None:
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("application/papermill.record/image/png",)
