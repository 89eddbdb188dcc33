"""Damage: what changed is told from what another process removes meanwhile."""

import shutil

from negdistill.bookmaking import damage
from negdistill.runs.folder import RunFolder


def made(folder):
    run = RunFolder.start(folder, parameters={}, seed=0)
    with run.create("a.txt") as path:
        path.write_text("a")
    return run


def test_what_is_not_as_recorded_is_named(tmp_path):
    for name in ("one", "two", "three"):
        made(tmp_path / name)
    assert damage.broken_runs(tmp_path) == {}
    (tmp_path / "one" / "a.txt").write_text("b")
    (tmp_path / "two" / "a.txt").unlink()
    (tmp_path / "three" / "a.txt").unlink()
    (tmp_path / "three" / "a.txt").mkdir()
    assert damage.broken_runs(tmp_path) == {
        tmp_path / name: f"artefact {name}/a.txt changed" for name in ("one", "two", "three")
    }


def test_a_run_that_another_process_removes_is_not_damaged(tmp_path, monkeypatch):
    for name in ("one", "two"):
        made(tmp_path / name)
    digest = damage.digest_file

    def removed_meanwhile(path):
        shutil.rmtree(tmp_path / "two", ignore_errors=True)
        return digest(path)

    monkeypatch.setattr(damage, "digest_file", removed_meanwhile)
    assert damage.broken_runs(tmp_path) == {} and not (tmp_path / "two").exists()


def test_a_manifest_of_another_program_is_nobodys_to_remove(tmp_path):
    made(tmp_path)
    foreign, torn = tmp_path / "website", tmp_path / "sub" / "notes"
    for folder, text in ((foreign, '{"name": "my web app"}'), (torn, "{")):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(text)
    assert damage.broken_runs(tmp_path) == {}
    ours = [made(tmp_path / "fits" / name).folder for name in ("nat-0123456789ab", "older")]
    (ours[0] / "manifest.json").write_text("{")
    (ours[1] / "manifest.json").write_text('{"inputs": {}, "parameters": {}, "artifacts": []}')
    assert set(damage.broken_runs(tmp_path)) == set(ours)
    (tmp_path / "manifest.json").write_text("{")
    assert tmp_path in damage.broken_runs(tmp_path)
