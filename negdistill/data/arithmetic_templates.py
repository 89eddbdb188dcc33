"""Templates of the embedded benchmark: how its stories open, which sentences stand for which operation.

A template is a sentence with four signs: # a number, ~ a noun, @ the one whose count is followed, & somebody
else (in `comparison` the box just told about and the next one). The same string serves to write a sentence
and, after the signs are put back in, to look up which operation it stands for, so a question can be read
again without any hidden annotation.
"""

from __future__ import annotations

from dataclasses import dataclass

SUBJECTS = ("totals", "change", "groups", "sharing", "comparison", "money", "time")


NAMES = ("Ann", "Ben", "Eva", "Tom")


NOUNS = ("apples", "books", "cards", "coins", "pens", "shells")


OTHER_NAMES = ("Ida", "Leo", "Max", "Zoe")


OTHER_NOUNS = ("bricks", "kites", "melons", "plums", "ropes", "tulips")


@dataclass(frozen=True)
class Subject:
    """A skill: how its stories open, which sentences stand for which operation, what is asked."""

    opening: str
    question: str
    sentences: dict[str, tuple[str, ...]]
    weights: dict[str, int]  # how often each operation is drawn


_MIXED = {"+": 3, "-": 3, "*": 2, "/": 2}


_WEIGHTS = {
    "totals": {"+": 4, "-": 1},
    "change": {"+": 1, "-": 1},
    "groups": {"*": 3, "+": 1, "-": 1},
    "sharing": {"/": 3, "+": 1, "-": 1},
    "comparison": _MIXED,
    "money": _MIXED,
    "time": _MIXED,
}


_TRAIN = {
    "totals": """@ has # ~. | How many ~ are there now?
        + @ finds # more. | & brings # more.
        - @ takes # away.""",
    "change": """@ has # ~. | How many ~ does @ have now?
        + @ wins #. | & gives @ #.
        - @ loses #. | @ gives & #.""",
    "groups": """A bag holds # ~. | How many ~ are there in all?
        * @ fills # such bags. | There are # such bags.
        + @ adds # more.
        - @ takes # out.""",
    "sharing": """There are # ~. | How many ~ are left?
        / @ makes # equal parts and keeps one. | Only one of # equal parts is left.
        + @ puts # back.
        - @ drops #.""",
    "comparison": """Box @ holds # ~. | How many ~ does box @ hold?
        + Box & holds # more than box @.
        - Box & holds # fewer than box @.
        * Box & holds # times as many as box @.
        / Box @ holds # times as many as box &.""",
    "money": """@ has # dollars. | How many dollars does @ have now?
        + @ earns # dollars. | & pays @ # dollars.
        - @ spends # dollars. | @ pays & # dollars.
        * The money grows to # times as much.
        / @ keeps one of # equal parts.""",
    "time": """@ walks # minutes. | How many minutes does it take?
        + A stop adds # minutes.
        - A short way saves # minutes.
        * @ does it # times.
        / A bike is # times as fast.""",
}


_REWORDED = {
    "totals": """@ counts # ~. | What is the total number of ~?
        + @ collects another #. | & joins with # further ~.
        - @ removes # of them.""",
    "change": """@ owns # ~. | What number of ~ is with @ in the end?
        + @ receives #. | & hands @ #.
        - @ sells #. | @ hands & #.""",
    "groups": """In a crate are # ~. | What is the number of ~ altogether?
        * @ stacks up # crates of this kind. | # crates of this kind arrive.
        + @ includes # extra.
        - @ picks out #.""",
    "sharing": """@ bakes # ~. | What number of ~ remains?
        / @ divides them by # and holds on to a single pile. | A single pile out of # equal piles remains.
        + @ returns #.
        - @ throws away #.""",
    "comparison": """Jar @ contains # ~. | What number of ~ is in jar @?
        + In jar & are # ~ above jar @.
        - In jar & are # ~ below jar @.
        * Jar & contains jar @ multiplied by #.
        / Jar & contains jar @ divided by #.""",
    "money": """@ owns # euros. | What amount of euros is with @ in the end?
        + @ receives # euros. | & hands @ # euros.
        - A bill of # euros comes. | @ hands & # euros.
        * The amount is multiplied by #.
        / The amount is divided by #.""",
    "time": """A task lasts # hours. | What number of hours is it in the end?
        + A break of # hours comes in between.
        - A tool cuts # hours off.
        * The task is repeated, # rounds in total.
        / The work is divided by # people.""",
}


DISTRACTORS = (
    "Mia has # ~.",
    "The shop is # miles away.",
    "The bus has the number #.",
    "The room is # feet wide.",
)


def _world(tables: dict[str, str]) -> dict[str, Subject]:
    subjects = {}
    for name, table in tables.items():
        head, *rows = table.splitlines()
        opening, question = head.split(" | ")
        rows = [row.strip() for row in rows]
        sentences = {row[0]: tuple(row[2:].split(" | ")) for row in rows}
        subjects[name] = Subject(opening, question, sentences, _WEIGHTS[name])
    return subjects


WORLD = _world(_TRAIN)


REWORDED_WORLD = _world(_REWORDED)
