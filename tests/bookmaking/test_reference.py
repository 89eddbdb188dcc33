"""Reference: pages written from sources made by hand, and what they say of the package itself."""

import ast
import importlib
import inspect

import pytest

from negdistill.bookmaking.reference import PACKAGE, modules, names, pages, prose, public, says

ONE = '''"""One: the first module.

It has `add` and `two.Thing`, and <pad> * _x_.

    a    b
         c

    d    e
"""

from negdistill.two import Thing

LIMIT = 3
LONG = "0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 0123456789"
_hidden = 1


def add(a: int, *, b: Thing = LIMIT) -> Thing:
    """Sum of `a` and b.

    a  a number
    """


def _private(): ...
'''
TWO = '''"""Two."""

from dataclasses import dataclass

__all__ = ["Thing", "Secret", "Plain"]


@dataclass(frozen=True)
class Thing:
    """A thing."""

    size: int
    name: str = "x"

    @property
    def area(self) -> int:
        """In cells."""

    @classmethod
    def of(cls, text: str) -> "Thing": ...

    @staticmethod
    def zero(n): ...

    def _own(self): ...


@dataclass
class Secret:
    _inner: int


class Plain:
    def __init__(self, x: int) -> None: ...


def not_given(): ...
'''


@pytest.fixture
def root(tmp_path):
    (tmp_path / PACKAGE).mkdir()
    for name, text in {"one": ONE, "two": TWO, "_worker": ONE, "__init__": ""}.items():
        (tmp_path / PACKAGE / f"{name}.py").write_text(text)
    return tmp_path


def test_public_names_only(root):
    trees = modules(root)
    assert list(trees) == ["one", "two"]
    assert list(public(trees["one"])) == ["LIMIT", "LONG", "add"]
    assert list(public(trees["two"])) == ["Thing", "Secret", "Plain"]
    assert names(trees) == {
        *(f"negdistill.one.{name}" for name in ("LIMIT", "LONG", "add")),
        *(f"negdistill.two.{name}" for name in ("Thing", "Thing.area", "Thing.of", "Thing.zero")),
        *("negdistill.two.Secret", "negdistill.two.Plain"),
    }


def test_a_page_has_everything(root):
    page = pages(root)["one"]
    assert "# one\n\n```{py:module} negdistill.one\n```\n\nOne: the first module.\n" in page
    assert "It has {py:obj}`add <negdistill.one.add>` and {py:obj}`two.Thing <negdistill.two.Thing>`" in page
    assert r"and \<pad\> \* \_x\_." in page
    assert "```text\na    b\n     c\n\nd    e\n```" in page, "one listing, not indented"
    assert "{py:data} LIMIT\n:value: 3\n" in page and "{py:data} LONG\n\n" in page
    assert (
        "{py:function} add(a: int, *, b: negdistill.two.Thing=LIMIT) -> negdistill.two.Thing\n\n"
        "Sum of `a` and b.\n\n```text\na  a number\n```\n````" in page
    )
    assert "{source}`negdistill/one.py`" in page
    assert "hidden" not in page and "private" not in page


def test_classes_show_what_makes_them(root):
    page = pages(root)["two"]
    assert "`````{py:class} Thing(size: int, name: str = 'x')\n\nA thing.\n\n````{py:property} area\n" in page
    assert ":type: int\n" in page
    assert "{py:method} of(text: str) -> 'Thing'\n:classmethod:\n" in page
    assert "{py:method} zero(n)\n:staticmethod:\n" in page
    assert "{py:class} Secret\n" in page and "{py:class} Plain(x: int)\n" in page
    assert "_own" not in page and "not_given" not in page


def test_a_title_is_one_line_without_the_name(root):
    assert says(modules(root)["one"]) == "the first module"
    assert says(modules(root)["two"]) == "Two"


def test_a_clone_without_the_package_has_no_reference(tmp_path):
    assert pages(tmp_path) == {}


def test_columns_are_told_from_prose():
    assert prose("one two\nthree", "m", set()) == "one two three"
    assert prose("a  b", "m", set()) == "```text\na  b\n```"
    assert prose("end.  Next", "m", set()).startswith("```"), "two spaces between words are columns"


def test_all_that_it_names_exists(request):
    """Signatures are read, not imported: here they are compared with what importing gives."""
    root = request.config.rootpath
    trees = modules(root)
    for full in names(trees):
        module = max((name for name in trees if full.startswith(f"{PACKAGE}.{name}.")), key=len)
        value = importlib.import_module(f"{PACKAGE}.{module}")
        for part in full.removeprefix(f"{PACKAGE}.{module}.").split("."):
            value = inspect.getattr_static(value, part)


def test_every_public_function_and_class_says_what_it_is(request):
    root = request.config.rootpath
    silent = [
        f"{module}.{name}"
        for module, tree in modules(root).items()
        for name, node in public(tree).items()
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not ast.get_docstring(node)
    ]
    assert not silent
