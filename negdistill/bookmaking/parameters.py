"""Every parameter of every notebook as tables of a page: what it means, and its value at each scale.

parameters cells, `name: type = value  # unit or meaning`, and profiles  -->  a folded table per chapter
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from negdistill.bookmaking.documents import read_notebook
from negdistill.bookmaking.planning import known_parameters, notebooks, plan, profiles
from negdistill.bookmaking.provenance import Execution, code, table
from negdistill.bookmaking.results import in_markdown

MEANING = re.compile(r"(\w+).*  [#] (.+)")
SCALES = ("quick", "book")  # beside the notebooks' own defaults


def meanings(path: Path) -> dict[str, str]:
    """What the lines of a notebook's parameters cell say behind their values, by name."""
    cells = (cell for cell in read_notebook(path).cells if "parameters" in cell.metadata.get("tags", []))
    lines = (line for cell in cells for line in cell.source.splitlines())
    return dict(found.groups() for found in map(MEANING.fullmatch, lines) if found)


def listing(root: Path, runs: Sequence[Execution]) -> str:
    """A folded table for each chapter, in MyST."""
    scales = [name for name in SCALES if name in profiles(root)]
    given = {name: {job.name: job.given for job in plan(root, name)} for name in scales}
    titles = {run.name: run.title for run in runs}
    sections = []
    for path in notebooks(root / "notebooks"):
        said = meanings(path)
        rows = [
            [
                code(name),
                in_markdown(said.get(name, "")),
                in_cell(default),
                *(in_cell(of[path.stem][name]) if name in of[path.stem] else "" for of in given.values()),
            ]
            for name, default in known_parameters(path).items()
        ]
        head = f"{path.stem[:2]}: {titles.get(path.name, path.stem)}"
        listed = table(["parameter", "unit or meaning", "smoke", *scales], rows)
        sections.append(f"````{{dropdown}} {head}\n{listed}\n````")
    return "\n\n".join(sections)


def in_cell(value: object) -> str:
    """A value as a cell of a table: a text and a dict as code, a list without brackets, a word for none."""
    if isinstance(value, list):
        comma = "; " if any("," in str(item) for item in value) else ", "
        return comma.join(map(in_markdown, value)) or "none"
    return str(value) if not isinstance(value, str | dict) else code(value) if value else "empty"
