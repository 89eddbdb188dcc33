"""The Japanese pages: what does not depend on the language is the same in them as in the English ones.

Numbers that are spelled out in English are digits in Japanese. The cards of the claims are left out: both are
written from the same rows, which tests/test_book.py holds.
"""

import re
from collections import Counter
from itertools import zip_longest
from pathlib import Path
from unicodedata import category

import pytest
from markup import Tags

from negdistill.bookmaking.claims_plan import read_plan
from negdistill.bookmaking.editions import editions
from negdistill.bookmaking.evidence import TABLE

ROOT = Path(__file__).parents[1]
PAIRS = {"README.md": "README.ja.md"} | {
    f"book/{name}.md": f"book/ja/{name}.md" for name in ("index", "method", "claims")
}
PARTNERS = {japanese: english for english, japanese in PAIRS.items()}
WORDS = "zero - two three four five six seven eight nine ten eleven twelve".split()
SPELLED = {word: str(number) for number, word in enumerate(WORDS)} | {
    "sixteen": "16", "seventy": "70", "fifths": "5"
}  # fmt: skip
FENCE = re.compile(r"^(`{3,})(.*)\n((?:.*\n)*?)\1$", re.MULTILINE)
BLOCK = re.compile(r"^\$\$\n((?:.*\n)*?)\$\$(?: \(.*\))?$", re.MULTILINE)
INLINE, CODE = re.compile(r"\$([^$\n]+)\$"), re.compile(r"`([^`\n]+)`")
ROLE = re.compile(r"\{([\w:]+)\}`([^`]+)`")
LINK = re.compile(r"(!?)\[[^\]]*\]\(([^)\s]+)\)")
FIGURE = re.compile(r"^:::\{figure\} (\S+)$", re.MULTILINE)
HEAD = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)  # what the page says of itself to others


def place(page, target):
    """Where a link of a page leads, a Japanese page being its English one; None for the partner itself."""
    path, _, anchor = target.partition("#")
    if "://" in path:
        return target
    there = ((ROOT / page).parent / path).resolve().relative_to(ROOT).as_posix() if path else page
    if path and there in (PAIRS.get(page), PARTNERS.get(page)):
        return None
    return f"{PARTNERS.get(there, there)}#{anchor.replace('-ja-', '-')}"


def code_of(body):
    """Lines of a listing without what stands behind two spaces: comments, and descriptions of files."""
    return [line.strip().partition("  ")[0] for line in body.splitlines()]


def tags_of(body):
    """Tags and attributes of a piece of HTML, and the numbers in its texts, without what is said in words."""
    found, said = Tags(body), ("aria-label", "data-words")
    tags = [
        (tag, {name: value.replace("../", "") for name, value in of.items() if name not in said and value})
        for tag, of in found.tags
    ]
    return tags, numbers_of(" ".join(found.texts))


def numbers_of(text):
    """How often each number stands in a text."""
    text = re.sub(r"\b[A-Za-z]+\b", lambda word: SPELLED.get(word[0].lower(), word[0]), text)
    return Counter(re.findall(r"\d+(?:[.,]\d+)*", text))


def parts(page, text):
    """What a page has of everything that does not depend on its language."""
    text = TABLE.sub("", HEAD.sub("", text))
    fences = FENCE.findall(text)
    listed = [code_of(body) for _, kind, body in fences if not kind.startswith("{")]
    pieces = [tags_of(body) for _, kind, body in fences if kind == "{raw} html"]
    text = FENCE.sub(lambda fence: fence[3] if fence[2].startswith("{dropdown}") else "", text)
    figures = [place(page, name) for name in FIGURE.findall(text)]
    links = [(kind, found) for kind, target in LINK.findall(text) if (found := place(page, target))]
    blocks, roles = BLOCK.findall(text), ROLE.findall(text)
    text = LINK.sub(lambda link: link[0].rpartition("](")[0], ROLE.sub("", BLOCK.sub("", text)))
    formulas = Counter(INLINE.findall(text))
    text = INLINE.sub("", text)
    codes = Counter(CODE.findall(text))
    return {
        "levels of headings": [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)],
        "directives": re.findall(r"^:{3,}\{([\w-]+)\}", text, re.MULTILINE),
        "listings": listed,
        "HTML": pieces,
        "equations": blocks,
        "formulas in the text": formulas,
        "code in the text": codes,
        "figures": figures,
        "links": Counter(links),
        "roles": Counter((kind, name.replace("-ja-", "-")) for kind, name in roles),
        "rows of tables and items of lists": re.findall(r"^(\| |- |\d\. )", text, re.MULTILINE),
        "numbers": numbers_of(re.sub(r"^:name: .*$", "", CODE.sub("", text), flags=re.MULTILINE)),
    }


def differences(english, texts):
    """What two pages do not have in common, in words."""
    japanese, found = PAIRS[english], []
    one, other = (parts(page, text) for page, text in zip((english, japanese), texts, strict=True))
    for what in one:
        if one[what] == other[what]:
            continue
        if isinstance(one[what], Counter):
            more, less = one[what] - other[what], other[what] - one[what]
            said = f"only in English {dict(more)}, only in Japanese {dict(less)}"
        else:
            places = enumerate(zip_longest(one[what], other[what]))
            at, (here, there) = next(pair for pair in places if pair[1][0] != pair[1][1])
            said = f"place {at}: {here} in English, {there} in Japanese"
        found.append(f"{japanese} and {english} differ in {what}: {said}")
    return found


def texts_of(english):
    return tuple((ROOT / page).read_text("utf-8") for page in (english, PAIRS[english]))


@pytest.mark.parametrize("english", PAIRS)
def test_a_japanese_page_says_what_the_english_one_says(english):
    found = differences(english, texts_of(english))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("english", PAIRS)
def test_the_two_pages_lead_to_each_other(english):
    for page, other in ((english, PAIRS[english]), (PAIRS[english], english)):
        targets = [target for _, target in LINK.findall((ROOT / page).read_text("utf-8"))]
        leads = any((ROOT / page).parent.joinpath(target).resolve() == ROOT / other for target in targets)
        assert leads, f"{page} has no link to {other}"


def test_every_japanese_page_is_compared():
    assert sorted(PARTNERS) == sorted(
        path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.ja.md"), *ROOT.glob("book/ja/*.md"))
    )


@pytest.mark.parametrize(
    ("english", "old", "new", "says"),
    [
        (
            "book/method.md",
            "6.81",
            "6.18",
            "numbers: only in English {'6.81': 1}, only in Japanese {'6.18': 1}",
        ),
        ("book/method.md", r"\tfrac12 \bigl(", r"\tfrac13 \bigl(", "equations: place 4"),
        ("book/method.md", "$x = (0, 0)$", "$x = (0, 1)$", "formulas in the text"),
        ("book/method.md", 'value="1.2"', 'value="1.3"', "HTML"),
        ("book/method.md", "`faithful`", "`fixed`", "code in the text"),
        ("book/index.md", "headline.png\n:name", "conditions.png\n:name", "figures: place 0"),
        ("book/index.md", "(../scale.md)", "(../export.md)", "links"),
        ("book/index.md", "\n## 2 ", "\n### 2 ", "levels of headings"),
        ("book/claims.md", "700", "300", "numbers"),
        ("book/claims.md", "#claim-ja-7", "#claim-ja-8", "links"),
        ("README.md", "epochs=4", "epochs=5", "listings"),
    ],
)
def test_a_page_that_says_something_else_is_noticed(english, old, new, says):
    one, other = texts_of(english)
    assert old in other
    found = differences(english, (one, other.replace(old, new, 1)))
    assert len(found) == 1 and f"{PAIRS[english]} and {english} differ in {says}" in found[0]


def test_every_mark_of_emphasis_is_one():
    """Punctuation just inside a mark needs a space or punctuation outside, or the mark is shown."""

    def punctuation(one):
        return category(one).startswith("P")

    for page in (*PAIRS.values(), "book/ja/words.yml"):
        text = FENCE.sub("", (ROOT / page).read_text("utf-8"))
        for before, strong, after in re.findall(r"(.?)\*\*(.+?)\*\*(.?)", text):
            for inside, outside in ((strong[0], before), (strong[-1], after)):
                apart = not outside.strip() or punctuation(outside)
                assert apart or not punctuation(inside), f"{page}: {before}**{strong}**{after}"


# --- the cards ----------------------------------------------------------------------------------------

(_, JAPANESE) = editions(ROOT / "book")


def test_every_text_of_the_words_is_one_that_a_card_may_have():
    folder, plan = ROOT / "negdistill", read_plan(ROOT / "book/plan.yml")
    known = {text for claim in plan.claims for text in (claim.says, claim.published)}
    names = ("bookmaking/claims_page.py", "bookmaking/claims.py", "stats.py")
    source = "\n".join((folder / name).read_text("utf-8") for name in names)
    for english, japanese in JAPANESE.words.items():
        assert english in known or f'"{english}"' in source, f"book/ja/words.yml: {english} is said nowhere"
        holes = [re.findall(r"\{.*?\}", text) for text in (english, japanese)]
        assert sorted(holes[0]) == sorted(holes[1]), english
