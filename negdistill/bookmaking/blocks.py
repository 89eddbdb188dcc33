"""Blocks: texts beside each other, as HTML. All data that becomes HTML by our hand, here and in `results`, is
escaped by `_text`."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def side_by_side(blocks: Iterable[tuple[object, object]]) -> str:
    """HTML of blocks, a title and a text each, in columns, the first over the whole width; see book.css.

    Whatever stands in a title or a text is shown as it is, markup included.
    """
    cells = (f"<div><strong>{_text(title)}</strong><pre>{_text(text)}</pre></div>" for title, text in blocks)
    return f'<div class="side-by-side">{"".join(cells)}</div>'


def _text(value: object) -> str:
    return escape(str(value))
