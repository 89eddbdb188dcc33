"""Pages that moved: the old address leads on."""

import re

import pytest

from negdistill.bookmaking.moved import lead_on


@pytest.fixture
def html(tmp_path):
    for name in ("book/new.html", "book/api/room.name.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("here")
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new"),
    [("book/old.html", "book/new.html"), ("book/api/name.html", "book/api/room.name.html"),
     ("old.html", "book/new.html"), ("book/deep/er/old.html", "book/new.html")],
)  # fmt: skip
def test_an_old_address_leads_to_the_new_page(html, old, new):
    lead_on(html, {old: new})
    text = (html / old).read_text("utf-8")
    addresses = {*re.findall(r'href="([^"]+)"', text), *re.findall(r"url=([^\"]+)", text)}
    assert len(addresses) == 1
    assert ((html / old).parent / addresses.pop()).resolve() == html / new


@pytest.mark.parametrize(("old", "new"), [("book/new.html", "book/api/room.name.html"), ("a.html", "b.html")])
def test_a_page_is_never_replaced_and_nothing_leads_nowhere(html, old, new):
    with pytest.raises(ValueError, match="moved must lead from an address without a page to a page"):
        lead_on(html, {old: new})
    assert (html / "book/new.html").read_text() == "here"
