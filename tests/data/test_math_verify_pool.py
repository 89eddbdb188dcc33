import os
import signal
import sqlite3
import time
from contextlib import closing, contextmanager

import pytest

from negdistill.data import math_verify_pool as pool

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ends workers by signals, which Windows has not")


@pytest.fixture
def cold(tmp_path, monkeypatch):
    """No verdict in memory or on disk."""
    monkeypatch.setenv("NEGDISTILL_CACHE", str(tmp_path))
    monkeypatch.setattr(pool, "_memory", {})


def kept():
    with closing(sqlite3.connect(pool.cache_file())) as table:
        return dict(table.execute("SELECT pair, equal FROM verdicts"))


@contextmanager
def ended(monkeypatch, number):
    """Every worker gets a signal as soon as it is asked."""
    ask = pool._Worker.ask

    def end(worker, question):
        while worker.process.poll() is None:  # an interrupt that comes while Python starts can be lost
            worker.process.send_signal(number)
            time.sleep(0.1)
        return ask(worker, question)

    with monkeypatch.context() as patch:
        patch.setattr(pool._Worker, "ask", end)
        yield


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"])  # Windows has not all of them
def test_a_worker_that_is_ended_twice_from_outside_leaves_no_verdict(cold, monkeypatch, name):
    """Kind: a grader that is out of memory and calls answers wrong; as in mlcommons/inference#2668."""
    assert pool.verdicts([("0.5", "2/4")])["0.5", "2/4"]
    message = r'ended twice from outside, last by signal .* while it compared \["0.5", "3/6"\]; mostly memory'
    with ended(monkeypatch, getattr(signal, name)), pytest.raises(RuntimeError, match=message):
        pool.verdicts([("0.5", "3/6"), ("0.5", "4/8")])
    assert list(kept()) == ['["0.5", "2/4"]']
    assert pool.verdicts([("0.5", "3/6")])["0.5", "3/6"]


def test_a_pair_that_makes_its_worker_crash_is_not_equal(cold, monkeypatch):
    with ended(monkeypatch, signal.SIGSEGV):
        assert pool.verdicts([("0.5", "3/6")]) == {("0.5", "3/6"): False}
    assert kept() == {'["0.5", "3/6"]': 0}
