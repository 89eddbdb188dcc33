"""Code of one's own: what lies beside a module counts, and what changed under a running Python is refused."""

import importlib
import operator
import sys

import pytest

from negdistill.inference.evaluate import _plain
from negdistill.runs.own_code import digest_beside, digest_own, has_module
from negdistill.training.identity import digest_objective


@pytest.fixture
def rule(tmp_path, monkeypatch):
    """A module of a grading function, and one that it gets the rule from."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_rule.py").write_text(
        "import own_rule_help\ndef same(a, b): return own_rule_help.eq(a, b)\n"
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


@pytest.mark.parametrize("thing", [operator.eq, pytest.raises, digest_beside])
def test_what_is_installed_or_of_the_package_is_told_by_its_version(thing):
    assert digest_own(thing, thing.__module__, thing.__qualname__) == ""
    assert digest_own(thing, "__main__", "thing") == ""


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
