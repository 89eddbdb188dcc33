"""Served: settings that are refused, and what headers say. How it asks a server is in test_teachers."""

import time
from email.utils import formatdate

import pytest

from negdistill.teachers.openai_server import OpenAITeacher
from negdistill.teachers.replies import retry_after


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concurrency": 0}, "concurrency must be at least 1; got 0"),
        ({"max_tokens": 0}, "max_tokens must be at least 1; got 0"),
        ({"retries": -1}, "retries must be at least 0; got -1"),
        ({"timeout": 0}, "timeout must be more than 0 seconds; got 0"),
        ({"prices": (1.0, -1.0)}, "prices must be two numbers, each at least 0"),
        ({"prices": (1.0,)}, "prices must be two numbers, each at least 0"),
        ({"options": {"n": 8}}, "options must not set 'n', which the teacher itself does; leave it out"),
        (
            {"options": {"max_tokens": None}},
            "options must leave a limit of the answer; set one of max_tokens",
        ),
        ({"base_url": "http://me:secret@host/v1"}, "base_url must not hold a name or password"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        OpenAITeacher("m", **settings)
    assert "secret" not in str(caught.value)


def test_options_change_the_request():
    from negdistill.data import arithmetic

    (problem,) = arithmetic.generate("train", 1, 0)
    options = {"max_tokens": None, "max_completion_tokens": 9, "temperature": None}
    teacher = OpenAITeacher("m", options=options)
    assert set(teacher.request(problem, 0.5)) == {"model", "messages", "max_completion_tokens"}
    assert teacher.most_tokens(problem)[1] == 9


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after": "9", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": formatdate(time.time() - 60, usegmt=True)}, 0.0),
    ],
)
def test_how_long_a_server_wants_us_to_wait(headers, seconds):
    assert retry_after(headers) == seconds


def test_a_date_is_a_time_from_now():
    assert 28 < retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)}) <= 30
