"""nbval compares every output of a notebook but images; a glued figure is an image under another name."""

import os

import pytest

from negdistill.bookmaking.pipeline import surroundings

collect_ignore = ["solutions"]  # run by tests/test_solutions.py, all in one process

# Kernels inherit it, as they do from the runner. A folder of data that nobody named is named to no test:
# those that need the real data are skipped then.
named = "NEGDISTILL_DATA" in os.environ
values = surroundings("smoke", jobs=1)
os.environ.update({name: value for name, value in values.items() if name != "NEGDISTILL_DATA" or named})


def pytest_collectstart(collector: pytest.Collector) -> None:
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("application/papermill.record/image/png",)
