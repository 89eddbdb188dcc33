"""Digests: sha256 of files, folders, values, weights, and of the code that a result follows from.

    code    module -> what it imports of this package, in turn -> syntax of each, without docstrings

Equal digests: the same result. So a change of prose, or of a module that nothing here imports, leaves every
result current, and a change of a loss makes what was trained with it out of date.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import negdistill
from negdistill.checks import json_number

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "negdistill"
INSIDE = "__init__.py"
SOURCE = Path(__file__).parents[2]  # the folder that holds the package
_SILENT = {"ctx", "kind", "type_comment", "type_params"}  # fields that only some versions of Python fill


def digest_text(text: str) -> str:
    """sha256 of the UTF-8 bytes, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: str | Path) -> str:
    """sha256 of a file's bytes, as `sha256sum` prints it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: object) -> str:
    """sha256 of a value of JSON's types, whatever the order of its keys; ValueError for other types."""
    try:
        return digest_text(json.dumps(value, sort_keys=True, ensure_ascii=False, default=json_number))
    except TypeError as error:
        raise ValueError(f"inputs and parameters must be of JSON's types to be recorded: {error}") from error


def digest_tree(folder: str | Path) -> dict[str, str]:
    """Digest of every file under a folder by its relative path; hidden files and bytecode do not count."""
    folder = Path(folder)
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    kept = (path for path in paths if not any(part[0] == "." or part == "__pycache__" for part in path.parts))
    return {path.as_posix(): digest_file(folder / path) for path in sorted(kept)}


def digest_weights(named: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 of names, types, shapes and all values of the tensors; a gigabyte takes about a second."""
    digest = hashlib.sha256()
    for name, tensor in named:
        digest.update(f"{name} {tensor.dtype} {[*tensor.shape]} ".encode())
        digest.update(memoryview(_bytes(tensor)))
    return digest.hexdigest()


def _bytes(tensor: Tensor):
    import torch  # here, so that whoever only reads manifests needs no torch

    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


# --- code ---------------------------------------------------------------------------------------------


def digest_code(*names: str, source: Path = SOURCE, package: str = PACKAGE) -> str:
    """sha256 of modules by their full names and of all modules of a package that they import in turn.

    source   the folder that holds the package. A name that is no module there counts for nothing
    package  what is followed; "": whatever lies in `source`
    """
    found: dict[str, str] = {}
    todo = list(names)
    while todo:
        name = todo.pop()
        place = source.joinpath(*name.split("."))
        files = (place / INSIDE, place.with_suffix(".py"))  # in the order in which Python looks
        path = next((one for one in files if one.is_file()), None)
        if name not in found and path is not None:
            within = name if path.name == INSIDE else name.rpartition(".")[0]
            found[name], more = _read(path, path.stat().st_mtime_ns, package, within)
            todo += more
    return digest_json(found)


def imported(tree: ast.AST, package: str = PACKAGE, within: str = "") -> set[str]:
    """Full names of the modules of a package that code may import, where only annotations do left out.

    within  the package that the code belongs to, which its relative imports begin from

    A public name such as `negdistill.fit` stands for the module that defines it.
    """
    found: set[str] = set()
    for node in _running(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = within.split(".")[: 1 - node.level or None] if node.level else []
            module = ".".join(filter(None, [*above, node.module]))
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    public = {f"{PACKAGE}.{name}": module for name, module in negdistill.PUBLIC.items()}
    found = {public.get(name, name) for name in found}
    inside = f"{package}." if package else ""
    return {name for name in found if name.startswith(inside) or name == package != PACKAGE}


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from _running(child)


@lru_cache(maxsize=256)
def _read(path: Path, changed: int, package: str, within: str) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's syntax, and what it imports; `changed` is the time of its last change."""
    try:
        tree = ast.parse(path.read_bytes())  # which may say that they are in another encoding than UTF-8
    except SyntaxError:
        return digest_file(path), ()
    return digest_json(_syntax(tree)), tuple(sorted(imported(tree, package, within)))


def _syntax(node: object) -> object:
    """The syntax as lists, without docstrings, the same in every version of Python."""
    if isinstance(node, list):
        return [_syntax(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
        fields["body"] = node.body[1:]
    kept = {name: value for name, value in fields.items() if value not in (None, []) and name not in _SILENT}
    return [type(node).__name__, *([name, _syntax(value)] for name, value in kept.items())]
