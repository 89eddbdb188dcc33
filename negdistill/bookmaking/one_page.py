"""One page: what Sphinx wrote as many becomes one, made for paper.

    book/*.xhtml, in the order of _toc.yml  -->  one text of HTML: parts are h1, chapters h2

Nothing on paper opens or moves. So dropdowns stand open, solutions stand at the end of their chapter, panels
leave a note, and links lead to another place of the same page or, where theirs is left out, are plain text.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

from bs4 import BeautifulSoup, Comment, Tag

from negdistill.bookmaking.documents import read_yaml
from negdistill.bookmaking.planning import Failure

LEFT_OUT = ("book/api", "book/answers")  # to look things up in: half as long as all the rest
HEADING = re.compile(r"^h[1-6]$")
SCREEN = "script, style, noscript, span.sd-summary-state-marker, span.backrefs"  # what only a screen has
NOTES = {
    "en": "The pages on the web have a panel here, to try this out.",
    "ja": "ウェブのページには、ここに動かせるパネルがあります。",
}
LANGUAGES = {"ipython3": "python", "myst-ansi": "output", "default": "", "none": "", "text": ""}
UNBROKEN = {"pre": 85, "td": 18, "th": 18}  # characters in a row that a line there has room for
UNBROKEN_ELSEWHERE = 40
BREAK = "\N{ZERO WIDTH SPACE}"


def chapters(toc: Path) -> list[tuple[str, str]]:
    """Documents in the order of a table of contents, each with the part that it opens, "" where none.

    Sections of a chapter are not followed: only the API reference has some, which is left out.
    """
    contents = read_yaml(toc)
    found = [("", contents["root"])]
    for part in contents["parts"]:
        caption = part["caption"]
        for name in (chapter["file"] for chapter in part["chapters"]):
            if name not in LEFT_OUT:
                found.append((caption, name))
                caption = ""
    return found


def one_page(pages: Path, toc: Path) -> str:
    """All chapters as one text of HTML; pictures are named as they lie below `pages`.

    Failure where a link leads to a place that its page does not have.
    """
    order = chapters(toc)
    bodies = {name: _body(pages / f"{name}.xhtml") for _, name in order}
    labels = _lead_within(bodies)
    made = []
    for part, name in order:
        body = bodies[name]
        _place_anchors(name, body, labels)
        _for_paper(body)
        for picture in body.find_all("img"):
            picture["src"] = _resolve(name, picture["src"])
        if part:
            made.append(_element("h1", part).decode())
        made.append(body.decode())
    if labels:
        lost = ", ".join(f"{name}#{place}" for name, place in labels)
        raise Failure(f"links of the pages lead to places that are not there: {lost}")
    return "\n".join(made)


def _body(page: Path) -> Tag:
    found = BeautifulSoup(page.read_text("utf-8"), "html.parser").find("div", class_="body")
    found.attrs = {"lang": "ja" if page.parent.name == "ja" else "en"}
    return found


def _element(name: str, text: str = "", **attributes: str) -> Tag:
    made = Tag(name=name, attrs=attributes)
    made.string = text
    return made


def _resolve(name: str, address: str) -> str:
    """A relative address on a page as one from the top."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), address))


# --- links --------------------------------------------------------------------------------------------


def _lead_within(bodies: Mapping[str, Tag]) -> dict[tuple[str, str], str]:
    """Let links lead to labels, and return the label of each page and place, "" for its top.

    A link to a page that is not among them is unwrapped: its text stays.
    """
    labels: dict[tuple[str, str], str] = {}
    for name, body in bodies.items():
        for link in body.find_all("a", href=True):
            if re.match(r"[a-z]+:", link["href"]):  # to the web
                continue
            path, _, place = link["href"].partition("#")
            page = _resolve(name, path).removesuffix(".xhtml") if path else name
            if page in bodies:
                link["href"] = "#" + labels.setdefault((page, place), f"x{len(labels)}")
            else:
                link.unwrap()
    return labels


def _place_anchors(name: str, body: Tag, labels: dict[tuple[str, str], str]) -> None:
    """Put an anchor at each place of a page that has a label, and take that label out of `labels`."""
    for element in body.find_all(id=True):
        label = labels.pop((name, element["id"]), None)
        del element["id"]
        if label:
            _anchor(element, label)
    if label := labels.pop((name, ""), None):
        _anchor(body.find(HEADING), label)


def _anchor(element: Tag, label: str) -> None:
    made = _element("span", id=label)
    if element.name == "section":  # goes by its heading
        element = element.find(HEADING)
    if element.name in ("details", "div", "figure", "form", "table"):
        element.insert_before(made)
    else:
        element.insert(0, made)


# --- for paper ----------------------------------------------------------------------------------------


def _for_paper(body: Tag) -> None:
    """Take from a page what only a screen has, and bring the rest into the elements that pandoc knows."""
    for hidden in [*body.select(SCREEN), *body.find_all(string=lambda text: isinstance(text, Comment))]:
        hidden.extract()
    for panel in body.select("form.panel"):
        note = _element("div", **{"class": "note"})
        note.append(_element("p", NOTES[body["lang"]]))
        panel.replace_with(note)
    for heading in body.find_all(HEADING):  # h1 is for parts
        heading.name = f"h{int(heading.name[1]) + 1}"
    for shape in (
        _move_solutions,
        _open_dropdowns,
        _bold_titles,
        _plain_code,
        _labelled_citations,
        _breakable,
    ):
        shape(body)
    for cell in body.select("table.dataframe td"):
        cell["style"] = "text-align: right"


def _move_solutions(body: Tag) -> None:
    """Dropdowns called Solution move to the end of the page, each behind the number of its exercise."""
    dropdowns = [one for one in body.find_all("details") if one.summary.get_text(strip=True) == "Solution"]
    if dropdowns:
        body.append(_element("h3", "Solutions"))
    for dropdown in dropdowns:
        number = dropdown.find_previous("strong", string=re.compile(r"^\d+\.$"))
        dropdown.summary.decompose()
        if number:
            (dropdown.p or dropdown).insert(0, _element("strong", number.get_text()), " ")
        body.append(dropdown.extract())
        dropdown.unwrap()


def _open_dropdowns(body: Tag) -> None:
    for dropdown in body.find_all("details"):
        dropdown.summary["class"], dropdown.summary.name = "title", "p"
        dropdown.name, dropdown["class"] = "div", "dropdown"


def _bold_titles(body: Tag) -> None:
    """Titles of boxes, which pandoc would take for any other text, become bold."""
    for title in body.select("p.admonition-title, div.sd-card-title, p.title"):
        inner = _element("strong")
        inner.extend(list(title.contents))
        title.name, title.attrs = "p", {}
        title.append(inner)


def _plain_code(body: Tag) -> None:
    """Code loses the colours of Sphinx; a block says in which language it is."""
    for block in body.select("div[class*=highlight-]"):
        language = re.search(r"highlight-(\S+)", " ".join(block["class"]))[1]
        code = _element("pre", block.get_text().rstrip("\n"), **{"class": LANGUAGES.get(language, language)})
        block.replace_with(code)
    for code in body.find_all("code"):
        code.attrs, code.string = {}, code.get_text()


def _labelled_citations(body: Tag) -> None:
    """The label of a reference moves into its paragraph."""
    for citation in body.select("div.citation"):
        citation.p.insert(0, citation.find("span", class_="label").extract(), " ")


def _breakable(body: Tag) -> None:
    """Lines may break within names and numbers that are longer than a line has room for."""
    for text in body.find_all(string=re.compile(rf"\S{{{min(UNBROKEN.values())}}}")):
        if not text.find_parent(class_="math"):
            around = text.find_parent(list(UNBROKEN))
            limit = UNBROKEN[around.name] if around else UNBROKEN_ELSEWHERE
            text.replace_with(re.sub(rf"\S{{{limit},}}", _with_breaks, text))


def _with_breaks(word: re.Match[str]) -> str:
    """A word that may be broken behind each of its marks, and after 40 letters without any."""
    return re.sub(r"([^\w\s]|_)(?=\w)|[^\W_]{40}", rf"\g<0>{BREAK}", word[0])
