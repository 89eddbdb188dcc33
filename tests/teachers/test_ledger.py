"""Ledger: lines on disk before anything goes on, torn lines, two processes, and a budget under threads."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from negdistill.data.formats import read_records
from negdistill.data.records import Problem, Reply
from negdistill.teachers.ledger import Budget, BudgetReached, Slot, Store, cost


def reply(index=0, text="1 + 1 = 2", request="r"):
    return Reply("p", index, text, "t", "stop", 3, 4, request)


def test_answers_come_back(tmp_path):
    path = tmp_path / "new" / "store.jsonl"
    with Store(path) as store:
        for one in (reply(0), reply(1, "é\n\u2028"), reply(0, request="other")):
            store.append(one)
            assert read_records(path, Reply)[-1] == one
    with Store(path) as store:
        assert list(store.replies) == [("p", 0, "r"), ("p", 1, "r"), ("p", 0, "other")]
        assert store.replies["p", 1, "r"].text == "é\n\u2028"


def test_an_answer_is_on_disk_when_append_returns(tmp_path, monkeypatch):
    order = []
    write, fsync = os.write, os.fsync
    with Store(tmp_path / "s") as store:
        monkeypatch.setattr(os, "write", lambda *a: order.append("write") or write(*a))
        monkeypatch.setattr(os, "fsync", lambda *a: order.append("fsync") or fsync(*a))
        store.append(reply())
        monkeypatch.undo()
    assert order == ["write", "fsync"]


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    path = tmp_path / "s"
    write = os.write

    def full(file, data):
        if len(data) < 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:60])

    with Store(path) as store:
        store.append(reply())
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            store.append(reply(1))
        monkeypatch.undo()
        assert path.read_bytes() == before and ("p", 1, "r") not in store.replies
        store.append(reply(1))
    assert read_records(path, Reply) == [reply(), reply(1)]


def test_a_torn_line_is_no_answer(tmp_path):
    path = tmp_path / "s"
    with Store(path) as store:
        store.append(reply())
        store.append(reply(1))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        with Store(path) as store:
            assert list(store.replies.values()) == [reply()]
        assert path.read_bytes() == whole[:first]


@pytest.mark.parametrize("text", ["my notes", '{"a": 1}', '{"problem_id": "p"}\n', "[1]\n"])
def test_a_file_that_is_no_store_is_refused_and_kept(tmp_path, text):
    path = tmp_path / "s"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path}"), Store(path):
        pass
    assert path.read_text() == text
    with pytest.raises(ValueError, match="is a folder"), Store(tmp_path):
        pass


def test_a_store_is_open_once(tmp_path):
    line = f"from negdistill.teachers.ledger import Store\nwith Store({str(tmp_path / 's')!r}): pass"
    with Store(tmp_path / "s"):
        done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode and "is in use by another process; wait for it" in done.stderr
    subprocess.run([sys.executable, "-c", line], check=True)


def test_many_threads_write_whole_lines(tmp_path):
    with Store(tmp_path / "s") as store:
        parts = [range(start, 120, 8) for start in range(8)]
        jobs = [threading.Thread(target=lambda p=p: [store.append(reply(i)) for i in p]) for p in parts]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
    assert sorted(one.index for one in read_records(tmp_path / "s", Reply)) == list(range(120))


def test_white_space_alone_is_an_empty_answer():
    slot = Slot(Problem("p", "q", "a", "", "", None, "mine"), 2, 0.5, "r")
    assert slot.reply(" x ", "t", "stop", 1, 2) == Reply("p", 2, "x", "t", "stop", 1, 2, "r")
    assert slot.reply(" \n", "t", "stop", 1, 2).finish == "empty"
    assert slot.reply("", "t", "length", 1, 2).finish == "length"


def test_cost_is_by_the_million():
    assert cost((2.0, 8.0), 500_000, 250_000) == 3.0 and cost(None, 1, 1) is None


def test_a_budget_is_never_exceeded():
    budget = Budget(1.0, spent=0.1)
    seen, ended = [], []

    def work():
        try:
            while True:
                budget.hold(0.25)
                seen.append(budget.spent + budget.held)
                budget.settle(0.25, 0.02)
        except BudgetReached as error:
            ended.append(str(error))

    jobs = [threading.Thread(target=work) for _ in range(6)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(20)
    assert len(ended) == 6 and max(seen) <= 1.0 + 1e-9 and budget.held == 0
    assert len(seen) == 33 and budget.spent == pytest.approx(0.76)  # 0.76 + 0.25 > 1


def test_without_a_limit_nothing_waits():
    budget = Budget()
    for _ in range(3):
        budget.hold(1e9)
    budget.settle(1e9, 5.0)
    assert budget.spent == 5.0
