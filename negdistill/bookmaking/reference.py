"""Reference: a page for each module of the package, written from its source.

    method/losses.py  --ast-->  method.losses.md   docstrings, signatures, an anchor for each name

Nothing is imported, so the pages need neither torch nor the versions that the package runs on. A docstring
is plain text: paragraphs become paragraphs, and what is aligned or indented stays as it was typed. A name in
backticks becomes a link where the package has it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from textwrap import dedent

PACKAGE = "negdistill"
SHOWN = 90  # characters of the longest value of a constant that is shown
_CODE = re.compile(r"(`[^`\n]+`)")
_ALIGNED = re.compile(r"^\s|\S {2,}\S", re.MULTILINE)  # a line that is indented, or has columns
_MARKUP = re.compile(r"([\\*_{}\[\]<>#$|~^!])")


def modules(root: Path) -> dict[str, ast.Module]:
    """Syntax of every public module of the package below `root`, by name such as "method.losses"."""
    paths = sorted((root / PACKAGE).rglob("[!_]*.py"))
    names = (".".join(path.relative_to(root / PACKAGE).with_suffix("").parts) for path in paths)
    return {name: _parsed(path.read_text("utf-8")) for name, path in zip(names, paths, strict=True)}


@cache  # several pages are made of the same modules
def _parsed(text: str) -> ast.Module:
    tree = ast.parse(text)
    return _Qualified(tree).visit(tree)


class _Qualified(ast.NodeTransformer):
    """Writes names from other modules of the package in full: two modules may have one of a name."""

    def __init__(self, tree: ast.Module) -> None:
        self.origin = {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}.")
            for alias in node.names
        }

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.copy_location(ast.Name(self.origin.get(node.id, node.id), node.ctx), node)


def says(tree: ast.Module) -> str:
    """What a module's docstring says of it in one line, without the name that the line may begin with."""
    first = (ast.get_docstring(tree) or "").partition("\n")[0]
    return re.sub(r"^[A-Z]\w+: ", "", first).rstrip(".")


def public(tree: ast.Module) -> dict[str, ast.stmt]:
    """Functions, classes and constants that a module defines and gives away, by name in their order."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    given = ast.literal_eval(found["__all__"].value) if "__all__" in found else found
    return {name: node for name, node in found.items() if name in given and name[0] != "_"}


def names(trees: Mapping[str, ast.Module]) -> set[str]:
    """Full names of all that the package gives away, methods too, such as negdistill.stats.paired."""
    found = set()
    for module, tree in trees.items():
        for name, node in public(tree).items():
            found.add(full := f"{PACKAGE}.{module}.{name}")
            if isinstance(node, ast.ClassDef):
                found |= {f"{full}.{method.name}" for method in _methods(node)}
    return found


def pages(root: Path) -> dict[str, str]:
    """A page in MyST for each public module, by its name."""
    trees = modules(root)
    known = names(trees)
    return {module: _page(module, tree, known) for module, tree in trees.items()}


def _page(module: str, tree: ast.Module, known: set[str]) -> str:
    full = f"{PACKAGE}.{module}"
    parts = [
        "---\nogp_disable: true\n---",  # no card for each: drawing one takes longer than the page
        f"# {module}",
        f"```{{py:module}} {full}\n```",
        prose(ast.get_docstring(tree) or "", full, known),
        f"Source: {{source}}`{PACKAGE}/{module.replace('.', '/')}.py`",
    ]
    parts += [_entry(name, node, full, known) for name, node in public(tree).items()]
    return "\n\n".join(parts) + "\n"


# --- text ---------------------------------------------------------------------------------------------


def prose(text: str, module: str, known: set[str]) -> str:
    """A docstring in MyST. `module` is the full name of where it stands, `known` what may be linked to."""
    blocks = [block.strip("\n") for block in re.split(r"\n[ \t]*\n", text.strip("\n"))]
    parts: list[str] = []
    for block in blocks:
        if not _ALIGNED.search(block):
            parts.append(_paragraph(block, module, known))
        elif parts and parts[-1].endswith("\n```"):  # one listing, though an empty line is in it
            parts[-1] = f"{parts[-1][:-4]}\n\n{dedent(block)}\n```"
        else:
            parts.append(f"```text\n{dedent(block)}\n```")
    return "\n\n".join(parts)


def _paragraph(text: str, module: str, known: set[str]) -> str:
    pieces = _CODE.split(" ".join(line.strip() for line in text.splitlines()))
    return "".join(
        _code(piece[1:-1], module, known) if place % 2 else _MARKUP.sub(r"\\\1", piece)
        for place, piece in enumerate(pieces)
    )


def _code(text: str, module: str, known: set[str]) -> str:
    here, anywhere = {f"{module}.{text}"} & known, {name for name in known if name.endswith(f".{text}")}
    found = here or (anywhere if "." in text else set())  # losses.mean_pool: any room
    return f"{{py:obj}}`{text} <{min(found)}>`" if found else f"`{text}`"


# --- names --------------------------------------------------------------------------------------------


def _entry(name: str, node: ast.stmt, module: str, known: set[str]) -> str:
    """A function, class or constant as a directive of Sphinx's Python domain."""
    if isinstance(node, ast.FunctionDef):
        return _directive("function", name + _signature(node), prose(_doc(node), module, known))
    if isinstance(node, ast.ClassDef):
        parts = [prose(_doc(node), module, known)]
        parts += [_method(method, module, known) for method in _methods(node)]
        return _directive("class", name + _constructor(node), "\n\n".join(filter(None, parts)), 4)
    value = " ".join(ast.unparse(node.value).split())
    return _directive("data", name, options=[f"value: {value}"] if len(value) <= SHOWN else [])


def _directive(kind: str, head: str, body: str = "", depth: int = 3, options: list[str] | None = None) -> str:
    fence = "`" * (depth + 1)
    lines = [f"{fence}{{py:{kind}}} {head}", *(f":{option}" for option in options or ()), "", body, fence]
    return "\n".join(lines)


def _method(node: ast.FunctionDef, module: str, known: set[str]) -> str:
    marks = _decorators(node)
    body = prose(_doc(node), module, known)
    if marks & {"property", "cached_property"}:
        options = [f"type: {ast.unparse(node.returns)}"] if node.returns else []
        return _directive("property", node.name, body, options=options)
    options = [f"{mark}:" for mark in ("classmethod", "staticmethod") if mark in marks]
    return _directive("method", node.name + _signature(node, bound=True), body, options=options)


def _methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    return [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name[0] != "_"]


def _doc(node: ast.FunctionDef | ast.ClassDef) -> str:
    return ast.get_docstring(node) or ""


def _decorators(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    named = (item.func if isinstance(item, ast.Call) else item for item in node.decorator_list)
    return {ast.unparse(item).rpartition(".")[2] for item in named}


def _signature(node: ast.FunctionDef, bound: bool = False) -> str:
    """(arguments) -> result; without self or cls where that is bound."""
    arguments = deepcopy(node.args)
    if bound and "staticmethod" not in _decorators(node):
        (arguments.posonlyargs or arguments.args).pop(0)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    return f"({ast.unparse(arguments)}){returns}"


def _constructor(node: ast.ClassDef) -> str:
    """The arguments that make an object; "" for a class that is not made from outside."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _signature(item, bound=True)
    made = "dataclass" in _decorators(node) or "NamedTuple" in map(ast.unparse, node.bases)
    fields = list(_fields(node)) if made else []
    return "" if not fields or any(text[0] == "_" for text in fields) else f"({', '.join(fields)})"


def _fields(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            yield ast.unparse(item)
