"""One page: reading order, links that lead within it or become text, and what becomes of screen things."""

from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from tree import write_files

from negdistill.bookmaking.one_page import BREAK, LEFT_OUT, chapters, one_page
from negdistill.bookmaking.planning import Failure

ROOT = Path(__file__).parents[2]
TOC = """root: book/index
parts:
- {caption: First, chapters: [{file: book/one}]}
- {caption: Last, chapters: [{file: book/answers}, {file: book/ja/two}]}
"""


@pytest.fixture
def joined(tmp_path):
    """A function: the join of three pages with these bodies, read again."""

    def join(index="", one="", two=""):
        texts = {
            "index": f"<h1>Home</h1>{index}",
            "one": f"<h1>One</h1>{one}",
            "ja/two": f"<h1>Two</h1>{two}",
        }
        pages = {f"book/{name}.xhtml": f'<div class="body">{text}</div>' for name, text in texts.items()}
        write_files(tmp_path, {"_toc.yml": TOC, **pages})
        return BeautifulSoup(one_page(tmp_path, tmp_path / "_toc.yml"), "html.parser")

    return join


def test_chapters_of_the_book_are_all_but_what_is_left_out_and_open_every_part():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    listed = [chapter for part in contents["parts"] for chapter in part["chapters"]]
    found = chapters(ROOT / "_toc.yml")
    assert {*LEFT_OUT} == {chapter["file"] for chapter in listed} - {name for _, name in found}
    assert {chapter["file"] for chapter in listed if "sections" in chapter} <= {*LEFT_OUT}
    assert [part for part, _ in found if part] == [part["caption"] for part in contents["parts"]]


def test_parts_stand_above_chapters_and_a_part_opens_with_the_first_page_that_is_kept(joined):
    found = [
        (heading.name, heading.text) for heading in joined(one="<h2>More</h2>").find_all(["h1", "h2", "h3"])
    ]
    said = [("h2", "Home"), ("h1", "First"), ("h2", "One"), ("h3", "More"), ("h1", "Last"), ("h2", "Two")]
    assert found == said


def test_links_lead_to_a_place_of_their_own_and_to_left_out_pages_are_text(joined):
    links = [
        *("one.xhtml", "one.xhtml#here", "ja/two.xhtml#here", "#here"),
        *("answers.xhtml#here", "api/x.xhtml", "https://a.b/c#d"),
    ]
    here = '<section id="here"><h2>Here</h2><p id="unwanted">x</p></section>'
    page = joined("".join(f'<a href="{link}">{link}</a> ' for link in links) + here, here, here)
    kept = {link.text: link["href"] for link in page.find_all("a")}
    assert list(kept) == [*links[:4], links[-1]] and kept[links[-1]] == links[-1]
    assert all(link in page.text for link in links)
    targets = {name: page.find(id=kept[name][1:]) for name in links[:4]}
    assert [targets[name].parent.text for name in links[:4]] == ["One", "Here", "Here", "Here"]
    assert len(page.find_all(id=True)) == len(set(kept.values())) - 1 == 4


@pytest.mark.parametrize("kind", ["details", "div", "figure", "form", "table"])
def test_the_anchor_of_a_box_stands_before_it(joined, kind):
    body = f'<a href="#x">x</a><{kind} class="panel" id="x"><summary>s</summary></{kind}>'
    anchor = joined(body).find(id="x0")
    assert anchor.name == "span" and anchor.find_next_sibling().name in (kind, "div")


def test_a_link_to_a_place_that_is_not_there_ends_it(joined):
    with pytest.raises(Failure, match="places that are not there: book/one#nowhere$"):
        joined('<a href="one.xhtml#nowhere">x</a>')


def test_pictures_are_named_from_the_top(joined):
    page = joined('<img src="../_images/a.png"/>', two='<img src="../../_images/b.png"/>')
    assert [picture["src"] for picture in page.find_all("img")] == ["_images/a.png", "_images/b.png"]


def test_a_panel_leaves_a_note_in_the_language_of_its_page(joined):
    page = joined(
        '<form class="panel"><input/></form><script>x</script><!-- y -->', two='<form class="panel"/>'
    )
    assert not page.select("form, input, script") and not {"x", "y"} & set(page.get_text(" ").split())
    first, second = (note.text for note in page.select("div.note"))
    assert first.startswith("The pages on the web") and second.startswith("ウェブのページ")


def test_solutions_follow_at_the_end_with_their_numbers_and_other_dropdowns_are_open(joined):
    def dropdown(title, text):
        return f"<details><summary><span>{title}</span></summary><div><p>{text}</p></div></details>"

    body = f"<p><strong>1.</strong> a</p>{dropdown('Solution', 'A')}<p><strong>2.</strong> b</p>"
    page = joined(one=body + dropdown("More", "m") + dropdown("Solution", "B"))
    words = page.get_text(" ").split()
    assert words[words.index("One") :] == "One 1. a 2. b More m Solutions 1. A 2. B Last Two".split()
    assert not page.find("details") and page.select_one("div.dropdown > p > strong").text == "More"


def test_code_is_plain_and_says_its_language(joined):
    coloured = "<span>a</span> <span>b</span>"
    block = '<div class="highlight-{}"><div><pre>{}\n</pre></div></div>'
    page = joined(block.format("ipython3 notranslate", coloured) + f"<p><code class=x>{coloured}</code></p>")
    assert str(page.pre) == '<pre class="python">a b</pre>' and str(page.code) == "<code>a b</code>"


def test_lines_break_within_long_names_only_and_never_within_formulas(joined):
    name = "a_name_of_twenty_two.c"
    body = f'<p>{name}</p><table><tr><td>{name}</td></tr></table><span class="math">{name * 3}</span>'
    page = joined(body + f"<p>{'x' * 50}</p>")
    assert page.p.text == name and page.span.text == name * 3
    assert page.td.text == name.replace("_", f"_{BREAK}").replace(".", f".{BREAK}")
    assert page.find_all("p")[1].text == "x" * 40 + BREAK + "x" * 10


def test_a_reference_has_its_label_in_its_paragraph(joined):
    page = joined('<div class="citation"><span class="label">[A]</span><p>Title.</p></div>')
    assert page.select_one("div.citation").text == "[A] Title."
