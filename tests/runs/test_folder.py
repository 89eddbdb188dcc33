"""Run folders: writes that are killed half way, manifests that vouch and refuse."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from negdistill.runs.digests import digest_text
from negdistill.runs.files import atomic_path, atomic_write_bytes, atomic_write_text
from negdistill.runs.folder import MANIFEST, Manifest, RunFolder, machine, versions

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# --- atomic writes ------------------------------------------------------------------------------------


def test_atomic_write_replaces_and_makes_folders(tmp_path):
    path = tmp_path / "new" / "file.txt"
    atomic_write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    atomic_write_bytes(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert names(tmp_path) == {"new", "new/file.txt"}


def test_a_block_that_raises_changes_nothing(tmp_path):
    path = tmp_path / "file.txt"
    atomic_write_text(path, "old")
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        temporary.write_text("new")
        raise KeyError
    assert path.read_text() == "old" and names(tmp_path) == {"file.txt"}


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    atomic_write_text(tmp_path / "file.txt", "old")
    with pytest.raises(FileNotFoundError, match="nothing was written for .*file.txt"):
        with atomic_path(tmp_path / "file.txt"):
            pass
    assert (tmp_path / "file.txt").read_text() == "old"


def test_folders_are_replaced_whole(tmp_path):
    for names_in in (("a", "b"), ("c",)):
        with atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            for name in names_in:
                (temporary / name).write_text(name)
    assert names(tmp_path) == {"folder", "folder/c"}
    with pytest.raises(ValueError, match="folder is a folder, where a file was to be written"):
        atomic_write_text(tmp_path / "folder", "a file")
    for nameless in ("", "..", tmp_path / ".."):
        with pytest.raises(ValueError, match="path must end with a name of its own"):
            atomic_write_text(nameless, "a file")
    assert names(tmp_path) == {"folder", "folder/c"}


def killed_while(tmp_path: Path, block: str) -> None:
    """Run a block of Python that prints `ready` and then waits; kill it there."""
    pause = "\n    print('ready', flush=True)\n    time.sleep(60)"
    names = "".join(f"from negdistill.runs.{module} import *\n" for module in ("files", "folder"))
    script = f"import time\n{names}{block}{pause}"
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.kill()
    assert process.wait() != 0
    process.stdout.close()


def test_a_killed_write_leaves_the_old_file_and_the_next_write_cleans_up(tmp_path):
    atomic_write_text(tmp_path / "file.txt", "old")
    killed_while(tmp_path, "with atomic_path('file.txt') as path:\n    path.write_text('half')")
    assert (tmp_path / "file.txt").read_text() == "old"
    assert names(tmp_path) == {"file.txt", ".part-file.txt"}
    atomic_write_text(tmp_path / "file.txt", "new")
    assert (tmp_path / "file.txt").read_text() == "new" and names(tmp_path) == {"file.txt"}


# --- manifest -----------------------------------------------------------------------------------------


def test_the_key_is_the_work_not_its_circumstances():
    work = {"inputs": {"a": ABC}, "parameters": {"n": 1, "rate": 0.5}}
    key = Manifest(**work).key
    assert Manifest(**work, seconds=3.0, machine={}, versions={}, artifacts={"x": ABC}).key == key
    assert Manifest(inputs={"a": ABC}, parameters={"n": 2, "rate": 0.5}).key != key
    assert Manifest(inputs={"b": ABC}, parameters={"n": 1, "rate": 0.5}).key != key


def test_a_manifest_survives_json():
    made = Manifest(
        inputs={"a": ABC}, parameters={"n": [1, None]}, seed=3, artifacts={"x/y": ABC}, seconds=1.5
    )
    assert Manifest.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize("row", [[], {}, {**Manifest().to_dict(), "more": 1}])
def test_a_manifest_with_other_fields_is_refused(row):
    with pytest.raises(
        ValueError, match="a manifest has the fields artifacts, inputs, machine, parameters, seco"
    ):
        Manifest.from_dict(row)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"seconds": None}, "seconds of a manifest must be a number; got None"),
        ({"seed": "1"}, "seed of a manifest must be a whole number or null; got '1'"),
        ({"artifacts": {"a": 1}}, "artifacts of a manifest must hold texts; a is 1"),
    ],
)
def test_a_damaged_manifest_is_named(more, message, tmp_path):
    """Kind: a file that was damaged by hand ends in a traceback that names no file."""
    (tmp_path / "manifest.json").write_text(json.dumps({**Manifest().to_dict(), **more}), "utf-8")
    with pytest.raises(ValueError, match=f"manifest.json is damaged \\({message}"):
        RunFolder.open(tmp_path)


def test_a_manifest_with_other_kinds_is_refused():
    with pytest.raises(ValueError, match=r"inputs of a manifest must be a JSON object; got \[\]"):
        Manifest.from_dict({**Manifest().to_dict(), "inputs": []})


def test_machine_is_a_class_not_a_name():
    assert set(machine()) == {"cpu", "cores", "gpu"}
    assert machine()["cores"] >= 1 and platform.node() not in json.dumps(machine())


def test_versions_cover_what_the_package_requires():
    import torch

    found = versions()
    # a wheel for one kind of GPU may say so in the one place and not in the other
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"negdistill", "numpy", "peft", "transformers"} <= set(found) and "pytest" not in found


# --- run folder ---------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    run = RunFolder.start(tmp_path / "run", parameters={"epochs": 4}, inputs={"data": ABC}, seed=7)
    with run.create("table.csv") as path:
        path.write_text("abc")
    with run.create("adapter") as path:
        path.mkdir()
        (path / "weights").write_text("abc")
        (path / "config").write_text("{}")
    return run


def test_a_run_is_read_back_as_it_was_written(run):
    again = RunFolder.open(run.folder)
    assert again.manifest == run.manifest
    assert again.path("table.csv").read_text() == "abc"
    assert (again.path("adapter") / "config").read_text() == "{}"
    assert again.path("adapter/weights").read_text() == "abc"
    made = again.manifest
    assert (made.parameters, made.inputs, made.seed) == ({"epochs": 4}, {"data": ABC}, 7)
    assert made.artifacts == {"table.csv": ABC, "adapter/weights": ABC, "adapter/config": digest_text("{}")}
    assert 0 <= made.seconds < 60


def test_an_artefact_can_be_made_anew(run):
    with run.create("adapter") as path:
        path.mkdir()
        (path / "weights").write_text("new")
    assert set(RunFolder.open(run.folder).manifest.artifacts) == {"table.csv", "adapter/weights"}
    assert names(run.path("adapter")) == {"weights"}


def damage_file(folder):
    (folder / "table.csv").write_text("abd")


def drop_file(folder):
    (folder / "table.csv").unlink()


def add_file(folder):
    (folder / "adapter" / "more").write_text("")


def drop_from_folder(folder):
    (folder / "adapter" / "config").unlink()


@pytest.mark.parametrize(
    ("damage", "name", "where"),
    [
        (damage_file, "table.csv", "table.csv"),
        (drop_file, "table.csv", "table.csv"),
        (add_file, "adapter", "adapter/more"),
        (drop_from_folder, "adapter", "adapter/config"),
    ],
)
def test_what_is_not_as_recorded_is_refused(run, damage, name, where):
    damage(run.folder)
    with pytest.raises(
        ValueError,
        match=f"{where} is not as manifest.json recorded it; remove .*run and run again what made it",
    ):
        RunFolder.open(run.folder).path(name)


def test_what_was_never_recorded_is_refused(run):
    (run.folder / "stray").write_text("abc")
    for name in ("stray", "adap", "table", MANIFEST):
        with pytest.raises(
            ValueError, match="name must be an artefact of .*run, which holds table.csv, adapter"
        ):
            run.path(name)


def test_a_new_start_trusts_nothing_of_the_last(run):
    again = RunFolder.start(run.folder)
    assert (run.folder / "table.csv").exists()
    with pytest.raises(ValueError, match="which holds nothing; got 'table.csv'"):
        again.path("table.csv")


def test_a_killed_artefact_is_not_trusted(tmp_path):
    RunFolder.start(tmp_path / "run")
    half = "\n    path.mkdir()\n    (path / 'weights').write_text('half')"
    killed_while(tmp_path, f"with RunFolder.open('run').create('adapter') as path:{half}")
    run = RunFolder.open(tmp_path / "run")
    assert not run.manifest.artifacts and not (run.folder / "adapter").exists()


def test_no_run_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run in .*/none: run what makes it first"):
        RunFolder.open(tmp_path / "none")


@pytest.mark.parametrize("text", ["{", "[]", "{}", "\x00"])
def test_a_damaged_manifest_says_what_to_do(run, text):
    (run.folder / MANIFEST).write_text(text)
    with pytest.raises(ValueError, match=r"manifest.json is damaged \(.*\); remove .*run and run again"):
        RunFolder.open(run.folder)


@pytest.mark.parametrize("name", ["", "/tmp/x", "../x", "a/../b", ".hidden", MANIFEST])
def test_names_stay_inside_the_folder(run, name):
    with pytest.raises(
        ValueError, match="name must be a relative path, not hidden and not manifest.json; got"
    ):
        with run.create(name):
            pass


def test_parameters_must_fit_json(tmp_path):
    with pytest.raises(ValueError, match="must be of JSON's types"):
        RunFolder.start(tmp_path / "run", parameters={"model": object()})
    assert not (tmp_path / "run").exists()
