"""nbval compares every output of a notebook but images; a glued figure is an image under another name."""

import os

import pytest

from negdistill.bookmaking.pipeline import surroundings

collect_ignore = ["solutions"]  # run by tests/test_solutions.py, all in one process

os.environ.update(surroundings("smoke", jobs=1))  # kernels inherit it, as they do from the runner


def pytest_collectstart(collector: pytest.Collector) -> None:
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("application/papermill.record/image/png",)
