"""Ledger: lines on disk before anything goes on, torn lines, two processes, and a budget under threads."""

import errno
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from random import Random

import pytest

from negdistill.data.formats import read_records
from negdistill.data.records import Problem, Reply
from negdistill.data.tasks import load_task
from negdistill.teachers.ledger import Budget, BudgetReached, Slot, Store, cost, read_store


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
    """Kind: the last line of a run that was killed while it wrote; as in sipyourdrink-ltd/bernstein#5919."""
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


def test_a_byte_that_changed_is_named_with_file_and_line(tmp_path):
    path = tmp_path / "s.jsonl"
    with Store(path) as store:
        for index in range(3):
            store.append(reply(index, "1 + 1 = 2 \u00e9"))
    whole = path.read_bytes()
    random = Random(0)
    for place in [*random.sample(range(len(whole)), 150), len(whole) - 1, whole.index(b"\n")]:
        for changed in {whole[place] ^ (1 << random.randrange(8)), *b"9 \r\n"} - {whole[place]}:
            path.write_bytes(damaged := whole[:place] + bytes([changed]) + whole[place + 1 :])
            with pytest.raises(ValueError, match=rf"{path}, line \d.*(copy of it|line out)"):
                read_store(path)
            with pytest.raises(ValueError, match=rf"{path}, line \d"), Store(path):
                pass
            assert path.read_bytes() == damaged


def test_a_file_of_a_teacher_is_checked_too(tmp_path):
    problem = Problem("p", "q", "a", "", "", None, "mine")
    path = tmp_path / "s.jsonl"
    with Store(path) as store:
        store.append(reply(0))
    assert load_task().rationales([problem], str(path), 1)[0].text == "1 + 1 = 2"
    path.write_bytes(path.read_bytes().replace(b"1 + 1 = 2", b"1 + 1 = 3"))
    with pytest.raises(ValueError, match=f"{path}, line 1: the line is damaged"):
        load_task().rationales([problem], str(path), 1)


@pytest.mark.parametrize(
    "last",
    [
        '{"problem_id": "p", "index": 0, "text": "t", "teacher": "t"}',
        '{"problem_id": "p", "note": "mine"',
        '{"problem_id": "p", "index": 0, "text": "t", "teacher": "t", "finish": "stop", "prompt_tokens": 1, '
        '"completion_tokens": 2, "request": "r"}',
        '{"problem_id": "p", "index": "0", "tex": ',
        '{"problem_id": "p", "index": 0.5',
        "# notes",
        "   ",
    ],
)
def test_a_last_line_that_is_not_ours_is_kept(tmp_path, last):
    path = tmp_path / "s"
    with Store(path) as store:
        store.append(reply())
    path.write_bytes(before := path.read_bytes() + last.encode())
    with (
        pytest.raises(ValueError, match=f"{path}, line 2: the last line .* must end with a line break"),
        Store(path),
    ):
        pass
    assert path.read_bytes() == before


def test_a_refused_store_keeps_its_torn_line(tmp_path):
    path = tmp_path / "s"
    with Store(path) as store:
        store.append(reply())
    path.write_bytes(before := b'{"a": 1}\n' + path.read_bytes()[:60])
    with pytest.raises(ValueError, match=f"{path}, line 1"), Store(path):
        pass
    assert path.read_bytes() == before


def test_a_store_of_before_lines_were_sealed_is_read(tmp_path):
    old = {"problem_id": "p", "index": 0, "text": "1 + 1 = 2", "teacher": "t", "finish": "stop"}
    old |= {"prompt_tokens": 3, "completion_tokens": 4, "request": "r"}
    (tmp_path / "s").write_text(json.dumps(old) + "\n")
    with Store(tmp_path / "s") as store:
        assert list(store.replies.values()) == [reply()]


def test_an_answer_counts_before_an_error(tmp_path):
    turned = replace(reply(0, ""), finish="rejected", error="status 400: no")
    for order in ((turned, reply()), (reply(), turned), (turned, turned, reply())):
        (tmp_path / "s").unlink(missing_ok=True)
        with Store(tmp_path / "s") as store:
            for one in order:
                store.append(one)
        assert list(read_store(tmp_path / "s")[0].values()) == [reply()]


def test_charges_are_remembered_until_they_are_taken_back(tmp_path):
    path, beside = tmp_path / "s", tmp_path / "s.charges"
    with Store(path) as store:
        store.charges.add("t", 5, 7)
        store.charges.add("u", 1, 1)
        killed = beside.read_bytes()  # as a process that is killed now leaves it
        store.charges.add("t", -5, -7)
    assert beside.read_bytes().count(b"\n") == 2
    beside.write_bytes(killed + b'{"teacher": "t", "prompt_to')
    with Store(path) as store:
        assert (store.charges.prompt["t"], store.charges.completion["t"]) == (5, 7)
        store.charges.add("t", -5, -7)
        store.charges.add("u", -1, -1)
    assert not beside.exists()
    for damaged in (killed.replace(b"5", b"0", 1), killed + b"notes", b"{}\n", b'{"teacher": 1}\n'):
        beside.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{beside}, line"), Store(path):
            pass
        assert beside.read_bytes() == damaged


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


def test_a_store_that_cannot_be_closed_is_let_go(tmp_path, monkeypatch):
    def full():
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"), Store(tmp_path / "s") as store:
        monkeypatch.setattr(store.charges, "close", full)
    with Store(tmp_path / "s"):
        pass


def test_what_comes_after_the_end_is_written_nowhere(tmp_path):
    for charged in (True, False):
        with Store(tmp_path / "s") as store:
            store.append(reply())
            if charged:
                store.charges.add("t", 5, 7)
        files = [open(tmp_path / str(number), "wb") for number in range(9)]  # they take the numbers let go
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        for late in (lambda: store.append(reply(1)), lambda: store.charges.add("t", -5, -7)):
            with pytest.raises(OSError):
                late()
        for file in files:
            file.close()
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
        (tmp_path / "s.charges").unlink(missing_ok=True)


def test_the_end_waits_for_an_answer_that_is_being_written(tmp_path, monkeypatch):
    begun, go, fsync = threading.Event(), threading.Event(), os.fsync
    with Store(tmp_path / "s") as store:
        monkeypatch.setattr(os, "fsync", lambda file: begun.set() or go.wait(60) and fsync(file))
        writer = threading.Thread(target=store.append, args=[reply()])
        writer.start()
        assert begun.wait(60)
        threading.Timer(0.2, go.set).start()
    writer.join(60)
    assert read_records(tmp_path / "s", Reply) == [*store.replies.values()] == [reply()]


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
