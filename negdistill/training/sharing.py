"""Sharing: a finished fit of any row, copied so that others try it with this package.

    share("_runs/real/11_real_student/fits/nat-0123456789ab", "nat", "HuggingFaceTB/SmolLM2-135M-Instruct")

PEFT writes into an adapter where its base lay, a path of the machine that trained it. The copy names the base
as others find it, and leaves out PEFT's empty card. Its weights are rounded to bfloat16, in which a real
student computes, so they take half the room. All else is the same, byte for byte, and says what it was made
from. For other libraries there is `export`, which plain LoRA rows have.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from negdistill.checks import check_path, check_type
from negdistill.method.nat import CONFIG
from negdistill.method.nat_files import FILES
from negdistill.runs.digests import digest_tree
from negdistill.runs.files import atomic_path
from negdistill.runs.folder import RunFolder
from negdistill.training.fits import finished

BASE = "base_model_name_or_path"  # as PEFT calls it
TEMPLATE = "adapter/README.md"  # of PEFT: a card to be filled in, with the path of the base


def share(folder: str | Path, out: str | Path, base: str) -> Path:
    """Copy the finished fit in `folder` to the new folder `out`, all of it or nothing; returns `out`.

    base  what others load it on: a hub id, or a name that `load_student` knows

    ValueError for a folder without a finished fit, a damaged fit, and an `out` that is there already;
    TypeError for what is no path.
    """
    for name, value in {"folder": folder, "out": out}.items():
        check_path(name, value)
    check_type("base", base, str, "a hub id, or a name that load_student knows")
    folder, out = Path(folder), Path(out)
    if not finished(folder):
        raise ValueError(f"folder must hold a finished fit; {folder} holds none; fit a row first")
    if out.exists():
        raise ValueError(f"out must be a new folder; {out} is there already; choose another, or remove it")
    run = RunFolder.open(folder)
    with atomic_path(out) as part:
        parameters = {**run.manifest.parameters, "rounded": "bfloat16"}  # what starts from it is another fit
        copy = RunFolder(part, replace(run.manifest, artifacts={}, parameters=parameters))
        kept = [name for name in run.manifest.artifacts if not name.endswith(TEMPLATE)]
        for name in sorted(kept, key=lambda name: name.endswith(CONFIG)):  # that one last
            source = run.path(name)
            with copy.create(name) as path:
                if source.name == FILES[0]:
                    _write(path, json.loads(source.read_text("utf-8")) | {BASE: base})
                elif source.name == CONFIG:  # it knows the other files of its adapter by their digests
                    config = json.loads(source.read_text("utf-8"))
                    found = digest_tree((part / name).parent)
                    _write(path, config | {"files": {file: found[file] for file in config["files"]}})
                elif source.suffix == ".safetensors":
                    rounded = {key: one.to(torch.bfloat16) for key, one in load_file(source).items()}
                    save_file(rounded, path, {"format": "pt"})
                else:
                    shutil.copyfile(source, path)
    return out


def _write(path: Path, config: dict[str, object]) -> None:
    path.write_text(json.dumps(config, indent=1) + "\n", "utf-8")
