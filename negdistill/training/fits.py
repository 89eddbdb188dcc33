"""Fits: what one row of the methods table leaves on disk, and how it is read back.

folder/adapter/       a PEFT folder, or one of `save_nat` for NAT rows; absent for Few-shot
folder/history.csv    one row per step of its own training
folder/trajectory.jsonl  one row per question and followed epoch, if an on_epoch was given
folder/fit.json       counts and totals, written last
folder/manifest.json  what it was made from, and the sha256 of all of these; finished once it names fit.json
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from torch import nn

from negdistill.checks import check_path, check_type, json_number
from negdistill.runs.folder import MANIFEST, Manifest, RunFolder, require_same
from negdistill.runs.processes import processes
from negdistill.training.checkpoint import CHECKPOINT
from negdistill.training.dataset import TrainingSet
from negdistill.training.settings import Settings
from negdistill.training.students import check_student

if TYPE_CHECKING:
    from negdistill.training.students import Student

ADAPTER, FIT, HISTORY, TRAJECTORY, POINTS = "adapter", "fit.json", "history.csv", "trajectory.jsonl", "points"
OnEpoch = Callable[["Student", int], pd.DataFrame | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """A fitted row, as it lies in `folder`.

    history     of its own training, as `train` returns it; without rows where it has none
    trainable_parameters  of its own training; of Merge, what it merges
    steps, tokens, seconds                     of its own training
    total_steps, total_tokens, total_seconds   with all that it uses; seconds with the pass of its teachers
    preset      how text became tokens, a name in `prompts.PRESETS`
    prefix      text before every prompt (Few-shot), otherwise ""
    trajectory  what on_epoch returned, with the epoch and `columns()` of then; None without on_epoch
    """

    method: str
    seed: int
    lr: float
    folder: Path
    history: pd.DataFrame
    trainable_parameters: int
    steps: int
    tokens: int
    seconds: float
    total_steps: int
    total_tokens: int
    total_seconds: float
    preset: str
    prefix: str
    trajectory: pd.DataFrame | None

    def columns(self) -> dict[str, object]:
        """For tables: method, seed, lr, trainable_parameters, and the totals as steps, tokens, seconds."""
        own = {name: getattr(self, name) for name in ("method", "seed", "lr", "trainable_parameters")}
        return own | {name: getattr(self, f"total_{name}") for name in ("steps", "tokens", "seconds")}


def check_fit(parameter: str, one: object) -> None:
    """TypeError unless it is a Fit."""
    check_type(parameter, one, Fit, "a Fit, as fit() returns it")


def check_inputs(
    student: object, sets: Mapping[str, object], config: object, out_dir: object, used: Mapping[str, object]
) -> None:
    """TypeError unless a training was given what it takes: a Student, training sets, Settings, a folder, and
    of what it uses, by the parameter's name, a Fit or None."""
    check_student(student)
    for name, data in sets.items():
        check_type(name, data, TrainingSet, "a TrainingSet")
    check_type("config", config, Settings, "Settings, as settings() makes them")
    check_path("out_dir", out_dir)
    for name, one in used.items():
        if one is not None:
            check_fit(name, one)


def finished(folder: Path, wanted: Manifest | None = None) -> bool:
    """Whether a folder holds a finished fit; ValueError where it is not the one of `wanted`."""
    if not (folder / MANIFEST).is_file():
        return False
    there = RunFolder.open(folder).manifest
    if wanted is not None:
        require_same(folder, *({**one.inputs, **one.parameters} for one in (there, wanted)))
    return FIT in there.artifacts


def load_fit(folder: str | Path) -> Fit:
    """A finished fit from its folder.

    FileNotFoundError where there is none, ValueError where it is damaged, and for the folder of a ranker.
    """
    run = RunFolder.open(folder)
    row = json.loads(run.path(FIT).read_text(encoding="utf-8"))
    if "method" not in row:
        raise ValueError(f"{folder} holds a ranker and no fit; name the folder of a fitted method")
    if any(name.startswith(f"{ADAPTER}/") for name in run.manifest.artifacts):
        run.path(ADAPTER)
    history = pd.read_csv(run.path(HISTORY))
    trajectory = _read_rows(run.path(TRAJECTORY)) if TRAJECTORY in run.manifest.artifacts else None
    return Fit(folder=Path(folder), history=history, trajectory=trajectory, **row)


def follower(
    on_epoch: OnEpoch, student: Student, run: RunFolder
) -> Callable[[int, nn.Module], dict[str, float]]:
    """What `train` calls: the frame of the epoch goes to disk, the accuracy of each split to the history."""

    def follow(epoch: int, model: nn.Module) -> dict[str, float]:
        frame = on_epoch(student._replace(model=model), epoch)
        if frame is None:
            return {}
        check_type("what on_epoch returns", frame, pd.DataFrame, "a DataFrame, or None")
        if lost := {"problem_id", "split", "correct"} - set(frame.columns):
            raise ValueError(
                "what on_epoch returns must have the columns problem_id, split and correct; it lacks "
                f"{min(lost)}"
            )
        if processes().is_main_process:
            with run.create(f"{POINTS}/{epoch:06d}.jsonl") as path:
                frame.to_json(path, orient="records", lines=True, double_precision=15)
        return {f"accuracy_{split}": float(part.mean()) for split, part in frame.groupby("split")["correct"]}

    return follow


def write_fit(
    run: RunFolder,
    method: str,
    config: Settings,
    used: list[Fit],
    history: pd.DataFrame,
    count: int,
    prefix: str,
    seconds: float = 0.0,
) -> None:
    """Write everything but the adapter, fit.json last; what was there to resume from goes.

    used      fits that this one uses
    seconds   that its teachers took, before its own training
    history   as `train` returns it; without rows where nothing was trained
    """
    last = history.iloc[-1] if len(history) else {"step": 0, "tokens": 0, "seconds": 0.0}
    own = {"steps": int(last["step"]), "tokens": int(last["tokens"]), "seconds": float(last["seconds"])}
    before = {name: sum(getattr(one, f"total_{name}") for one in used) for name in own}
    before["seconds"] += seconds
    total = {f"total_{name}": before[name] + value for name, value in own.items()}
    text = {"preset": config.preset, "prefix": prefix}
    same = {
        "method": method,
        "seed": config.train.seed,
        "lr": config.train.lr,
        "trainable_parameters": count,
    }
    with run.create(HISTORY) as path:
        history.to_csv(path, index=False)
    points = [run.path(name) for name in sorted(run.manifest.artifacts) if name.startswith(f"{POINTS}/")]
    if points:
        with run.create(TRAJECTORY) as path:
            at = history.groupby("epoch")[["step", "tokens", "seconds"]].last()
            at = (at.set_axis(list(own), axis=1) + pd.Series(before)).astype({"steps": int, "tokens": int})
            at = at.to_dict("index")
            frames = [_read_rows(p).assign(**same, epoch=int(p.stem), **at[int(p.stem)]) for p in points]
            pd.concat(frames).to_json(path, orient="records", lines=True, double_precision=15)
    with run.create(FIT) as path:
        path.write_text(
            json.dumps(same | own | total | text, indent=1, default=json_number), encoding="utf-8"
        )
    for done in (CHECKPOINT, POINTS):
        run.discard(done)


def _read_rows(path: Path) -> pd.DataFrame:
    return pd.read_json(path, orient="records", lines=True, dtype=False, precise_float=True)
