"""nbval compares every output of a notebook but images; a glued figure is an image under another name."""

import os

import pytest

from negdistill.bookmaking.pipeline import surroundings

collect_ignore = ["solutions"]  # run by tests/test_solutions.py, all in one process

named = os.environ.get("NEGDISTILL_DATA")
os.environ.update(surroundings("smoke", jobs=1))  # kernels inherit it, as they do from the runner
if not named:  # nor is it to the tests: what needs the real data is skipped where nobody says where it is
    del os.environ["NEGDISTILL_DATA"]


def pytest_collectstart(collector: pytest.Collector) -> None:
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("application/papermill.record/image/png",)
