"""Documents: notebooks and YAML, read or refused by name, and what is damaged written over."""

import ast

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from negdistill.bookmaking.documents import python, read_notebook, read_yaml, write_notebook

BROKEN = ["", "{", "<<<<<<< HEAD\n{}", "[]", "\x00"]


@pytest.mark.parametrize("text", BROKEN)
def test_a_file_that_is_no_notebook_is_named(tmp_path, text):
    (tmp_path / "05_x.ipynb").write_text(text)
    with pytest.raises(ValueError, match="05_x.ipynb is no notebook, or a part of one: "):
        read_notebook(tmp_path / "05_x.ipynb")


@pytest.mark.parametrize("text", BROKEN)
def test_what_a_run_made_is_written_over_what_is_no_notebook(tmp_path, text):
    path, made = tmp_path / "05_x.ipynb", new_notebook(cells=[new_markdown_cell("# Made")])
    path.write_text(text)
    write_notebook(path, made)
    assert nbformat.read(path, 4) == made
    before = path.stat().st_mtime_ns
    write_notebook(path, nbformat.read(path, 4))
    assert path.stat().st_mtime_ns == before  # the same: nothing is written


def test_code_may_have_magics_and_a_line_that_is_none_is_quoted(tmp_path):
    tree = python("%matplotlib inline\n!ls\nimport negdistill.stats", tmp_path / "05_x.ipynb")
    assert [ast.unparse(node) for node in tree.body][2] == "import negdistill.stats"
    with pytest.raises(ValueError, match="05_x.ipynb has a line that is no Python: 'seed =': invalid syntax"):
        python("a = 1\nseed =", tmp_path / "05_x.ipynb")


def test_yaml_that_is_none_is_refused_with_its_place(tmp_path):
    (tmp_path / "words.yml").write_text("a: b: c")
    with pytest.raises(ValueError, match="words.yml is no YAML: .*line 1, column 5"):
        read_yaml(tmp_path / "words.yml")
    (tmp_path / "words.yml").write_text("a: [1, x]")
    assert read_yaml(tmp_path / "words.yml") == {"a": [1, "x"]}


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "b: {c: 1, c: 1}", "- a: 1\n  a: 2"])
def test_a_name_that_stands_twice_is_refused(tmp_path, text):
    """Kind: the last of two equal keys wins without a word; as in yaml/pyyaml#165."""
    (tmp_path / "words.yml").write_text(text)
    with pytest.raises(ValueError, match=r"words.yml is no YAML: '[ac]' stands there twice.*line \d"):
        read_yaml(tmp_path / "words.yml")
    (tmp_path / "words.yml").write_text("a: {b: 1}\nc: {b: 1}")
    assert read_yaml(tmp_path / "words.yml") == {"a": {"b": 1}, "c": {"b": 1}}


def test_merged_mappings_may_be_overridden(tmp_path):
    text = "b: &b {x: 1}\na: {mid: &m {<<: *b, x: 2}}\ntop: {<<: *m, y: 3}"
    (tmp_path / "words.yml").write_text(text)
    assert read_yaml(tmp_path / "words.yml")["top"] == {"x": 2, "y": 3}
