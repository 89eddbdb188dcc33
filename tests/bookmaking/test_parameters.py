"""Tables of parameters: every one of a notebook, with its meaning and the values of the profiles."""

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from negdistill.bookmaking.parameters import listing

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


def test_what_has_no_meaning_and_a_dict_are_shown_as_they_are(tmp_path):
    repository(tmp_path, "rate = 0.001\n\nchanges = {'lr': 0.002}  # to the recipe\nnone = {}")
    rows = listing(tmp_path, []).splitlines()[3:-1]
    assert rows == [
        "| `rate` |  | 0.001 |",
        "| `changes` | to the recipe | `{'lr': 0.002}` |",
        "| `none` |  | empty |",
    ]
