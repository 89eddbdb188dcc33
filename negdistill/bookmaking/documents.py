"""Documents: notebooks, their code, and YAML, read so that an error names the file; tables by key."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from negdistill.runs.files import atomic_path


def read_notebook(path: Path) -> NotebookNode:
    """A notebook in the current format; ValueError where the file is none."""
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, KeyError, AttributeError) as error:  # what nbformat says of other files
        raise ValueError(f"{path} is no notebook, or a part of one: {_line(error)}") from error


def write_notebook(path: Path, notebook: NotebookNode) -> None:
    """Write a notebook all at once, if that changes anything; what is there and is none gives way."""
    with suppress(FileNotFoundError, ValueError):
        if read_notebook(path) == notebook:
            return
    with atomic_path(path) as temporary:
        nbformat.write(notebook, temporary)


def python(source: str, path: Path) -> ast.Module:
    """The code of a notebook's cells, where magics are calls; ValueError with the line that is no Python."""
    try:
        return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError as error:
        where = (error.text or "").strip()
        raise ValueError(f"{path} has a line that is no Python: {where!r}: {error.msg}") from error


class _Loader(yaml.SafeLoader):
    """YAML in which a name that stands twice is an error: the first of the two would count for nothing."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node, seen = super().compose_mapping_node(anchor), set()
        for name, _ in node.value:
            place = name.tag, str(name.value)
            if place in seen and name.tag != "tag:yaml.org,2002:merge":
                says = f"{name.value!r} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, says, name.start_mark)
            seen.add(place)
        return node


def read_yaml(path: Path) -> Any:
    """What a file of YAML holds; ValueError with line and column where it is none, or has a name twice."""
    try:
        return yaml.load(path.read_text("utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {_line(error)}") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a table in CSV; none where there is no file."""
    return pd.read_csv(path).to_dict("records") if path.is_file() else []


def put_rows(path: Path, rows: Sequence[Mapping[str, object]], key: Sequence[str]) -> None:
    """Write rows into a table in CSV, each in the place of the one with the same key; sorted by that."""
    found = {tuple(row[name] for name in key): row for row in [*read_rows(path), *rows]}
    with atomic_path(path) as temporary:
        pd.DataFrame([found[place] for place in sorted(found)]).to_csv(temporary, index=False)


def _line(error: Exception) -> str:
    """What an error says, in a line that is not too long."""
    return " ".join(str(error).split())[:300]
