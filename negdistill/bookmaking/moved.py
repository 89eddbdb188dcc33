"""Moved: addresses of pages that were renamed, each with a page that leads on to the new one.

MOVED  --lead_on, after every render-->  html/OLD      so that links and bookmarks go on working

No page that somebody wrote has moved yet; one that does gets a line here. Those of the API are named
after modules and go with them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from negdistill.runs.files import atomic_write_text

MOVED: Mapping[str, str] = MappingProxyType({})  # "book/old.html": "book/new.html"
PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>This page has moved</title>'
    '<link rel="canonical" href="{to}"><meta http-equiv="refresh" content="0; url={to}"></head>'
    '<body><p>This page has moved: <a href="{to}">{to}</a></p></body></html>\n'
)


def lead_on(html: Path, moved: Mapping[str, str] = MOVED) -> None:
    """Write a page at every old address. ValueError where a page stands there, or none at the new one."""
    for old, new in moved.items():
        if (html / old).exists() or not (html / new).is_file():
            raise ValueError(
                f"moved must lead from an address without a page to a page; got {old!r}: {new!r}"
            )
        to = os.path.relpath(new, Path(old).parent).replace(os.sep, "/")
        atomic_write_text(html / old, PAGE.format(to=to))
