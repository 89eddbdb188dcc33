"""Tables of parameters: every one of a notebook, with its meaning and the values of the profiles."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from negdistill.bookmaking.parameters import listing, parameters

CELL = """\
names: list = ["NAT", "NAT, empty branch"]  # rows | compared
seeds: list = []  # of training
rate: float = 0.001  # learning rate
task: str = ""  # its name"""


def repository(folder, cell):
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    tags = {"tags": ["parameters"]}
    book = new_notebook(
        cells=[new_code_cell(cell, metadata=tags), new_code_cell("a: int = 3  # no parameter")]
    )
    path = folder / "notebooks" / "00_one.ipynb"
    nbformat.write(book, path)
    return path


def test_a_row_for_each_parameter_with_its_value_at_every_scale(tmp_path):
    repository(tmp_path, CELL)
    for name, values in (("book", "{rate: 0.002, seeds: [0, 1]}"), ("quick", "{task: a|b}"), ("smoke", "{}")):
        (tmp_path / "notebooks" / "profiles" / f"{name}.yml").write_text(f"00_one: {values}\n")
    assert listing(tmp_path, []).splitlines() == [
        "````{dropdown} 00: 00_one",
        "| parameter | unit or meaning | smoke | quick | book |",
        "| --- | --- | --- | --- | --- |",
        r"| `names` | rows &#124; compared | NAT; NAT, empty branch |  |  |",
        "| `seeds` | of training | none |  | 0, 1 |",
        "| `rate` | learning rate | 0.001 |  | 0.002 |",
        r"| `task` | its name | empty | `a\|b` |  |",
        "````",
    ]


def test_a_line_without_a_meaning_is_refused_with_its_file(tmp_path):
    path = repository(tmp_path, "rate: float = 0.001")
    with pytest.raises(ValueError, match="00_one.ipynb is written `name: type = value .*; got rate: float"):
        parameters(path)
