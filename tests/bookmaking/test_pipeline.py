"""Pipeline: tiny notebooks, really run through papermill; what runs again, and what failure leaves behind."""

import importlib.util
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from negdistill.__main__ import main
from negdistill.bookmaking import pipeline
from negdistill.bookmaking.named_files import named_files
from negdistill.bookmaking.pipeline import run, status
from negdistill.bookmaking.planning import Failure
from negdistill.runs.folder import Manifest, RunFolder

ONE = ["00_one"]
BOTH = ["00_one", "01_two"]

FIRST = """from negdistill.runs.folder import RunFolder
if n < 0:
    from negdistill.bookmaking import plots
folder = RunFolder.start(run_dir, parameters={"n": n}, seed=seed)
with folder.create("numbers.txt") as path:
    path.write_text(" ".join(map(str, range(n))))
print("wrote", n)"""
SECOND = """from pathlib import Path
import tqdm.auto
from huggingface_hub.utils import are_progress_bars_disabled
assert are_progress_bars_disabled()
from negdistill.runs.folder import RunFolder
numbers = RunFolder.open(Path(run_dir).parent / "00_one").path("numbers.txt").read_text().split()
RunFolder.start(run_dir)
print("read", len(numbers))"""


def notebook(name: str, parameters: str, code: str, needs: tuple[str, ...] = ()):
    cells = [
        new_markdown_cell(f"# {name}", id="title"),
        new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]}),
        new_code_cell(code, id="work"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, **({"negdistill": {"needs": list(needs)}} if needs else {})}
    return new_notebook(cells=cells, metadata=metadata)


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """A repository of two notebooks, both run under quick."""
    root = tmp_path_factory.mktemp("repository")
    folder = root / "notebooks"
    (folder / "profiles").mkdir(parents=True)
    (folder / "profiles" / "smoke.yml").touch()
    (folder / "profiles" / "quick.yml").write_text("00_one: {n: 5}\n")
    for name in ("runs/folder", "bookmaking/plots"):
        (root / "negdistill" / name).parent.mkdir(parents=True)
        (root / "negdistill" / f"{name}.py").write_text("x = 1\n")
    (root / "constraints.txt").write_text("torch==2.13.0\n")
    one = "n = 2  # numbers\nseed = 0\nrun_dir = '../_runs/smoke/00_one'"
    nbformat.write(notebook("One", one, FIRST), folder / "00_one.ipynb")
    two = notebook("Two", "run_dir = '../_runs/smoke/01_two'", SECOND, needs=("00_one",))
    nbformat.write(two, folder / "01_two.ipynb")
    assert runs(root) == BOTH
    return root


@pytest.fixture
def root(ran, tmp_path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(ran, tmp_path / "repository"))


def runs(root: Path, profile: str = "quick", **options) -> list[str]:
    """Run, and return the names of the notebooks that were executed."""
    lines: list[str] = []
    run(root, profile, say=lines.append, **options)
    return [line.split(":")[0] for line in lines if ": running (" in line]


def executed(root: Path, name: str, profile: str = "quick"):
    return nbformat.read(root / "_build" / profile / "executed" / f"{name}.ipynb", as_version=4)


def text(book) -> str:
    return "".join(output.text for cell in book.cells for output in cell.get("outputs", []))


def states(root: Path) -> dict[str, str]:
    return {name: ", ".join(why) for name, why, _ in status(root, "quick")}


def edit(path: Path, cell: int, source: str) -> None:
    book = nbformat.read(path, as_version=4)
    book.cells[cell].source = source
    nbformat.write(book, path)


# --- one run ------------------------------------------------------------------------------------------


def test_parameters_reach_the_notebook_and_artefacts_the_next(ran):
    assert text(executed(ran, "00_one")) == "wrote 5\n"
    assert text(executed(ran, "01_two")) == "read 5\n"
    assert (ran / "_runs" / "quick" / "00_one" / "numbers.txt").read_text() == "0 1 2 3 4"


def test_the_executed_notebook_carries_its_provenance(ran):
    made = Manifest.from_dict(executed(ran, "00_one").metadata["negdistill"]["manifest"])
    assert set(made.inputs) == {"notebook", "package", "files", "constraints"}
    assert made.parameters == {"n": 5, "seed": 0, "run_dir": "../_runs/quick/00_one"}
    assert made.seed == 0 and set(made.artifacts) == {"numbers.txt"}
    assert 0 < made.seconds < 120 and made.machine["cores"] >= 1 and "torch" in made.versions
    assert "00_one" in executed(ran, "01_two").metadata["negdistill"]["manifest"]["inputs"]


def test_no_path_of_this_machine_is_kept(ran):
    for path in (ran / "_build" / "quick" / "executed").iterdir():
        assert str(ran) not in path.read_text() and "papermill" not in nbformat.read(path, 4).metadata


def test_nothing_changed_runs_nothing(root):
    before = {path: path.stat().st_mtime_ns for path in (root / "_build" / "quick" / "executed").iterdir()}
    assert set(states(root).values()) == {""}
    assert runs(root) == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


# --- what makes it run again --------------------------------------------------------------------------


def test_prose_runs_nothing_and_reaches_the_executed_notebook(root):
    edit(root / "notebooks" / "00_one.ipynb", 0, "# Another title")
    assert runs(root) == []
    book = executed(root, "00_one")
    assert book.cells[0].source == "# Another title" and text(book) == "wrote 5\n"
    assert [cell.metadata.get("tags") for cell in book.cells[1:3]] == [
        ["parameters"],
        ["injected-parameters"],
    ]


def test_an_exercise_runs_nothing_and_reaches_the_executed_notebook(root):
    """Nor do the modules count that only an exercise imports."""
    (root / "negdistill" / "extra.py").write_text("x = 1\n")
    path = root / "notebooks" / "00_one.ipynb"
    book = nbformat.read(path, as_version=4)
    source = "from negdistill import extra\n\nanswer = ..."
    book.cells.append(new_code_cell(source, metadata={"tags": ["exercise", "nbval-skip"]}))
    nbformat.write(book, path)
    assert set(states(root).values()) == {""} and runs(root) == []
    last = executed(root, "00_one").cells[-1]
    assert (last.source, last.outputs, last.execution_count) == (source, [], None)
    assert text(executed(root, "00_one")) == "wrote 5\n"


def test_a_changed_parameter_runs_it_and_what_reads_its_artefacts(root):
    (root / "notebooks" / "profiles" / "quick.yml").write_text("00_one: {n: 6}\n")
    assert states(root) == {"00_one": "parameters changed", "01_two": "00_one out of date"}
    assert runs(root) == BOTH
    assert text(executed(root, "01_two")) == "read 6\n"


def test_the_command_line_changes_a_parameter(root):
    assert runs(root, only=["00"], overrides={"n": 7}) == ONE
    assert text(executed(root, "00_one")) == "wrote 7\n"
    assert states(root) == {"00_one": "parameters changed", "01_two": "00_one changed"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda root: (root / "negdistill/runs/folder.py").write_text("x = 2\n"), "package changed"),
        (lambda root: (root / "negdistill/bookmaking/plots.py").write_text("x = 2\n"), ""),
        (lambda root: (root / "negdistill/data.json").write_text("{}"), "files changed"),
        (lambda root: (root / "constraints.txt").write_text("torch==2.14.0\n"), "constraints changed"),
        (lambda root: (root / "constraints.txt").write_text("torch==2.13.0\nsphinx==7.4.7\n"), ""),
        (lambda root: edit(root / "notebooks" / "00_one.ipynb", 2, FIRST + "\n1"), "notebook changed"),
        (
            lambda root: (root / "_runs/quick/00_one/numbers.txt").write_text("0"),
            "artefact numbers.txt changed",
        ),
        (lambda root: (root / "_build/quick/executed/00_one.ipynb").write_text("{"), "never run"),
    ],
)
def test_what_a_notebook_depends_on(root, change, why):
    change(root)
    assert states(root)["00_one"] == why
    assert states(root)["01_two"] in ("00_one out of date", "00_one changed", why)


def test_new_data_counts_where_a_notebook_reads_data_and_not_at_smoke_scale(root, monkeypatch):
    """Kind: a key that holds more than a result depends on."""
    edit(root / "notebooks" / "01_two.ipynb", 1, "task = 'svamp'\nrun_dir = '../_runs/smoke/01_two'")
    assert runs(root) == ["01_two"] and runs(root, "smoke") == BOTH
    (root / "data" / "SVAMP").mkdir(parents=True)
    (root / "data" / "SVAMP" / "SVAMP.json").write_text("[]")
    monkeypatch.setenv("NEGDISTILL_DATA", str(root / "data"))
    assert states(root) == {"00_one": "", "01_two": "data changed"}
    assert runs(root, "smoke") == []


def test_a_template_of_the_pages_changes_no_result_and_a_student_does(root):
    for name in ("bookmaking/pdf.typ", "data/weights.bin"):
        (root / "negdistill" / name).parent.mkdir(exist_ok=True)
        (root / "negdistill" / name).write_text("x")
        assert states(root)["00_one"] == ("files changed" if name.startswith("data") else "")


def test_a_notebook_sees_the_folders_that_the_command_saw(root, monkeypatch):
    """Kind: a relative path that a notebook reads from another folder; as in nteract/papermill#316."""
    (root / "data" / "SVAMP").mkdir(parents=True)
    monkeypatch.chdir(root)
    monkeypatch.setenv("NEGDISTILL_DATA", "data")
    monkeypatch.setenv("NEGDISTILL_CACHE", "cache")
    code = """from negdistill.data.folders import data_folder
from negdistill.data.math_verify_pool import cache_file
print(data_folder(), data_folder().is_dir(), cache_file())"""
    edit(root / "notebooks" / "00_one.ipynb", 2, FIRST + "\n" + code)
    assert runs(root, only=["00"]) == ONE
    expected = f"{root / 'data'} True {root / 'cache' / 'verdicts.sqlite'}\n"
    assert text(executed(root, "00_one")) == f"wrote 5\n{expected}"


def test_a_rerun_with_the_same_results_stops_there(root):
    assert runs(root, only=["00"], force=True) == ONE
    assert states(root) == {"00_one": "", "01_two": ""}


def test_lost_artefacts_are_made_again_when_somebody_reads_them(root):
    shutil.rmtree(root / "_runs")
    assert states(root) == {"00_one": "", "01_two": ""}
    assert runs(root) == []
    edit(root / "notebooks" / "01_two.ipynb", 2, SECOND + "\n1")
    assert states(root) == {"00_one": "artefacts missing", "01_two": "notebook changed"}
    assert runs(root, only=["01"]) == BOTH


def test_changed_outputs_and_predictions_are_made_again(root):
    """Kind: up to date, although a file was changed or is missing; as in snakemake/snakemake#2011."""
    path = root / "_build/quick/executed/00_one.ipynb"
    path.write_text(path.read_text().replace("wrote 5", "wrote 6"))
    assert states(root)["00_one"] == "outputs changed"
    assert runs(root) == ONE and text(executed(root, "00_one")) == "wrote 5\n"

    write = "\nfor name in ('predictions.parquet', 'texts.parquet'):\n    with folder.create(name) as path:\n"
    edit(root / "notebooks" / "00_one.ipynb", 2, FIRST + write + "        path.write_text(name)")
    beside = {path.with_suffix(".parquet"): "predictions.parquet"}
    beside[path.with_suffix(".texts.parquet")] = "texts.parquet"
    assert runs(root) == BOTH and {one: one.read_text() for one in beside} == beside
    for one, content in beside.items():
        for damage in (lambda one=one: one.write_bytes(b""), one.unlink):
            damage()
            assert states(root)["00_one"] == f"{one.name} changed"
            assert runs(root) == ONE and one.read_text() == content
    edit(root / "notebooks" / "00_one.ipynb", 2, FIRST)
    assert runs(root) == BOTH and not any(one.exists() for one in beside)


def test_a_damaged_run_inside_the_run_folder_is_seen_and_made_again(root):
    inner = (
        "\nfit = RunFolder.start(run_dir + '/fits/one-0123456789ab')\nwith fit.create('fit.json') as path:\n"
    )
    reuse = "if not (Path(run_dir) / 'fits/one-0123456789ab/fit.json').exists():\n    "
    make = inner.replace("\n", "\n    ") + "    path.write_text('whole')\n"
    read = "RunFolder.open(run_dir + '/fits/one-0123456789ab').path('fit.json')"
    code = FIRST + "\nfrom pathlib import Path\n" + reuse + make.strip() + "\n" + read
    edit(root / "notebooks" / "00_one.ipynb", 2, code)
    assert runs(root) == BOTH
    for name, change in (("fit.json", "half"), ("manifest.json", "{")):
        (root / "_runs/quick/00_one/fits/one-0123456789ab" / name).write_text(change)
        seen = {
            "fit.json": "artefact fits/one-0123456789ab/fit.json changed",
            "manifest.json": "fits/one-0123456789ab/manifest.json damaged",
        }
        assert states(root)["00_one"] == seen[name]
        assert runs(root) == ONE
        assert set(states(root).values()) == {""}


def test_a_forced_run_that_was_killed_is_not_up_to_date(root):
    """It had begun its run folder anew, so that whoever needs it would find nothing there."""
    edit(root / "notebooks" / "01_two.ipynb", 2, SECOND + "\n1")
    manifest = root / "_runs/quick/00_one/manifest.json"
    RunFolder.start(manifest.parent, parameters={"n": 5}, seed=0)
    assert states(root)["00_one"] == "a later run did not finish"
    assert runs(root) == BOTH


# --- side by side -------------------------------------------------------------------------------------

MEET = """from pathlib import Path
import time
Path(mine).touch()
for _ in range(600):
    if Path(other).exists():
        break
    time.sleep(0.1)
else:
    raise TimeoutError("nobody came")
print("met")"""


def test_independent_notebooks_run_at_once(root):
    for name, other in (("00_one", "01_two"), ("01_two", "00_one")):
        book = notebook(name, f"mine = '{name}'\nother = '{other}'", MEET)
        nbformat.write(book, root / "notebooks" / f"{name}.ipynb")
    (root / "notebooks/profiles/quick.yml").write_text("")
    assert sorted(runs(root, jobs=2)) == BOTH
    assert text(executed(root, "00_one")) == text(executed(root, "01_two")) == "met\n"


def test_a_failure_stops_only_what_needs_it(root):
    nbformat.write(notebook("Three", "n = 1", "print('alone')"), root / "notebooks" / "02_three.ipynb")
    edit(root / "notebooks" / "00_one.ipynb", 2, "1 / 0")
    with pytest.raises(Failure, match=r"(?s)ZeroDivisionError.*\n\n01_two was not run: it needs 00_one$"):
        runs(root, jobs=2)
    assert text(executed(root, "02_three")) == "alone\n"


def test_a_kernel_that_does_not_start_stops_only_what_needs_it(root, monkeypatch):
    nbformat.write(notebook("Three", "n = 1", "print('alone')"), root / "notebooks" / "02_three.ipynb")
    edit(root / "notebooks" / "00_one.ipynb", 2, FIRST + "\n1")
    execute = pipeline.execute

    def silent(job, *given):
        if job.name == "00_one":
            raise RuntimeError("Kernel didn't respond in 60 seconds")
        return execute(job, *given)

    monkeypatch.setattr(pipeline, "execute", silent)
    with pytest.raises(Failure, match=r"(?s)^00_one failed.*RuntimeError: Kernel didn't.*01_two was not run"):
        runs(root, jobs=2)
    assert text(executed(root, "02_three")) == "alone\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("one.write_text('{')", "00_one failed.*00_one.ipynb is no notebook.*01_two was not run"),
        ("one.unlink()", "00_one failed.*FileNotFoundError.*01_two was not run"),
        (
            "two.write_text(two.read_text().replace('import tqdm.auto', 'x = ('))",
            "01_two failed.*01_two.ipynb has a line that is no Python: 'x = ",
        ),
    ],
)
def test_a_notebook_that_is_being_edited_stops_only_what_needs_it(root, change, message):
    """Kind: a file that is half saved ends hours of work of others."""
    wait = "from pathlib import Path\nimport time\nwhile not Path('go').exists():\n    time.sleep(0.05)\n"
    paths = "from pathlib import Path\none, two = Path('00_one.ipynb'), Path('01_two.ipynb')"
    three = notebook("Three", "n = 1", wait + "print('alone')")
    nbformat.write(three, root / "notebooks" / "02_three.ipynb")
    edit(root / "notebooks" / "00_one.ipynb", 2, f"{FIRST}\n{paths}\n{change}")

    def say(line):
        if line.endswith(": failed"):
            (root / "notebooks" / "go").touch()

    with pytest.raises(Failure, match=f"(?s)^{message}"):
        run(root, "quick", say=say, jobs=2)
    assert text(executed(root, "02_three")) == "alone\n"


def test_a_file_that_a_parameter_names_is_a_part_of_the_run(root):
    """Kind: a run on data of one's own is called up to date after the data changed."""
    (root / "mine.txt").write_text("1")
    (root / "student").mkdir()
    (root / "student" / "config.json").write_text("{}")
    (root / "notebooks" / "rules.py").write_text("def same(a, b): return a == b")
    given = {"task": "../mine.txt", "grading": "rules:same", "students": ["embedded", "../student"], "n": 2}
    before = named_files(root / "notebooks", given)
    assert list(before) == ["task", "grading", "students"]
    assert named_files(root / "notebooks", given) == before
    (root / "mine.txt").write_text("2")
    (root / "notebooks" / "rules.py").write_text("def same(a, b): return a != b")
    (root / "student" / "model.safetensors").write_text("weights")
    after = named_files(root / "notebooks", given)
    assert all(after[name] != before[name] for name in before)
    known = "n = 2  # numbers\nseed = 0\ntask = ''\nrun_dir = '../_runs/smoke/00_one'"
    edit(root / "notebooks" / "00_one.ipynb", 1, known)
    assert runs(root, only=["00"], overrides={"task": "../mine.txt"}) == ONE
    (root / "mine.txt").write_text("3")
    assert runs(root, only=["00"], overrides={"task": "../mine.txt"}) == ONE
    assert runs(root, only=["00"], overrides={"task": "../mine.txt"}) == []


def test_at_least_one_at_once(root):
    with pytest.raises(ValueError, match="jobs must be at least 1; got 0"):
        runs(root, jobs=0)


@pytest.mark.parametrize("jobs", ["0", "-1"])
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_at_least_one_at_once_in_a_dry_run_too(jobs, more, capsys):
    assert main(["run", "--profile", "smoke", "--jobs", jobs, *more]) == 1
    assert re.fullmatch(f"error: jobs must be at least 1; got {jobs}\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("only", "jobs", "threads"),
    [([], None, "1 2"), ([], 1, "7 4"), (["00"], None, "7 4"), (["00"], 3, "7 4")],
)
def test_kernels_beside_others_share_the_cores_and_see_absolute_folders(
    root, monkeypatch, only, jobs, threads
):
    """Kind: processes side by side, each with a thread for every core; as in pytorch/pytorch#19163."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(pipeline, "machine", lambda: {"cores": 4, "gpu": None})
    monkeypatch.setenv("NEGDISTILL_DATA", "some/data")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    names = "OMP_NUM_THREADS", "NEGDISTILL_THREADS", "NEGDISTILL_DATA"
    code = f"import os\nprint(*(os.environ[name] for name in {names}))"
    for name in BOTH:
        nbformat.write(notebook("A", "n = 1", code), root / "notebooks" / f"{name}.ipynb")
    runs(root, only=only, jobs=jobs)
    assert text(executed(root, "00_one")) == f"{threads} {root / 'some/data'}\n"


def test_cores_are_shared(monkeypatch):
    monkeypatch.setattr(pipeline, "machine", lambda: {"cores": 6, "gpu": None})
    assert [pipeline.surroundings("quick", jobs)["NEGDISTILL_THREADS"] for jobs in (1, 2, 9)] == [
        "6",
        "3",
        "1",
    ]
    assert pipeline.kernels_at_once("quick", None) == 6
    assert pipeline.kernels_at_once("quick", 4) == 4
    monkeypatch.setattr(pipeline, "machine", lambda: {"cores": 6, "gpu": "a card"})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert pipeline.kernels_at_once("quick", None) == 1


@pytest.mark.parametrize("jobs", [None, 3])
def test_large_students_take_turns_beside_others_unless_told_otherwise(root, monkeypatch, jobs):
    """Each holds its student in memory; one that has no other beside it has all cores."""
    monkeypatch.setattr(pipeline, "machine", lambda: {"cores": 3, "gpu": None})
    students = {"00_a": "embedded", "01_b": "smollm2-135m", "02_c": "a/folder"}
    meets = {"00_a": "01_b", "01_b": "02_c" if jobs else "over", "02_c": "00_a"}
    show = "\nimport os\nprint(os.environ['NEGDISTILL_THREADS'])"
    for name, student in students.items():
        given = f"student = {student!r}\nmine = {name!r}\nother = {meets[name]!r}"
        nbformat.write(notebook("One", given, MEET + show), root / "notebooks" / f"{name}.ipynb")
    lines: list[str] = []

    def say(line):
        lines.append(line)
        if line.startswith("00_a: done"):  # there is room for another one while 01_b goes on
            (root / "notebooks" / "over").touch()

    run(root, "quick", say=say, jobs=jobs)
    places = {line.split(" (")[0].split(" in ")[0]: place for place, line in enumerate(lines)}
    assert (places["01_b: done"] < places["02_c: running"]) == (jobs is None)
    assert [text(executed(root, name)) for name in students] == ["met\n1\n"] * 3
    runs(root, jobs=jobs, only=["01_b", "02_c"], force=True)
    alone = [text(executed(root, name)) for name in ("01_b", "02_c")]
    assert alone == [f"met\n{1 if jobs else 3}\n"] * 2


def test_a_warning_names_its_module_and_no_folder_of_the_machine(root):
    code = "import os, warnings\nmodule = os.path.abspath('../negdistill/loop.py')\n"
    warned = "warnings.warn_explicit('rate is odd', UserWarning, module, 3)"
    nbformat.write(notebook("One", "n = 1", code + warned), root / "notebooks" / "00_one.ipynb")
    runs(root, only=["00"])
    assert text(executed(root, "00_one")).startswith("negdistill/loop.py:3: UserWarning: rate is odd")


def test_a_terminal_shows_where_each_notebook_is(root):
    cells = "# Title", "## The work"
    path = root / "notebooks" / "00_one.ipynb"
    book = nbformat.read(path, as_version=4)
    book.cells.insert(2, new_markdown_cell(cells[1]))
    book.cells.insert(0, new_code_cell("1 / 0", metadata={"tags": ["setup", "nbval-skip"]}))
    nbformat.write(book, path)
    shown, lines = io.StringIO(), []
    run(root, "quick", ["00"], force=True, terminal=shown, say=lines.append)
    assert "00_one: cell 3 of 3, The work, 0:0" in shown.getvalue() and " of about 0:0" in shown.getvalue()
    assert [line.split(", about ")[0] for line in lines[:1]] == ["00_one: running (forced)"]
    assert executed(root, "00_one").cells[0].outputs == [], "the cell for installing is never run"


def test_the_benchmark_runs_everything_twice_and_leaves_the_clone_alone(root, monkeypatch):
    folder = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("benchmark_book", folder / "book.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))  # the clone's own package is made up
    modules = [path.relative_to(folder.parent) for path in (folder.parent / "negdistill").rglob("*.py")]
    ours = {part for path in modules for part in path.parts}
    assert not shutil.ignore_patterns(*benchmark.MADE)("", ours), "what a clone has is copied"
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    for busy in (False, True):
        took = benchmark.seconds_of(root, "quick", 2, busy, ["run"])
        assert set(took) == {"run", "all", "again", *BOTH} and took["run"] > took["00_one"] > 0
        assert took["again"] < took["run"]
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert not [child for child in psutil.Process().children() if "while True: pass" in child.cmdline()]
    with pytest.raises(ValueError, match="profile must be one that the book does not show; got 'book'"):
        benchmark.seconds_of(root, "book", 2, False)


# --- smoke --------------------------------------------------------------------------------------------


def test_smoke_writes_outputs_back_and_nothing_else(root):
    path = root / "notebooks" / "00_one.ipynb"
    before = nbformat.read(path, as_version=4)
    assert runs(root, "smoke", only=["00"]) == ONE
    after = nbformat.read(path, as_version=4)
    assert text(after) == "wrote 2\n" and [cell.get("execution_count") for cell in after.cells] == [
        None,
        1,
        2,
    ]
    assert (
        set(after.metadata) == {"kernelspec", "language_info"}
        and "version" not in after.metadata.language_info
    )
    for old, new in zip(before.cells, after.cells, strict=True):
        assert (old.source, old.metadata, old.id) == (new.source, new.metadata, new.id)

    bytes_before = path.read_bytes()
    assert runs(root, "smoke", only=["00"]) == []
    assert runs(root, "smoke", only=["00"], overrides={"n": 3}) == ONE
    assert path.read_bytes() == bytes_before


def test_smoke_runs_on_one_thread_without_gpu(root, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    names = "('OMP_NUM_THREADS', 'CUDA_VISIBLE_DEVICES')"
    code = f"import os\nprint([os.environ[name] for name in {names}], os.getcwd())"
    nbformat.write(notebook("One", "n = 1", code), root / "notebooks" / "00_one.ipynb")
    runs(root, "smoke", only=["00"])
    assert text(executed(root, "00_one", "smoke")) == f"['1', ''] {root / 'notebooks'}\n"
    assert os.environ["OMP_NUM_THREADS"] == "7"


# --- failure ------------------------------------------------------------------------------------------


def test_a_failing_notebook_keeps_its_banner_and_stops_the_run(root):
    edit(root / "notebooks" / "00_one.ipynb", 2, "print('so far')\nassert n == 2, 'because'")
    with pytest.raises(
        Failure, match=r"(?s)00_one failed.*assert n == 2.*AssertionError: because.*failed.ipynb"
    ):
        runs(root)
    folder = root / "_build" / "quick" / "executed"
    assert sorted(path.name for path in folder.iterdir()) == [
        "00_one.failed.ipynb",
        "00_one.ipynb",
        "01_two.ipynb",
    ]
    failed = nbformat.read(folder / "00_one.failed.ipynb", as_version=4)
    assert "An Exception was encountered" in failed.cells[0].source and "color:red" in failed.cells[0].source
    assert states(root)["00_one"] == "notebook changed, package changed"

    edit(root / "notebooks" / "00_one.ipynb", 2, FIRST)
    assert runs(root) == []  # the result of before the edit is still there
    assert runs(root, only=["00"], force=True) == ONE
    assert sorted(path.name for path in folder.iterdir()) == ["00_one.ipynb", "01_two.ipynb"]


def test_a_dying_kernel_is_a_failure(root):
    edit(root / "notebooks" / "00_one.ipynb", 2, "import os\nos._exit(1)")
    with pytest.raises(Failure, match=r"(?s)00_one failed.*Kernel died.*failed.ipynb"):
        runs(root)


def command(root: Path, *arguments: str, **options) -> subprocess.Popen:
    line = [sys.executable, "-W", "error", "-P", "-m", "negdistill", *arguments]
    return subprocess.Popen(line, cwd=root, stdout=subprocess.PIPE, text=True, **options)


def test_killed_at_any_moment_and_run_again(root):
    slow = "import time\nfrom pathlib import Path\ngo = Path('go')\nPath('began').touch()"
    wait = "\nwhile not go.exists():\n    time.sleep(0.05)\n"
    edit(root / "notebooks" / "01_two.ipynb", 2, slow + wait + SECOND)
    edit(root / "notebooks" / "00_one.ipynb", 2, FIRST + "\nprint('new')")
    process = command(root, "run", "--profile", "quick")
    wait_for(root / "notebooks" / "began", process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    assert states(root) == {"00_one": "", "01_two": "00_one changed, notebook changed"}
    assert text(executed(root, "01_two")) == "read 5\n"  # the result of before, not half of the new one
    (root / "notebooks" / "go").touch()
    assert runs(root) == ["01_two"]
    assert states(root) == {"00_one": "", "01_two": ""}
    assert not list((root / "_build" / "quick" / "executed").glob(".*"))


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.05)


def test_an_interrupt_ends_with_one_line_and_no_kernel(root):
    """Kind: a traceback after Ctrl-C, and what kernels say on stderr; as in BrianPugh/cyclopts#447,
    pharmpy/pharmpy#4723.
    """
    edit(root / "notebooks" / "01_two.ipynb", 2, "import os, time\nfrom pathlib import Path\n"
         "Path('new').write_text(str(os.getpid()))\nos.rename('new', 'began')\ntime.sleep(600)")  # fmt: skip
    process = command(root, "run", "--jobs", "2", stderr=subprocess.PIPE)
    wait_for(root / "notebooks" / "began", process)
    kernel = psutil.Process(int((root / "notebooks" / "began").read_text()))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "interrupted: what was finished is kept; type the same command again to go on\n"
    assert not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE
    assert states(root) == {"00_one": "", "01_two": "notebook changed, package changed"}
    assert not list((root / "_build" / "quick" / "executed").glob(".*"))


def test_who_comes_second_waits_and_takes_the_result(root):
    """Kind: two runs in one folder; as in broadinstitute/CellBender#241."""
    slow = "from pathlib import Path\nimport time\nPath('began').touch()\n"
    wait = "while not Path('go').exists():\n    time.sleep(0.05)\n"
    edit(root / "notebooks" / "01_two.ipynb", 2, slow + wait + SECOND)
    first = command(root, "run")
    wait_for(root / "notebooks" / "began", first)
    second = command(root, "run")
    said = second.stdout.readline()
    assert said.startswith(f"profile quick is being made by process {first.pid} since ")
    assert said.endswith("; waiting for it to end\n")
    (root / "notebooks" / "go").touch()
    assert "01_two: done in" in first.communicate(timeout=60)[0]
    assert second.communicate(timeout=60)[0] == "00_one: up to date\n01_two: up to date\n"
    assert first.returncode == second.returncode == 0


def test_the_command_line_says_what_happened(root):
    edit(root / "notebooks" / "01_two.ipynb", 2, "1 / 0")
    process = command(root, "run", "--only", "01", stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    first, running, last = out.splitlines()
    assert (first, last) == ("00_one: up to date", "01_two: failed")
    assert re.fullmatch(r"01_two: running \(notebook changed, package changed\), about \d+ s", running)
    assert "error: 01_two failed" in err and "ZeroDivisionError: division by zero" in err
    assert "bookmaking/pipeline.py" not in err  # the notebook's traceback, not ours

    process = command(root, "run", "-p", "m=1", stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err == "error: parameter of -p must be one of 'n', 'run_dir', 'seed'; got 'm'\n"

    process = command(root, "status", stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert err == ""
    lines = [line.split() for line in out.splitlines()]
    assert process.returncode == 0 and lines[0] == ["quick"] and lines[3] == ["smoke"]
    assert lines[1][0] == "00_one" and lines[1][2:] == ["s", "up", "to", "date"]
    assert lines[4:] == [["00_one", "never", "run"], ["01_two", "never", "run"]]
