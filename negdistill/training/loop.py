"""Training: one loop for every objective.

    examples -> tokens -> epochs of length-bucketed batches -> steps
    step:  gradient of  (sum of token losses) / (number of targets)  over micro-batches and processes,
           clip, AdamW, one row of history
    every `checkpoint_every` steps: one file, replaced atomically

Whatever the model has with requires_grad is trained. The batches of a step and its random draws follow from
(seed, step) alone. So a run that was killed continues to the same weights, bit for bit on one CPU thread, and
an evaluation in between changes nothing. On CUDA the forward pass is in bfloat16 autocast. A loss or gradient
that is not finite ends the run before it reaches the weights; the error names step, examples and checkpoint.

Several processes share the rows of each micro-batch. On GPUs accelerate starts them, with the model whole in
each (DDP) or in shards (FSDP2):

    accelerate launch --config_file launch/ddp.yaml --num_processes 4 script.py      # or fsdp2.yaml

On CPUs accelerate starts one process whatever N is, and torchrun has to start the others (gloo):

    accelerate launch --num_processes 2 --cpu --no_python torchrun --standalone --nproc_per_node 2 script.py
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from negdistill.checks import check_choice
from negdistill.method.low_precision import length_multiple
from negdistill.method.objectives import OBJECTIVES, Objective
from negdistill.runs.digests import digest_code
from negdistill.runs.memory import give_back_sometimes
from negdistill.runs.processes import all_gather, held, processes
from negdistill.training.batching import (
    Encoded,
    Example,
    Teacher,
    batches,
    collate,
    encode,
    pad_id,
    shared,
)
from negdistill.training.checkpoint import (
    CHECKPOINT,
    TrainState,
    adamw,
    full_tensor,
    hand_back,
    trainable,
    wrap,
)
from negdistill.training.identity import objective_name, run_key
from negdistill.training.steps import UNITS, Order, Step, TrainConfig, counted, learning_rate, steps
from negdistill.training.students import context_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("step", "epoch", "loss", "lr", "grad_norm", "tokens", "seconds")

OnEpoch = Callable[[int, nn.Module], Mapping[str, float] | None]


def train(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example] | Sequence[Encoded],
    config: TrainConfig,
    objective: str | Objective = "likelihood",
    out_dir: str | Path | None = None,
    preset: str = "fixed",
    on_epoch: OnEpoch | None = None,
    teacher: Teacher | None = None,
    order: Order = batches,
    per: str = "target",
    together: int = 1,
    memory: bool = False,
) -> pd.DataFrame:
    """Train in place whatever of `model` has requires_grad; the model is left in eval mode, whatever happens.

    examples    texts, or rows of tokens; preset, a name in `prompts.PRESETS`, says how text becomes tokens
    objective   name in `objectives.OBJECTIVES`, or a function such as those
    out_dir     folder of the checkpoint of this run, where training goes on; another one there is waited for
    on_epoch    called with (epochs done, model) after each epoch and at the end; its numbers become columns
    teacher     what joins a batch: what "distillation" learns from, or a reference
    order       the batches of an epoch, in place of `batching.batches`
    per         "target" or "row": what the objective sums over, and its mean is taken over
    together    rows that stand together in a batch and that no two processes may share, as the 2 of a pair
    memory      whether the batch carries `memory` (B,), what the objective left of these rows, NaN at first
    Returns COLUMNS, a row per step: step and epoch from 1, mean loss and grad_norm before the step, tokens
    without padding and seconds without on_epoch so far. ValueError for no examples, nothing to train, a
    question or warm-up that is too long, a teacher of other examples, another run's checkpoint.
    FloatingPointError for a loss or gradient that is not finite, before it reaches weights.
    """
    check_choice("per", per, UNITS)
    objective, examples = _objective(objective), _encoded(examples, model, tokenizer, preset)
    plan = steps(examples, config, order)
    accelerator = processes()  # without its bfloat16, which would leave forward patched
    key = run_key(model, examples, config, objective, teacher, order, digest_code(__name__))
    key |= {"per": per, "memory": memory}
    wrapped = wrap(model, accelerator)
    with held(None if out_dir is None else Path(out_dir)):
        state = _state(wrapped if accelerator.is_fsdp2 else model, config, key, out_dir)
        if memory and state.memory is None:  # no loss yet
            state.memory = torch.full((len(examples),), math.nan, dtype=torch.float64)
        wrapped = torch.compile(wrapped) if config.compile else wrapped
        what = (objective, examples, plan, pad_id(tokenizer), config, state)
        try:
            _Loop(model, wrapped, *what, accelerator, teacher, per, together).run(on_epoch)
            hand_back(state.parameters, model)
        finally:
            model.eval()
    return _frame(state.history)


def _objective(objective: str | Objective) -> Objective:
    if not isinstance(objective, str):
        return objective
    check_choice("objective", objective, OBJECTIVES)
    return OBJECTIVES[objective]


def _encoded(
    examples: Sequence[Example] | Sequence[Encoded],
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    preset: str,
) -> Sequence[Encoded]:
    if examples and isinstance(examples[0], Encoded):
        return examples
    return encode(examples, tokenizer, context_length(model, tokenizer), preset)


def _frame(history: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    extra = dict.fromkeys(name for row in history for name in row if name not in COLUMNS)
    frame = pd.DataFrame(history, columns=[*COLUMNS, *extra])
    return frame.astype({"step": int, "epoch": int, "tokens": int})


def _state(
    trained: nn.Module, config: TrainConfig, key: dict[str, object], out_dir: str | Path | None
) -> TrainState:
    """The state to start from: fresh, or the checkpoint in `out_dir`."""
    if config.checkpoint_every is not None and out_dir is None:
        raise ValueError("checkpoint_every needs out_dir, the folder of the checkpoint; got out_dir=None")
    parameters = trainable(trained)
    if not parameters:
        raise ValueError("model must have a parameter to train; requires_grad is False for all of them")
    optimizer = adamw(parameters.values(), config.lr, config.weight_decay)
    state = TrainState(parameters, optimizer, key, None if out_dir is None else Path(out_dir) / CHECKPOINT)
    if state.file is not None and state.file.exists():
        state.load()
    return state


@dataclass(frozen=True, slots=True)
class _Loop:
    model: nn.Module
    wrapped: nn.Module  # what computes
    objective: Objective
    encoded: Sequence[Encoded]
    plan: list[Step]
    pad: int
    config: TrainConfig
    state: TrainState
    accelerator: Accelerator
    teacher: Teacher | None
    per: str
    together: int

    @property
    def multiple(self) -> int:
        return length_multiple(self.model)

    @property
    def device(self) -> torch.device:
        return next(iter(self.state.parameters.values())).device

    def run(self, on_epoch: OnEpoch | None) -> None:
        """Take the steps of the plan that the history does not have yet."""
        history, total, optimizer = self.state.history, len(self.plan), self.state.optimizer
        tokens, seconds = (int(history[-1]["tokens"]), history[-1]["seconds"]) if history else (0, 0.0)
        started = time.perf_counter() - seconds
        self.wrapped.train()
        quiet = not (self.config.progress and self.accelerator.is_main_process)
        bar = tqdm(total=total, initial=len(history), unit="step", disable=quiet)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []), bar:
            for number in range(len(history), total):
                step = self.plan[number]
                rate = learning_rate(number, total, self.config)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                loss, norm = self.gradient(number)
                optimizer.step()
                give_back_sometimes()
                tokens += step.tokens
                seconds = time.perf_counter() - started
                values = (number + 1, step.epoch + 1, loss, rate, norm, tokens, seconds)
                history.append(dict(zip(COLUMNS, values, strict=True)))
                done = number + 1 == total
                if on_epoch is not None and (step.epoch_ends or done):
                    history[-1] |= self.evaluate(on_epoch, step.epoch + 1)
                    started = time.perf_counter() - seconds
                if self.state.file and (done or (number + 1) % (self.config.checkpoint_every or total) == 0):
                    self.state.save(self.accelerator.is_main_process)
                    self.accelerator.wait_for_everyone()
                bar.set_postfix_str(f"loss {loss:.3f}, {tokens / seconds:,.0f} tokens/s", refresh=False)
                bar.update()

    def gradient(self, number: int) -> tuple[float, float]:
        """Put the clipped gradient of a step into the parameters; its mean loss, its norm before clipping.

        Every process knows the plan, so the number of targets to divide by needs no communication. One whose
        share of a small batch is empty takes rows without targets: all must take part in the backward pass.
        """
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        micro = self.plan[number].micro
        targets = max(1, sum(counted(self.encoded[i], self.per) for rows in micro for i in rows))
        seed = np.random.SeedSequence([self.config.seed, number, rank]).generate_state(1, np.uint64)
        torch.manual_seed(int(seed[0]))
        self.state.optimizer.zero_grad()
        summed = 0.0
        for index, rows in enumerate(micro):
            share = shared(rows, rank, world, self.together)
            batch = collate(
                [self.encoded[i] for i in share or rows[: self.together]], self.pad, self.multiple
            )
            if not share:
                batch["loss_mask"].zero_()
            if self.teacher is not None:
                batch |= self.teacher(share)
            if self.state.memory is not None:
                batch["memory"] = self.state.memory[share]
            batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
            with nullcontext() if index + 1 == len(micro) else self.accelerator.no_sync(self.wrapped):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                    loss = self.loss(batch)
                # processes are averaged; accelerate's own backward would divide by steps of its own
                (loss * (world / targets)).backward()
            summed = summed + loss.detach()
            if self.state.memory is not None:
                self.remember(share, batch["memory"])
        norm = nn.utils.clip_grad_norm_(self.state.parameters.values(), self.config.max_grad_norm)
        loss = (self.accelerator.reduce(summed, "sum") / targets).item()
        norm = full_tensor(norm).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            ids = ", ".join(self.encoded[i].id for rows in micro for i in rows)
            kept = self.state.file if self.state.file and self.state.file.exists() else "none"
            raise FloatingPointError(
                f"loss {loss}, gradient norm {norm} at step {number + 1}, not taken; examples: {ids}; "
                f"last good checkpoint: {kept}; lower lr, or look at these examples"
            )
        return loss, norm

    def loss(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        try:
            found = self.objective(self.wrapped, batch)
        except KeyError as error:
            if error.args and error.args[0] in batch:
                raise
            name, fields = objective_name(self.objective), ", ".join(batch)
            raise ValueError(
                f"objective {name!r} needs {error}, which a batch does not have; it has {fields}"
            ) from error
        if not (isinstance(found, torch.Tensor) and found.ndim == 0 and found.requires_grad):
            shape = [*found.shape] if isinstance(found, torch.Tensor) else type(found).__name__
            detached = ", without a gradient" if getattr(found, "requires_grad", True) is False else ""
            raise ValueError(
                f"objective {objective_name(self.objective)!r} must return one number, the sum over its "
                f"{self.per}s as a tensor of shape [] with a gradient; got {shape}{detached}"
            )
        return found

    def remember(self, share: Sequence[int], left: torch.Tensor) -> None:
        """What an objective left, of the rows of all processes."""
        for rows, values in all_gather([(list(share), left.tolist())]):
            self.state.memory[rows] = torch.tensor(values, dtype=self.state.memory.dtype)

    def evaluate(self, on_epoch: OnEpoch, epoch: int) -> dict[str, float]:
        hand_back(self.state.parameters, self.model)
        self.model.eval()
        numbers = {name: float(value) for name, value in (on_epoch(epoch, self.model) or {}).items()}
        self.wrapped.train()
        if taken := sorted(numbers.keys() & set(COLUMNS)):
            raise ValueError(f"on_epoch must not return {taken[0]!r}, a column of the history; rename it")
        return numbers
