"""Texts: the page of answers says what the file says, whatever stands in it."""

import base64
import gzip
import json
from string import ascii_letters, digits

import pandas as pd
import pytest
from markup import Tags

from negdistill.bookmaking.texts import COLUMNS, UNPACKED_BY, listing, solved, texts, texts_page
from negdistill.runs.digests import digest_file

ANSWERS = pd.DataFrame(
    [
        ("as it is", "test:1", "Algebra", 2, "What is $1 + 1$?", "2", "I do not know.", None, False),
        ("as it is", "test:7", "Geometry", 3, "How long?\n\nIn cm.", "5", "It is 5.", "5", True),
        ("NAT", "test:1", "Algebra", 2, "What is $1 + 1$?", "2", "1 + 1\n\nis 2.", "2", True),
        ("NAT", "test:7", "Geometry", 3, "How long?\n\nIn cm.", "5", "It is 6.", "6", False),
    ],
    columns=COLUMNS,
)


@pytest.fixture
def path(tmp_path):
    """A chapter's file beside its executed notebook."""
    return left(tmp_path / "05_some.texts.parquet", ANSWERS)


def left(path, frame):
    frame.to_parquet(path, index=False)
    made = {"manifest": {"artifacts": {"texts.parquet": digest_file(path)}}}
    notebook = {"cells": [], "metadata": {"negdistill": made}, "nbformat": 4, "nbformat_minor": 5}
    path.with_name("05_some.ipynb").write_text(json.dumps(notebook))
    return path


def unpacked(frame=ANSWERS, title="Some"):
    (region,) = Tags(listing(frame, "05_some", title)).all("div")
    assert (region["id"], region["data-title"]) == ("05_some", title)
    return json.loads(gzip.decompress(base64.b64decode(region["data-packed"])))


def test_texts_are_read_as_the_notebook_left_them(path):
    pd.testing.assert_frame_equal(texts(path), ANSWERS)
    ANSWERS.assign(correct=True).to_parquet(path, index=False)
    with pytest.raises(ValueError, match="05_some.texts.parquet is not what its notebook left: the digests"):
        texts(path)
    left(path, ANSWERS.drop(columns=["question", "answer"]))
    with pytest.raises(ValueError, match="must hold method, .*; it lacks question, answer: run the notebook"):
        texts(path)


def test_a_question_has_every_answer_in_full_and_whether_it_is_right():
    first, second = unpacked()
    assert first == {
        **{"own": "test:1", "kind": "Algebra, level 2", "subject": "Algebra", "level": "2"},
        **{"short": "What is $1 + 1$?", "question": "What is $1 + 1$?", "reference": "2"},
        "answers": [
            {"method": "as it is", "correct": False, "answer": None, "text": "I do not know."},
            {"method": "NAT", "correct": True, "answer": "2", "text": "1 + 1\n\nis 2."},
        ],
    }
    assert (second["own"], second["short"], second["question"]) == (
        *("test:7", "How long? In cm.", "How long?\n\nIn cm."),
    )
    assert [one["correct"] for one in second["answers"]] == [True, False]
    (long,) = unpacked(ANSWERS[:1].assign(question="word " * 50))
    assert long["short"].endswith(" …") and len(long["short"]) <= 110 and long["question"] == "word " * 50


def test_a_question_of_no_subject_or_level_says_so():
    frame = ANSWERS[:1].assign(subject="", level=None)
    (one,) = unpacked(frame)
    assert (one["kind"], one["subject"], one["level"]) == ("a question", "", "")
    mixed = pd.concat([frame, ANSWERS[1:2]], ignore_index=True)  # levels become floats
    assert unpacked(mixed)[1]["kind"] == "Geometry, level 3"


@pytest.mark.parametrize(
    "value", ['"><img src=x onerror=alert(1)>', "| `x` | {x}`y` |", "a\r\n\nb", "\x00 ä"]
)
def test_whatever_stands_in_a_text_is_packed_in_one_line_of_markdown(value):
    columns = dict.fromkeys(["question", "text", "reference", "subject"], value)
    text = listing(ANSWERS.assign(**columns), "05_some", "Some")
    (region,) = Tags(text, ("p",)).all("div")
    assert not set(region["data-packed"]) - set(ascii_letters + digits + "+/=") and "\n" not in text
    for one in unpacked(ANSWERS.assign(**columns), title=value.replace("\r", "").replace("\x00", "")):
        sign = value.replace("\x00", "\ufffd")  # no text, but it was there
        assert {one[name] for name in ("question", "reference", "subject")} == {sign}
        assert {answer["text"] for answer in one["answers"]} == {sign}


def test_a_list_is_packed_the_same_each_time_and_says_what_it_needs():
    text = listing(ANSWERS, "05_some", "Some")
    assert text == listing(ANSWERS.copy(), "05_some", "Some")
    assert Tags(text, ("p",)).texts == [UNPACKED_BY]


def test_the_page_has_every_file_below_the_title_of_its_chapter(path):
    text = texts_page(path.parent, {"05_some.ipynb": "Some & more"})
    assert text.startswith("## Some & more\n\n") and "[](executed/05_some.ipynb)" in text
    assert "{download}`05_some.texts.parquet <executed/05_some.texts.parquet>`" in text
    assert "\n\n<p>Of 2 questions solved: as it is 1; NAT 1.</p>\n\n<div " in text
    assert texts_page(path.parent, {}).startswith("## 05_some\n\n")
    assert solved(ANSWERS.assign(method="<b>")) == "<p>Of 2 questions solved: &lt;b&gt; 2.</p>"
