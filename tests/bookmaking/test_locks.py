"""Locks: one at a time, and a word for who waits."""

import os
import re
from pathlib import Path
from threading import Event, Thread

from negdistill.bookmaking.locks import taking_turns


def test_who_comes_second_is_told_and_waits(tmp_path):
    said, order, told = [], [], Event()

    def say(line):
        said.append(line)
        told.set()

    def second():
        with taking_turns(tmp_path / "pages", "the pages are", say):
            order.append("second")

    with taking_turns(tmp_path / "pages", "the pages are", said.append):
        waiting = Thread(target=second)
        waiting.start()
        assert told.wait(60)
        order.append("first")
    waiting.join(60)
    assert order == ["first", "second"]
    known = rf"the pages are being made by process {os.getpid()} since \d\d:\d\d; waiting for it to end"
    assert re.fullmatch(known, said[0]) and len(said) == 1


def test_who_waits_goes_on_where_the_holder_leaves_meanwhile(tmp_path, monkeypatch):
    said, told, read_text = [], Event(), Path.read_text

    def left(path, *given):
        path.unlink()
        return read_text(path, *given)

    def say(line):
        said.append(line)
        told.set()

    def second():
        with taking_turns(tmp_path, "this is", say):
            pass

    monkeypatch.setattr(Path, "read_text", left)
    with taking_turns(tmp_path, "this is", print):
        waiting = Thread(target=second)
        waiting.start()
        assert told.wait(60)
    waiting.join(60)
    assert said == ["this is being made by another process; waiting for it to end"]


def test_an_error_gives_the_folder_free(tmp_path):
    try:
        with taking_turns(tmp_path, "this is", print):
            raise KeyError
    except KeyError:
        pass
    said = []
    with taking_turns(tmp_path, "this is", said.append):
        assert not said
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
