"""Planning: parameters from cells, profiles and the command line; every refusal in its own words."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from negdistill.bookmaking.documents import write_notebook
from negdistill.bookmaking.named_files import data_at_hand, reads_data
from negdistill.bookmaking.planning import (
    digest_cells,
    find_root,
    inputs_of,
    known_parameters,
    notebooks,
    parse_parameter,
    plan,
    profiles,
    select,
)


def notebook(parameters: str, needs: tuple[str, ...] = (), code: str = "print(1)"):
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        new_code_cell(code),
    ]
    return new_notebook(cells=cells, metadata={"negdistill": {"needs": list(needs)}})


@pytest.fixture
def root(tmp_path):
    """A repository with two notebooks and two profiles."""
    folder = tmp_path / "notebooks"
    (folder / "profiles").mkdir(parents=True)
    (folder / "profiles" / "smoke.yml").write_text("# nothing\n")
    (folder / "profiles" / "quick.yml").write_text("common: {seed: 5}\n00_one: {n: 300}\n")
    one = "n: int = 2  # questions; 0 = all\nseed = 0\nrate = 0.5\nrun_dir = '../_runs/smoke/00_one'"
    nbformat.write(notebook(one), folder / "00_one.ipynb")
    nbformat.write(notebook("seed = 0\nflag = False\nlevels = (1, 2)", ("00_one",)), folder / "01_two.ipynb")
    return tmp_path


def profile(root: Path, text: str) -> None:
    (root / "notebooks" / "profiles" / "quick.yml").write_text(text)


def test_the_root_is_found_from_inside(root):
    assert find_root(root / "notebooks" / "profiles") == root and profiles(root) == ["quick", "smoke"]


def test_outside_of_a_clone_there_is_no_root(tmp_path):
    with pytest.raises(FileNotFoundError, match="no notebooks/profiles in or above .*: go to a clone"):
        find_root(tmp_path)


def test_only_numbered_notebooks_count(root):
    for name in ("02_x.failed.ipynb", ".part-02_x.ipynb", "draft.ipynb"):
        (root / "notebooks" / name).touch()
    assert [path.name for path in notebooks(root / "notebooks")] == ["00_one.ipynb", "01_two.ipynb"]


def test_smoke_gives_nothing(root):
    one, two = plan(root, "smoke")
    assert one.given == two.given == {}
    assert one.parameters == {"n": 2, "seed": 0, "rate": 0.5, "run_dir": "../_runs/smoke/00_one"}
    assert one.target == root / "_build" / "smoke" / "executed" / "00_one.ipynb"
    assert one.run_dir.resolve() == root / "_runs" / "smoke" / "00_one"
    assert (one.needs, two.needs) == ((), ("00_one",))


def test_a_profile_gives_common_parameters_own_parameters_and_a_run_folder(root):
    one, two = plan(root, "quick")
    assert one.given == {"seed": 5, "n": 300, "run_dir": "../_runs/quick/00_one"}
    assert one.parameters == {"rate": 0.5, **one.given}
    assert two.given == {"seed": 5} and two.parameters == {"seed": 5, "flag": False, "levels": (1, 2)}


def test_the_command_line_wins_and_reaches_only_what_is_selected(root):
    one, two = plan(root, "quick", ["00"], {"seed": 9})
    assert one.given["seed"] == 9 and two.given["seed"] == 5
    assert [job.given["seed"] for job in plan(root, "quick", (), {"seed": 9})] == [9, 9]


def test_a_section_of_its_own_wins_over_common(root):
    profile(root, "common: {seed: 5}\n01_two: {seed: 6}\n")
    assert [job.given["seed"] for job in plan(root, "quick")] == [5, 6]


def test_the_book_has_a_folder_of_its_own(root):
    (root / "notebooks" / "profiles" / "book.yml").touch()
    assert plan(root, "book")[1].target == root / "book" / "executed" / "01_two.ipynb"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("02_no: {n: 1}", "section of quick.yml must be one of 'common', '00_one', '01_two'; got '02_no'"),
        ("00_one: {m: 1}", "parameter of quick.yml must be one of 'n', 'rate', 'run_dir', 'seed'; got 'm'"),
        ("01_two: {n: 1}", "parameter of quick.yml must be one of 'flag', 'levels', 'seed'; got 'n'"),
        ("common: {m: 1}", "must be one of 'flag', 'levels', 'n', 'rate', 'run_dir', 'seed'; got 'm'"),
        (
            "00_one: {rate: 1e-3}",
            "rate of 00_one must be of type float as its default 0.5; got '1e-3' from quick.yml",
        ),
        ("00_one: {n: 1.5}", "n of 00_one must be of type int as its default 2; got 1.5"),
        ("00_one: {n: true}", "n of 00_one must be of type int as its default 2; got True"),
        ("01_two: {flag: 1}", "flag of 01_two must be of type bool as its default False; got 1"),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(root, text, message):
    profile(root, text)
    with pytest.raises(ValueError, match=message):
        plan(root, "quick")


def test_an_int_does_for_a_float(root):
    profile(root, "00_one: {rate: 1}")
    assert plan(root, "quick")[0].parameters["rate"] == 1


def test_unknown_names_are_refused_with_the_known_ones(root):
    with pytest.raises(ValueError, match="profile must be one of 'quick', 'smoke'; got 'slow'"):
        plan(root, "slow")
    with pytest.raises(ValueError, match="only must be one of '00_one', '01_two', '00', '01'; got '2'"):
        plan(root, "quick", ["2"])
    with pytest.raises(ValueError, match="parameter of -p must be one of 'flag', 'levels', 'seed'; got 'n'"):
        plan(root, "quick", ["01"], {"n": 1})


def test_needs_must_come_before(root):
    nbformat.write(notebook("n = 1", ("01_two",)), root / "notebooks" / "00_one.ipynb")
    with pytest.raises(ValueError, match="needs of 00_one must be one of ; got '01_two'"):
        plan(root, "smoke")


def test_a_folder_without_notebooks_is_an_error(root):
    for path in notebooks(root / "notebooks"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="no notebook named like 00_name.ipynb in .*notebooks"):
        plan(root, "smoke")


@pytest.mark.parametrize("cell", ["n = 2 * 3", "n = m = 1", "import os", "n: int", "print(1)"])
def test_parameters_are_plain_values(tmp_path, cell):
    nbformat.write(notebook(cell), tmp_path / "00_x.ipynb")
    with pytest.raises(ValueError, match="the parameters cell of 00_x.ipynb must assign plain values; got "):
        known_parameters(tmp_path / "00_x.ipynb")


def test_parameters_may_have_types_comments_and_several_lines(tmp_path):
    cell = "a: int = 1  # 0 = all\nb = [\n    'x',  # one\n    'y',\n]\nc = -0.5\nd = None"
    nbformat.write(notebook(cell), tmp_path / "00_x.ipynb")
    assert known_parameters(tmp_path / "00_x.ipynb") == {"a": 1, "b": ["x", "y"], "c": -0.5, "d": None}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n=3", 3),
        ("n=1e-3", 0.001),
        ("n=True", True),
        ("n=true", True),
        ("n=null", None),
        ('n={"compile": true}', {"compile": True}),
        ('n={"lr": 1e-3, "names": ["a, b"]}', {"lr": 0.001, "names": ["a, b"]}),
        ("n={'compile': True}", {"compile": True}),
        ("n={compile: true}", "{compile: true}"),
        ("n=" + "[" * 10_000, "[" * 10_000),
        ("n={[1]: 2}", "{[1]: 2}"),
        ("n=a=b", "a=b"),
        ("n=[1, 2]", [1, 2]),
    ],
)
def test_values_of_the_command_line(text, value):
    assert parse_parameter(text) == ("n", value)


@pytest.mark.parametrize("text", ["n", "=1", "a b=1", ""])
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(ValueError, match="-p takes name=value; got "):
        parse_parameter(text)


@pytest.mark.parametrize(("cell", "line"), [(1, "seed ="), (2, "print(1")])
def test_a_cell_that_is_half_typed_is_quoted_with_its_notebook(root, cell, line):
    path = root / "notebooks" / "01_two.ipynb"
    half = nbformat.read(path, 4)
    half.cells[cell].source = f"flag = True\n{line}"
    nbformat.write(half, path)
    with pytest.raises(ValueError, match=f"01_two.ipynb has a line that is no Python: '{re.escape(line)}'"):
        for job in plan(root, "smoke"):
            inputs_of(job, {}, {"00_one": None})


@pytest.mark.parametrize(
    ("parameters", "reads"),
    [
        ({"task": "arithmetic", "changes": {"lr": 1}, "seeds": [0]}, False),
        ({}, False),
        ({"task": "math"}, True),
        ({"task": "../mine.jsonl"}, True),
        ({"real_teachers": ["tdg-gpt-4"]}, True),
    ],
)
def test_who_reads_the_data_folder(parameters, reads):
    assert reads_data(parameters) == reads


def test_a_link_to_nothing_among_the_data_has_no_size(tmp_path, monkeypatch):
    (tmp_path / "MATH").mkdir()
    (tmp_path / "MATH" / "train.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "MATH" / "test.jsonl").write_text("{}")
    monkeypatch.setenv("NEGDISTILL_DATA", str(tmp_path))
    assert data_at_hand() == [["MATH/test.jsonl", 2], ["MATH/train.jsonl", 0]]


def test_a_tuple_does_for_a_list(root):
    nbformat.write(notebook("seeds = [0]"), root / "notebooks" / "02_three.ipynb")
    assert plan(root, "smoke", ["02"], {"seeds": (0, 1)})[2].parameters["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": [1]}, r"methods of 02_three must be of type list of str as .*; got \[1\] from -p"),
        ({"methods": ["NAT", ["KD"]]}, "methods of 02_three must be of type list of str as its default"),
        ({"shares": [True]}, "shares of 02_three must be of type list of float as its default"),
        ({"changes": {1: 2}}, "changes of 02_three must be of type dict with texts as keys .*; got {1: 2}"),
    ],
)
def test_what_a_list_or_mapping_holds_has_a_type_too(root, given, message):
    cell = "methods = ['NAT']\nshares = [0.5]\nlevels = []\nchanges = {}"
    nbformat.write(notebook(cell), root / "notebooks" / "02_three.ipynb")
    fine = {"methods": [], "shares": [1], "levels": [1, "2"], "changes": {"lr": 1}}
    assert plan(root, "smoke", ["02"], fine)[2].given == fine
    with pytest.raises(ValueError, match=message):
        plan(root, "smoke", ["02"], given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("common: {seed: 5", r"quick.yml is no YAML: .*line 1, column 9"),
        ("common:\n\tseed: 5", r"quick.yml is no YAML: .*line 2, column 1"),
        ("a: *b", r"quick.yml is no YAML: .*undefined alias"),
        ("- common", r"the file of .*quick.yml must hold lines `name: value`; got \['common'\]"),
        ("seed", r"the file of .*quick.yml must hold lines `name: value`; got 'seed'"),
        ("common: 5", r"common of .*quick.yml must hold lines `name: value`; got 5"),
        ("00_one: [n]", r"00_one of .*quick.yml must hold lines `name: value`; got \['n'\]"),
    ],
)
def test_a_profile_that_is_no_profile_is_refused(root, text, message):
    """Kind: YAML that cannot be read, without the name of its file; as in Sceptre/sceptre#976,
    spack/spack#32382.
    """
    profile(root, text)
    with pytest.raises(ValueError, match=message):
        plan(root, "quick")


def test_a_profile_in_another_encoding_is_refused(root):
    (root / "notebooks" / "profiles" / "quick.yml").write_bytes("common: {seed: é}".encode("latin-1"))
    with pytest.raises(ValueError, match="quick.yml is no YAML: .*utf-8"):
        plan(root, "quick")


def test_an_empty_section_gives_nothing(root):
    profile(root, "common:\n00_one:\n")
    assert plan(root, "quick")[0].parameters["n"] == 2


def test_select_takes_numbers_and_names():
    names = ["00_one", "01_two", "02_three"]
    assert select(names, []) == names
    assert select(names, ["02_three", "00"]) == ["00_one", "02_three"]


def test_the_digest_sees_code_and_tags_and_no_prose_or_output():
    plain = notebook("n = 1")
    prose = notebook("n = 1")
    prose.cells[0].source = "# Other"
    prose.cells[2].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    tagged = notebook("n = 1")
    tagged.cells[2].metadata.tags = ["nbval-ignore-output"]
    asking = notebook("n = 1")
    asking.cells.append(new_code_cell("answer = ...", metadata={"tags": ["exercise", "nbval-skip"]}))
    alone = notebook("n = 1")
    alone.cells.insert(1, new_code_cell("install = False", metadata={"tags": ["setup", "nbval-skip"]}))
    assert digest_cells(prose) == digest_cells(plain) == digest_cells(alone) == digest_cells(asking)
    assert (
        len({digest_cells(book) for book in (plain, tagged, notebook("n = 2"), notebook("n = 1", (), "2"))})
        == 4
    )


def test_writing_the_same_notebook_leaves_the_file_alone(tmp_path):
    path = tmp_path / "00_x.ipynb"
    book = notebook("n = 1")
    write_notebook(path, book)
    before = path.stat()
    write_notebook(path, book)
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_ino == before.st_ino


@pytest.mark.parametrize("rule", ["grading", "other_grading"])
def test_a_grading_is_checked_before_anything_runs(root, rule):
    nbformat.write(notebook(f"{rule}: str = ''  # a rule"), root / "notebooks" / "02_three.ipynb")
    for good in ("", "number", "my_module:same"):
        assert plan(root, "quick", overrides={rule: good})[2].parameters[rule] == good
    with pytest.raises(ValueError, match="grading must be one of .*got 'numbr'"):
        plan(root, "quick", overrides={rule: "numbr"})


def test_data_at_hand_sees_files_come_and_grow(tmp_path, monkeypatch):
    monkeypatch.setenv("NEGDISTILL_DATA", str(tmp_path / "none"))
    assert data_at_hand() == []
    monkeypatch.setenv("NEGDISTILL_DATA", str(tmp_path))
    (tmp_path / "TDG" / "GPT4-MATH").mkdir(parents=True)
    (tmp_path / "SVAMP").mkdir()
    (tmp_path / "SVAMP" / "SVAMP.json").write_text("[]")
    assert data_at_hand() == [["SVAMP/SVAMP.json", 2], ["TDG/GPT4-MATH", 0]]
