"""Blocks: texts beside each other, as HTML. All data that becomes HTML by our hand, here and in `results`, is
escaped by `escaped`."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def side_by_side(blocks: Iterable[tuple[object, object]]) -> str:
    """HTML of blocks, a title and a text each, in columns, the first over the whole width; see book.css.

    Whatever stands in a title or a text is shown as it is, markup included.
    """
    cells = (
        f"<div><strong>{escaped(title)}</strong><pre>{escaped(text)}</pre></div>" for title, text in blocks
    )
    return f'<div class="side-by-side">{"".join(cells)}</div>'


def escaped(value: object) -> str:
    """A value as text of a page."""
    return escape(str(value))
