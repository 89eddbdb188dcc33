"""Masking: a key is cut out in whatever mix of spellings, and nothing else is."""

import base64
import html
import json
import string
import time
from html.entities import html5
from random import Random
from urllib.parse import quote

import pytest

from negdistill.teachers.masking import masker

PRINTABLE = "".join(map(chr, range(33, 127)))
NAMES = {meant: f"&{name}" for name, meant in html5.items() if name[-1] == ";"}
SPELLINGS = (
    lambda one: one,
    lambda one: "\\" + one,
    lambda one: "\\\\\\" + one,
    lambda one: f"%{ord(one):02x}",
    lambda one: f"%25{ord(one):02X}",
    lambda one: f"\\u{ord(one):04X}",
    lambda one: f"\\\\u{ord(one):04x}",
    lambda one: f"\\x{ord(one):02x}",
    lambda one: f"&#{ord(one)};",
    lambda one: f"&#x{ord(one):02X};",
    lambda one: f"\\u0026#{ord(one)};",
    html.escape,
    lambda one: html.escape(html.escape(one)),
    lambda one: NAMES.get(one, one),
    lambda one: NAMES.get(one, one).replace("&", "\\u0026"),
)


@pytest.mark.parametrize("seed", range(40))
def test_each_character_may_be_spelled_in_its_own_way(seed):
    random = Random(seed)
    key = "".join(random.choices(PRINTABLE, k=random.randrange(6, 50)))
    mask = masker(key)
    for _ in range(20):
        spelled = "".join(random.choice(SPELLINGS)(one) for one in key)
        assert mask(f"is {spelled} a key?").replace("\\", "") == "is *** a key?", (key, spelled)


@pytest.mark.parametrize("before", ["", "B", "Be", "Bearer "])
def test_base64_may_be_escaped_too(before):
    key = "sk->>>???~~~" + string.ascii_letters
    said = base64.b64encode(f"{before}{key}!".encode()).decode()
    assert "/" in said and "+" in said
    for spelled in (said.replace("/", "\\/"), quote(said, safe=""), json.dumps(said), html.escape(said)):
        left = masker(key)(spelled)
        assert "***" in left and len(left) < 24


def test_what_only_resembles_a_key_stays():
    mask = masker("sk-a/b&c")
    for text in (
        "sk-a/b c",
        "sk-a\\ /b&c",
        "sk-a/b&ampc",
        "a\\frac{1}{2} & 3 % of &lt;",
        "sk-a&#48;b&c",
        "\\",
    ):
        assert mask(text) == text


def test_a_text_of_backslashes_takes_no_time():
    text, began = "s" + "\\" * 100_000, time.monotonic()
    assert masker("sk-never-to-be-seen")(text) == text
    assert time.monotonic() - began < 30  # minutes, where each backslash may begin a key
