"""Texts: the page of answers says what the file says, whatever stands in it."""

import json

import pandas as pd
import pytest
from markup import Tags

from negdistill.bookmaking.texts import COLUMNS, listing, question, solved, texts, texts_page
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


def shown(frame=ANSWERS):
    page = Tags(listing(frame, "05_some", "Some"), ("summary", "strong", "pre", "em", "span"))
    page.texts = [text.strip() for text in page.texts]
    return page


def test_texts_are_read_as_the_notebook_left_them(path):
    pd.testing.assert_frame_equal(texts(path), ANSWERS)
    ANSWERS.assign(correct=True).to_parquet(path, index=False)
    with pytest.raises(ValueError, match="05_some.texts.parquet is not what its notebook left: the digests"):
        texts(path)
    left(path, ANSWERS.drop(columns=["question", "answer"]))
    with pytest.raises(ValueError, match="must hold method, .*; it lacks question, answer: run the notebook"):
        texts(path)


def test_a_question_has_every_answer_in_full_and_whether_it_is_right():
    page = shown()
    first = ["", "Algebra, level 2", "What is $1 + 1$?", "✓ NAT", "Question test:1; the answer is 2"]
    assert page.texts[:5] == first and page.texts[5:10] == [
        "What is $1 + 1$?",
        *("as it is: ✗ wrong, no answer", "I do not know."),
        *("NAT: ✓ right, 2", "1 + 1\n\nis 2."),
    ]
    assert page.texts[11:14] == ["Geometry, level 3", "How long? In cm.", "✓ as it is"]
    answers = [(one["data-method"], one["data-verdict"]) for one in page.all("div") if "data-method" in one]
    assert answers == [(name, verdict) for name, verdict in zip(
        ["as it is", "NAT"] * 2, ["✗ wrong", "✓ right", "✓ right", "✗ wrong"], strict=True
    )]  # fmt: skip


def test_a_question_says_what_it_can_be_found_by_and_has_an_address():
    found = [(one["id"], one["data-subject"], one["data-level"]) for one in shown().all("details")]
    assert found == [("05_some-test:1", "Algebra", "2"), ("05_some-test:7", "Geometry", "3")]
    (one,) = Tags(question(ANSWERS[:1].assign(problem_id='my "own" ä/1'), "05_some")).all("details")
    assert one["id"] == "05_some-my%20%22own%22%20%C3%A4%2F1"


def test_a_question_of_no_subject_or_level_and_that_none_solves_says_so():
    frame = ANSWERS[:1].assign(subject="", level=None)
    page = shown(frame)
    assert page.texts[1] == "a question" and page.texts[3] == "✗ solved by none"
    assert [(one["data-subject"], one["data-level"]) for one in page.all("details")] == [("", "")]
    mixed = pd.concat([frame, ANSWERS[1:2]], ignore_index=True)  # levels become floats
    assert "Geometry, level 3" in shown(mixed).texts


@pytest.mark.parametrize("value", ['"><img src=x onerror=alert(1)>', "a < b & c", "| `x` | {x}`y` |", "'"])
def test_whatever_stands_in_a_text_is_shown_as_it_is(value):
    tags, columns = [tag for tag, _ in shown().tags], dict.fromkeys(["question", "text", "reference"], value)
    page = shown(ANSWERS.assign(subject=value, **columns))
    assert [tag for tag, _ in page.tags] == tags
    assert page.texts.count(value) == 8 and page.all("details")[0]["data-subject"] == value


@pytest.mark.parametrize("end", ["\n\n", "\r\r", "\r\n\r\n", "\x0c", "\x00"])
def test_a_list_is_one_line_of_markdown_without_what_is_no_text(end):
    text = listing(ANSWERS.assign(text=f"one{end}two", question=f"three{end}four"), "05_some", "Some")
    assert not set(text) & {"\n", "\r", "\x0c", "\x00"} and "one" in text and "two" in text


def test_the_page_has_every_file_below_the_title_of_its_chapter(path):
    text = texts_page(path.parent, {"05_some.ipynb": "Some & more"})
    assert text.startswith("## Some & more\n\n") and "[](executed/05_some.ipynb)" in text
    assert "\n\n<p>Of 2 questions solved: as it is 1; NAT 1.</p>\n\n<div " in text
    assert texts_page(path.parent, {}).startswith("## 05_some\n\n")
    assert solved(ANSWERS.assign(method="<b>")) == "<p>Of 2 questions solved: &lt;b&gt; 2.</p>"
