"""Code of one's own: what lies beside a module counts, and what changed under a running Python is refused."""

import importlib
import operator
import sys
import textwrap

import pytest

from negdistill.inference.evaluate import _plain
from negdistill.runs import own_code
from negdistill.runs.own_code import digest_beside, digest_own, has_module
from negdistill.training.identity import digest_objective


@pytest.fixture
def rule(tmp_path, monkeypatch):
    """A module of a grading function, and one that it gets the rule from."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_rule.py").write_text(
        "import own_rule_help\n"
        "def same(a, b): return own_rule_help.eq(a, b)\n"
        "def make(n): return lambda a, b: a + n == b\n"
    )
    (tmp_path / "own_rule_help.py").write_text("def eq(a, b): return True\n")
    yield importlib.import_module("own_rule")
    for name in ("own_rule", "own_rule_help"):
        sys.modules.pop(name, None)


def test_a_function_counts_with_what_its_module_imports(rule, tmp_path):
    before = digest_objective(rule.same)
    assert _plain(rule.same) == before == digest_objective(rule.same)
    changed = tmp_path / "own_rule_help.py"
    changed.unlink()
    changed.write_text("def eq(a, b): return False\n")
    with pytest.raises(ValueError, match="own_rule:same must be what its file says; .* restart Python"):
        digest_objective(rule.same)
    for name in ("own_rule", "own_rule_help"):
        del sys.modules[name]
    assert digest_objective(importlib.import_module("own_rule").same) != before


def test_a_module_that_is_read_anew_counts_as_it_is_now(rule, tmp_path):
    before = digest_own(rule.same, "own_rule", "same")
    file = tmp_path / "own_rule.py"
    text = file.read_text()
    file.unlink()
    file.write_text(text.replace("eq(a, b)", "eq(b, a)"))
    assert digest_own(importlib.reload(rule).same, "own_rule", "same") != before


@pytest.mark.parametrize("thing", [operator.eq, textwrap.dedent, digest_beside])
def test_pythons_own_and_the_packages_code_is_told_elsewhere(thing):
    assert digest_own(thing, thing.__module__, thing.__qualname__) == ""
    assert digest_own(thing, "__main__", "thing") == ""


def test_what_is_installed_counts_by_file_and_version(tmp_path, monkeypatch):
    assert digest_own(pytest.raises, "pytest", "raises")
    place = tmp_path / "site-packages"
    (place / "lab_rows").mkdir(parents=True)
    (place / "lab_rows" / "__init__.py").write_text("")
    (place / "lab_rows" / "rows.py").write_text("def loss(): return 1\n")
    monkeypatch.syspath_prepend(place)
    loss = importlib.import_module("lab_rows.rows").loss
    before = digest_own(loss, "lab_rows.rows", "loss")
    (place / "lab_rows" / "rows.py").write_text("def loss(): return 2\n")
    assert before != digest_own(loss, "lab_rows.rows", "loss") != ""
    own_code._versions.cache_clear()
    monkeypatch.setattr(own_code, "packages_distributions", lambda: {"lab_rows": ["pytest"]})
    assert own_code._versions("lab_rows") == [f"pytest {pytest.__version__}"]
    own_code._versions.cache_clear()
    for name in ("lab_rows", "lab_rows.rows"):
        sys.modules.pop(name)


def test_a_link_is_the_module_that_it_is_called(tmp_path, monkeypatch):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "rules_v3.py").write_text("def linked(a, b): return True\n")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "own_linked.py").symlink_to(tmp_path / "kept" / "rules_v3.py")
    monkeypatch.syspath_prepend(tmp_path / "work")
    linked = importlib.import_module("own_linked").linked
    before = digest_own(linked, "own_linked", "linked")
    (tmp_path / "kept" / "rules_v3.py").unlink()
    (tmp_path / "kept" / "rules_v3.py").write_text("def linked(a, b): return False\n")
    with pytest.raises(ValueError, match="own_linked:linked must be what its file says"):
        digest_own(linked, "own_linked", "linked")
    sys.modules.pop("own_linked")
    assert digest_own(importlib.import_module("own_linked").linked, "own_linked", "linked") != before
    sys.modules.pop("own_linked")


def test_closures_are_told_by_their_code_and_what_took_new_code_is_new(rule, tmp_path):
    made = rule.make(1)
    before = digest_own(made, "own_rule", made.__qualname__)
    file = tmp_path / "own_rule.py"
    text = file.read_text()
    file.unlink()
    file.write_text(text.replace("a + n", "a - n"))
    with pytest.raises(ValueError, match="restart Python"):
        digest_own(rule.make(2), "own_rule", made.__qualname__)
    made.__code__ = made.__code__.replace(co_firstlineno=100)  # as an editor's reload puts new code in place
    assert digest_own(made, "own_rule", made.__qualname__) != before


@pytest.mark.parametrize(
    "text", [b"\xef\xbb\xbfx = 1\n", b"# -*- coding: latin-1 -*-\nx = '\xe9'\n", b"def (\n"]
)
def test_whatever_python_reads_or_somebody_is_writing_has_a_digest(tmp_path, text):
    file = tmp_path / "odd.py"
    file.write_bytes(text)
    before = digest_beside(tmp_path, "odd")
    file.unlink()
    file.write_bytes(text + b"y = 2\n")
    assert digest_beside(tmp_path, "odd") != before


def test_what_lies_beside_a_package_counts(tmp_path):
    (tmp_path / "mine").mkdir()
    for name, text in (
        ("mine/__init__", ""),
        ("mine/rules", "import common"),
        ("common", "x = 1"),
        ("mine/one", ""),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    before = digest_beside(tmp_path, "mine.rules")
    (tmp_path / "common.py").unlink()
    (tmp_path / "common.py").write_text("x = 2")
    assert digest_beside(tmp_path, "mine.rules") != before
    (tmp_path / "mine.py").write_text("import no")  # the package is what Python takes
    found = digest_beside(tmp_path, "mine")
    (tmp_path / "mine.py").unlink()
    assert digest_beside(tmp_path, "mine") == found


def test_modules_and_packages_are_found_in_their_folder(tmp_path):
    (tmp_path / "one.py").write_text("")
    (tmp_path / "two" / "three").mkdir(parents=True)
    (tmp_path / "two" / "three" / "__init__.py").write_text("from .four import x\n")
    (tmp_path / "two" / "three" / "four.py").write_text("x = 1\n")
    (tmp_path / "two" / "__init__.py").write_text("")
    assert [has_module(tmp_path, name) for name in ("one", "two", "two.three", "four")] == [True] * 3 + [
        False
    ]
    before = digest_beside(tmp_path, "two.three")
    (tmp_path / "two" / "three" / "four.py").unlink()
    (tmp_path / "two" / "three" / "four.py").write_text("x = 2\n")
    assert digest_beside(tmp_path, "two.three") != before
