"""Checkpoint: what training changes, whole or in shards, and the file that keeps it.

    one process   the model is trained                        file: weight, step, exp_avg, exp_avg_sq of every
    DDP           the same, gradients are averaged                  trained parameter, whole, and the history
    FSDP2         a copy in shards is trained (DTensors)
                  and the model is given what it learnt

The file is the same in all three, so a run may go on with other processes than it began with.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import fsdp2_prepare_model
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from negdistill.checks import json_number
from negdistill.runs.digests import digest_json, digest_weights
from negdistill.runs.files import atomic_path
from negdistill.runs.folder import require_same

CHECKPOINT = "checkpoint.safetensors"


def wrap(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """What computes in the model's place: itself, DDP around it, or a copy in shards.

    There is no way back from shards to a model, hence the copy. A model on the CPU stays there, and its copy
    moves to the GPUs layer by layer.
    """
    if accelerator.is_fsdp2:
        return fsdp2_prepare_model(accelerator, copy.deepcopy(model))
    if accelerator.num_processes > 1:
        model.to(accelerator.device)
    return accelerator.prepare_model(model, device_placement=False)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """What has requires_grad, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor, from the shards of all processes, each of which has to call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def hand_back(parameters: dict[str, nn.Parameter], model: nn.Module) -> None:
    """Give the model the weights of its copy in shards; nothing happens where it was trained itself."""
    for name, own in trainable(model).items():
        if own is not parameters[name]:
            own.copy_(full_tensor(parameters[name]))


def adamw(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that takes `weight_decay` off matrices and nothing off vectors."""
    parameters = list(parameters)
    matrices, vectors = ([p for p in parameters if (p.ndim > 1) is many] for many in (True, False))
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    return torch.optim.AdamW(groups, lr=lr, fused=fused)


@dataclass(slots=True)
class TrainState:
    """What training changes.

    key   of the run; a file of another run is refused
    file  of the checkpoint; None where none is kept
    memory  float64 (rows,), what an objective left of each row; None where none leaves anything
    """

    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    key: dict[str, object]
    file: Path | None
    history: list[dict[str, float]] = field(default_factory=list)
    memory: Tensor | None = None

    def save(self, main: bool) -> None:
        """Put it together in every process; the main one writes all of it or, when killed, none of it."""
        columns = list(dict.fromkeys(name for row in self.history for name in row))
        rows = [[row.get(name, math.nan) for name in columns] for row in self.history]
        tensors = {"history": torch.tensor(rows, dtype=torch.float64)}
        tensors |= {} if self.memory is None else {"memory": self.memory}
        for name, parameter in self.parameters.items():
            for part, value in {"weight": parameter.detach(), **self.optimizer.state[parameter]}.items():
                tensors[f"{part}/{name}"] = full_tensor(value).contiguous()
        if main:
            metadata = {"key": json.dumps(self.key, default=json_number), "columns": json.dumps(columns)}
            metadata["digest"] = _digest(metadata, tensors)
            with atomic_path(self.file) as path:
                save_file(tensors, path, metadata=metadata)

    def load(self) -> None:
        """Continue from the file; ValueError if it belongs to another run, or is damaged."""
        metadata, tensors = _read(self.file)
        require_same(self.file, json.loads(metadata["key"]), self.key)
        names = json.loads(metadata["columns"])
        for row in tensors.pop("history").tolist():
            self.history.append({n: v for n, v in zip(names, row, strict=True) if not math.isnan(v)})
        self.memory = tensors.pop("memory", None)
        for place, value in tensors.items():
            part, name = place.split("/", 1)
            parameter = self.parameters[name]
            if part == "weight":
                parameter.data.copy_(_like(parameter, value))
            else:
                self.optimizer.state[parameter][part] = _like(parameter, value)


def _read(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors in one order, as shards need it; ValueError where any byte has changed."""
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {place: stored.get_tensor(place) for place in sorted(stored.keys())}
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}); remove it to train from the start") from error
    if metadata.get("digest") != _digest(metadata, tensors):
        raise ValueError(f"{file} is damaged (its digest differs); remove it to train from the start")
    return metadata, tensors


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    described = {name: value for name, value in metadata.items() if name != "digest"}
    return digest_json([described, digest_weights(sorted(tensors.items()))])


def _like(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """The value where the parameter is, in shards if it is."""
    value = value.to(parameter.device)
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:  # the optimiser's step is a number
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
