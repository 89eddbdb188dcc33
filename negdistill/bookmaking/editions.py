"""Editions: the languages in which the page of the claims is written, each with the same numbers.

book/claims.md            English
book/<folder>/claims.md   another language, with the same cards in the words of book/<folder>/words.yml
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from negdistill.bookmaking.documents import read_yaml


@dataclass(frozen=True, slots=True)
class Edition:
    """A language: the folder of its pages below book/, and each text of a card by the English one.

    words  None for English
    """

    folder: str = ""
    words: Mapping[str, str] | None = None

    def say(self, english: str) -> str:
        """A text in this language; ValueError where its words lack it."""
        if self.words is None:
            return english
        if english not in self.words:
            raise ValueError(
                f"book/{self.folder}/words.yml must hold every text of a card; it lacks {english!r}: add a "
                "line with its translation"
            )
        return self.words[english]


ENGLISH = Edition()


def editions(book: Path) -> list[Edition]:
    """English, and every language whose folder in `book` has its words."""
    others = (Edition(path.parent.name, read_yaml(path)) for path in sorted(book.glob("*/words.yml")))
    return [ENGLISH, *others]
