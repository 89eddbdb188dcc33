"""Training: one loop for every objective.

    examples -> tokens -> epochs of length-bucketed batches -> steps
    step:  gradient of  sum of token losses / number of targets,  over all rows of all micro-batches and processes
           clip, AdamW, one row of history
    every `checkpoint_every` steps: one file, replaced atomically

Whatever the model has with requires_grad is trained: all of it, a LoRA, or the unit of NAT. Which batch comes at
which step and every random draw of a step follow from (seed, step) alone, so a run that was killed continues
to the same weights, bit for bit on one CPU thread, and an evaluation in between changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm

from negdistill.batching import Encoded, Example, batches, collate, encode, pad_id
from negdistill.losses import OBJECTIVES, Objective
from negdistill.records import check_choice

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCHEDULES = ("linear", "cosine")
CHECKPOINT = "checkpoint.safetensors"
COLUMNS = ("step", "epoch", "loss", "lr", "grad_norm", "tokens", "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train. Exactly one of epochs, max_steps and max_tokens says when to stop.

    epochs        passes over the data
    max_steps     optimiser steps
    max_tokens    tokens seen, prompt and completion without padding; ends with the step that reaches it
    batch_size    rows of a micro-batch, over all processes together
    gradient_accumulation_steps  micro-batches of one step
    lr            peak learning rate of AdamW
    schedule      "linear" or "cosine": way from the peak down to 0 at the last step
    warmup_steps  steps of linear rise to the peak
    weight_decay  decoupled decay of matrices, per step in units of the learning rate; vectors have none
    max_grad_norm largest 2-norm of the whole gradient
    seed          of batch order and dropout
    checkpoint_every  steps between checkpoints; None writes one at the end only
    progress      whether to draw a progress bar with loss and tokens/s on stderr
    """

    epochs: int | None = None
    max_steps: int | None = None
    max_tokens: int | None = None
    batch_size: int = 32
    gradient_accumulation_steps: int = 1
    lr: float = 3e-4
    schedule: str = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    checkpoint_every: int | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        stops = {name: getattr(self, name) for name in ("epochs", "max_steps", "max_tokens")}
        given = [name for name, value in stops.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"set exactly one of epochs, max_steps and max_tokens; got {' and '.join(given) or 'none'}"
            )
        check_choice("schedule", self.schedule, SCHEDULES)
        least = {
            **{name: 1 for name in (*given, "batch_size", "gradient_accumulation_steps")},
            "warmup_steps": 0,
        }
        if self.checkpoint_every is not None:
            least["checkpoint_every"] = 1
        for name, bound in {**least, "weight_decay": 0, "seed": 0}.items():
            if not getattr(self, name) >= bound:
                raise ValueError(f"{name} must be at least {bound}; got {getattr(self, name)}")
        for name in ("lr", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0; got {getattr(self, name)}")
        if self.max_steps is not None:
            _check_warmup(self, self.max_steps)


def _check_warmup(config: TrainConfig, total: int) -> None:
    if config.warmup_steps >= total:
        raise ValueError(
            f"warmup_steps must be below the number of steps, {total}; got {config.warmup_steps}"
        )


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Learning rate of step 0 ... total - 1: a rise over the warm-up, then linear or cosine down towards 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    left = (total - step) / (total - config.warmup_steps)
    return config.lr * (left if config.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))


OnEpoch = Callable[[int, nn.Module], Mapping[str, float] | None]
Step = tuple[
    int, bool, list[list[int]]
]  # epoch from 0, whether it is its last step, rows of each micro-batch


def _steps(encoded: Sequence[Encoded], config: TrainConfig) -> Iterator[Step]:
    """The steps of the run, without end: micro-batches are accumulated within an epoch only."""
    size = config.gradient_accumulation_steps
    for epoch in count():
        micro = batches(encoded, config.batch_size, config.seed, epoch)
        for start in range(0, len(micro), size):
            yield epoch, start + size >= len(micro), micro[start : start + size]


def _plan(encoded: Sequence[Encoded], config: TrainConfig) -> list[Step]:
    if config.max_steps is not None:
        return list(islice(_steps(encoded, config), config.max_steps))
    plan: list[Step] = []
    tokens = 0
    for step in _steps(encoded, config):
        if config.epochs is not None and step[0] >= config.epochs:
            break
        plan.append(step)
        tokens += sum(encoded[row].length for rows in step[2] for row in rows)
        if config.max_tokens is not None and tokens >= config.max_tokens:
            break
    return plan


@dataclass(frozen=True, slots=True)
class _Data:
    """What the steps read: rows, steps, the id to pad with, and where the checkpoint goes."""

    encoded: Sequence[Encoded]
    plan: list[Step]
    pad: int
    path: Path | None


@dataclass(slots=True)
class _Run:
    """What changes while training, and what a checkpoint therefore holds."""

    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    key: dict[str, object]
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def step(self) -> int:
        return len(self.history)

    def save(self, path: Path) -> None:
        """Write weights, optimiser state and history to one file, complete or not at all."""
        columns = list(dict.fromkeys(name for row in self.history for name in row))
        rows = [[row.get(name, math.nan) for name in columns] for row in self.history]
        tensors = {"history": torch.tensor(rows, dtype=torch.float64)}
        for name, parameter in self.parameters.items():
            tensors[f"weight/{name}"] = parameter.detach().contiguous()
            for part, value in self.optimizer.state[parameter].items():
                tensors[f"{part}/{name}"] = value.contiguous()
        metadata = {"key": json.dumps(self.key), "columns": json.dumps(columns)}
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, metadata=metadata)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; ValueError if it belongs to another run."""
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            key = json.loads(metadata.get("key", "{}"))
            differs = [name for name in self.key if key.get(name) != self.key[name]]
            if differs:
                raise ValueError(
                    f"out_dir holds the checkpoint of another run, {path}: it differs in {', '.join(differs)}; "
                    "take another folder, or delete the file to start afresh"
                )
            columns = json.loads(metadata["columns"])
            for row in file.get_tensor("history").tolist():
                self.history.append({n: v for n, v in zip(columns, row, strict=True) if not math.isnan(v)})
            parts = {name.split("/", 1)[0] for name in file.keys()} - {"weight", "history"}  # noqa: SIM118
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(file.get_tensor(f"weight/{name}"))
                    for part in parts:
                        value = file.get_tensor(f"{part}/{name}")
                        self.optimizer.state[parameter][part] = value.to(parameter.device)


def _key(
    model: nn.Module, encoded: Sequence[Encoded], config: TrainConfig, objective: str
) -> dict[str, object]:
    """What a run is, part by part; a checkpoint with another key is refused.

    Frozen weights count through 64 values of each tensor, which tells two bases or two adapters apart.
    """
    data = hashlib.sha256()
    for row in encoded:
        data.update(f"{row.id} {row.prompt} {row.length} {row.positive} {row.question} ".encode())
        data.update(row.input_ids.tobytes() + row.loss_mask.tobytes())
    frozen = hashlib.sha256()
    for name, parameter in model.named_parameters():
        frozen.update(f"{name} {tuple(parameter.shape)} {parameter.requires_grad} ".encode())
        if not parameter.requires_grad:
            values = parameter.detach().flatten()
            frozen.update(values[:: max(1, len(values) // 64)].double().cpu().numpy().tobytes())
    settings = {
        name: value for name, value in asdict(config).items() if name not in ("progress", "checkpoint_every")
    }
    return {"data": data.hexdigest(), "model": frozen.hexdigest(), "objective": objective, **settings}


def _start(model: nn.Module, config: TrainConfig, key: dict[str, object]) -> _Run:
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("model must have a parameter to train; every requires_grad is False")
    groups = [
        {"params": [p for p in parameters.values() if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters.values() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters.values())
    return _Run(parameters, torch.optim.AdamW(groups, lr=config.lr, fused=fused), key)


def train(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    config: TrainConfig,
    objective: str = "likelihood",
    out_dir: str | Path | None = None,
    preset: str = "fixed",
    max_length: int | None = None,
    on_epoch: OnEpoch | None = None,
) -> pd.DataFrame:
    """Train in place whatever of `model` has requires_grad; the model is left in eval mode.

    objective   name in `losses.OBJECTIVES`
    out_dir     folder of the checkpoint; where it holds one of the same run, training continues from there
    preset      name in `batching.PRESETS`, how text becomes tokens
    max_length  context in tokens, by default the model's own
    on_epoch    called as on_epoch(epochs done, model in eval mode) after each epoch and at the end, in every
                process; the numbers it returns become columns of the history and live in the checkpoint, so
                that a resumed run neither repeats nor loses them

    Returns one row per step: step and epoch (from 1), loss (mean over its targets before the step), lr, grad_norm
    (before clipping), tokens (seen so far, without padding), seconds (so far, without on_epoch).
    Computes in bfloat16 autocast on CUDA and in the model's own type elsewhere.

    ValueError for no examples, nothing to train, a bad configuration, a question longer than the context, or a
    checkpoint of another run. FloatingPointError at a loss or gradient that is not finite, before it reaches the
    weights; it names step, example ids and the last checkpoint.
    """
    check_choice("objective", objective, OBJECTIVES)
    if config.checkpoint_every is not None and out_dir is None:
        raise ValueError("checkpoint_every needs out_dir, the folder of the checkpoint; got out_dir=None")
    if not examples:
        raise ValueError("examples must not be empty; there is nothing to learn from")
    encoded = encode(examples, tokenizer, max_length or model.config.max_position_embeddings, preset)
    if not encoded:
        raise ValueError("examples must hold one that fits the context; raise max_length or shorten them")
    plan = _plan(encoded, config)
    _check_warmup(config, len(plan))
    accelerator = Accelerator(
        mixed_precision="no"
    )  # bfloat16 comes from _gradient, without a wrapped forward
    if accelerator.num_processes > 1:
        model.to(accelerator.device)
    run = _start(model, config, _key(model, encoded, config, objective))
    path = None if out_dir is None else Path(out_dir) / CHECKPOINT
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            run.load(path)
    data = _Data(encoded, plan, pad_id(tokenizer), path)
    device = next(iter(run.parameters.values())).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        _loop(model, run, data, config, OBJECTIVES[objective], accelerator, on_epoch)
    model.eval()
    extra = dict.fromkeys(name for row in run.history for name in row if name not in COLUMNS)
    return pd.DataFrame(run.history, columns=[*COLUMNS, *extra]).astype(
        {"step": int, "epoch": int, "tokens": int}
    )


def _loop(
    model: nn.Module,
    run: _Run,
    data: _Data,
    config: TrainConfig,
    objective: Objective,
    accelerator: Accelerator,
    on_epoch: OnEpoch | None,
) -> None:
    """Take the steps of the plan that the history does not have yet."""
    wrapped = accelerator.prepare_model(model.train(), device_placement=False)
    total = len(data.plan)
    tokens = int(run.history[-1]["tokens"]) if run.history else 0
    started = time.perf_counter() - (run.history[-1]["seconds"] if run.history else 0.0)
    quiet = not (config.progress and accelerator.is_main_process)
    with tqdm(total=total, initial=run.step, unit="step", disable=quiet) as bar:
        for step in range(run.step, total):
            epoch, ends, micro = data.plan[step]
            rate = learning_rate(step, total, config)
            for group in run.optimizer.param_groups:
                group["lr"] = rate
            seed = np.random.SeedSequence([config.seed, step, accelerator.process_index]).generate_state(
                1, np.uint64
            )
            torch.manual_seed(int(seed[0]))
            loss, norm = _gradient(wrapped, run, data, micro, config, objective, accelerator)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise FloatingPointError(_not_finite(loss, norm, step + 1, micro, data))
            run.optimizer.step()
            tokens += sum(data.encoded[i].length for rows in micro for i in rows)
            seconds = time.perf_counter() - started
            row = dict(zip(COLUMNS, (step + 1, epoch + 1, loss, rate, norm, tokens, seconds), strict=True))
            if on_epoch is not None and (ends or step + 1 == total):
                row |= _evaluate(model, on_epoch, epoch + 1)
                started = time.perf_counter() - seconds
            run.history.append(row)
            due = config.checkpoint_every is not None and (step + 1) % config.checkpoint_every == 0
            if data.path is not None and (due or step + 1 == total):
                if accelerator.is_main_process:
                    run.save(data.path)
                accelerator.wait_for_everyone()
            bar.set_postfix_str(f"loss {loss:.3f}, {tokens / seconds:,.0f} tokens/s", refresh=False)
            bar.update()


def _gradient(
    wrapped: nn.Module,
    run: _Run,
    data: _Data,
    micro: list[list[int]],
    config: TrainConfig,
    objective: Objective,
    accelerator: Accelerator,
) -> tuple[float, float]:
    """Leave the clipped gradient of one step in the parameters; mean loss over its targets, and norm before clipping.

    Every process knows the whole plan, so the number of targets to divide by needs no communication. A process
    whose share of a small batch is empty takes a row without targets, because all must take part in the backward.
    """
    run.optimizer.zero_grad()
    world, rank = accelerator.num_processes, accelerator.process_index
    device = next(iter(run.parameters.values())).device
    targets = max(1, sum(int(data.encoded[i].loss_mask.sum()) for rows in micro for i in rows))
    summed = torch.zeros((), device=device)
    for number, rows in enumerate(micro, 1):
        share = rows[rank::world]
        batch = collate([data.encoded[i] for i in share or rows[:1]], data.pad)
        if not share:
            batch["loss_mask"].zero_()
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        last = number == len(micro)
        with nullcontext() if last else accelerator.no_sync(wrapped):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = objective(wrapped, batch)
            accelerator.backward(loss * (world / targets))  # DDP takes the mean over processes
        summed += loss.detach()
    norm = nn.utils.clip_grad_norm_(run.parameters.values(), config.max_grad_norm)
    loss = accelerator.reduce(summed, "sum") / targets
    loss, norm = torch.stack([loss.double(), norm.double()]).tolist()  # the one wait for the device of a step
    return loss, norm


def _evaluate(model: nn.Module, on_epoch: OnEpoch, epoch: int) -> dict[str, float]:
    model.eval()
    numbers = {name: float(value) for name, value in (on_epoch(epoch, model) or {}).items()}
    model.train()
    if taken := sorted(numbers.keys() & set(COLUMNS)):
        raise ValueError(f"on_epoch must not return {taken[0]!r}, a column of the history; take another name")
    return numbers


def _not_finite(loss: float, norm: float, step: int, micro: list[list[int]], data: _Data) -> str:
    ids = ", ".join(data.encoded[i].id for rows in micro for i in rows)
    kept = data.path if data.path is not None and data.path.exists() else "none"
    return (
        f"loss {loss} with gradient norm {norm} at step {step}, the weights are still those of step {step - 1}; "
        f"examples: {ids}; last good checkpoint: {kept}; lower lr or max_grad_norm, or look at these examples"
    )
