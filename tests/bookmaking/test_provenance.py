"""Provenance: an executed notebook by its title, its times and its machine."""

import nbformat
import pytest
from markdown_it import MarkdownIt

from negdistill.bookmaking.provenance import Execution, code, duration, hardware, seeds, table
from negdistill.runs.folder import Manifest

MADE = Manifest(inputs={}, parameters={"seeds": [3, 4]}, seed=7, machine={"cores": 2}, seconds=61.0)


def test_an_execution_needs_a_manifest_and_takes_its_title_from_the_notebook(tmp_path):
    path = tmp_path / "00_one.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# One\n\n# More")])
    nbformat.write(notebook, path)
    assert Execution.read(path) is None
    notebook.metadata["negdistill"] = {"manifest": MADE.to_dict()}
    nbformat.write(notebook, path)
    run = Execution.read(path)
    assert run.link == "[One](executed/00_one.ipynb)" and run.made == MADE
    notebook.cells.clear()
    nbformat.write(notebook, path)
    assert Execution.read(path).title == "00_one"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "`a`"),
        ("", "`  `"),
        ("a|b", r"`a\|b`"),
        ("`x`", "`` `x` ``"),
        ("<b>\n*c*", "`<b> *c*`"),
        (["a``b"], "``` ['a``b'] ```"),
    ],
)
def test_a_value_is_code_whatever_stands_in_it(value, text):
    assert code(value) == text
    cell = table(["x"], [[code(value)]]).splitlines()[2]
    found = MarkdownIt().enable("table").parseInline(cell.strip("| ").replace(r"\|", "|"))[0].children
    assert [one.content.strip() for one in found] == [" ".join(str(value).split())]


def test_durations_machines_and_seeds_are_short():
    assert [duration(seconds) for seconds in (0.4, 59, 60, 3600)] == ["0 s", "59 s", "1.0 min", "60.0 min"]
    assert hardware({"cpu": "arm64", "cores": 1, "gpu": "H100"}) == "arm64, 1 core, H100"
    assert hardware({}) == ""
    assert seeds(MADE) == "7; training 3, 4" and seeds(Manifest(seed=5)) == "5" and seeds(Manifest()) == ""
