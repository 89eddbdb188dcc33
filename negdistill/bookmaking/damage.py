"""Damage: what a notebook left, compared with what was recorded.

outputs              digest in the executed notebook's metadata
beside it            digests of the artefacts that go there: predictions and texts
run folder           its manifest, and that of every run in it: fits, samples, rankers
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from nbformat import NotebookNode

from negdistill.runs.digests import digest_file, digest_json
from negdistill.runs.folder import MANIFEST, Manifest, RunFolder

MISSING = "artefacts missing"
KEYED = re.compile(r"-[0-9a-f]{12}$")  # end of a folder of fits, samples, rankers
BESIDE = {  # artefacts that go beside the executed notebook, and how its name ends there
    "predictions.parquet": ".parquet",
    "texts.parquet": ".texts.parquet",
}
READERS = "nbval-skip"  # tag of cells that only a reader runs: the one that installs, and those of exercises


def is_run(cell: NotebookNode) -> bool:
    """Whether a cell is code that the runner executes."""
    return cell.cell_type == "code" and READERS not in cell.metadata.get("tags", [])


def digest_outputs(notebook: NotebookNode) -> str:
    """Digest of what an executed notebook shows: of code cells, injected ones too, and their outputs."""
    code = [cell for cell in notebook.cells if is_run(cell)]
    return digest_json([[cell.source, cell.execution_count, cell.outputs] for cell in code])


def present(run_dir: Path | None, made: Manifest) -> bool:
    """Whether all artefacts are there."""
    if not made.artifacts:
        return True
    return run_dir is not None and all((run_dir / name).is_file() for name in (MANIFEST, *made.artifacts))


def damage(executed: NotebookNode, target: Path, run_dir: Path | None, made: Manifest) -> list[str]:
    """What is wrong with the results of a notebook, in words.

    executed  the notebook at `target`; one from before outputs were recorded is believed
    """
    wrong = []
    if executed.metadata.negdistill.get("outputs", digest_outputs(executed)) != digest_outputs(executed):
        wrong.append("outputs changed")
    for name, ending in BESIDE.items():
        beside = target.with_suffix(ending)
        if made.artifacts.get(name) != (digest_file(beside) if beside.is_file() else None):
            wrong.append(f"{beside.name} changed")
    if not present(run_dir, made):
        return [*wrong, MISSING]
    wrong += broken_runs(run_dir).values()
    if not wrong and made.artifacts and RunFolder.open(run_dir).manifest.artifacts != made.artifacts:
        wrong.append("a later run did not finish")
    return wrong


def broken_runs(run_dir: Path | None) -> dict[Path, str]:
    """What is not as recorded in the run folder of a notebook and in each that lies in it, by that folder."""
    broken = {}
    for manifest in sorted(run_dir.rglob(MANIFEST)) if run_dir else ():
        folder, place = manifest.parent, manifest.relative_to(run_dir).parent
        if any(part[0] == "." for part in place.parts):  # being written when its process was killed
            continue
        try:
            recorded = RunFolder.open(folder).manifest.artifacts
        except FileNotFoundError:  # removed by a process that is at work there
            continue
        except ValueError:
            if place.parts and not _is_ours(manifest):
                continue
            broken[folder] = f"{(place / MANIFEST).as_posix()} damaged"
            continue
        for name, digest in recorded.items():
            if _digest(folder / name) != digest:
                broken.setdefault(folder, f"artefact {(place / name).as_posix()} changed")
    return broken


def _is_ours(manifest: Path) -> bool:
    """Whether a damaged manifest was one of a run: its folder is named after a key, or it has the fields.

    Other programs call files so, too, and their folders are nobody's to remove.
    """
    if KEYED.search(manifest.parent.name):
        return True
    try:
        row = json.loads(manifest.read_text("utf-8"))
    except ValueError:
        return False
    return isinstance(row, dict) and {"inputs", "parameters", "artifacts"} <= row.keys()


def _digest(path: Path) -> str | None:
    try:
        return digest_file(path)
    except (FileNotFoundError, IsADirectoryError):
        return None
