"""Steps: how to train, and what every step of a run reads, known before the first one.

TrainConfig, rows, order  --steps-->  [epoch, micro-batches, tokens] of each step
                          --learning_rate-->  its rate
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from negdistill.checks import check_choice, check_flag, check_number, check_whole
from negdistill.training.batching import Encoded

SCHEDULES = ("linear", "cosine")
UNITS = ("target", "row")  # what a loss is a sum over

Order = Callable[[Sequence[Encoded], int, int, int], list[list[int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How to train. Exactly one of epochs, max_steps and max_tokens says when to stop."""

    epochs: int | None = None  # passes over the data
    max_steps: int | None = None  # optimiser steps
    max_tokens: int | None = None  # tokens seen without padding; the step that reaches them is the last
    batch_size: int = 32  # rows of a micro-batch, over all processes together
    gradient_accumulation_steps: int = 1  # micro-batches of one step; they never cross an epoch
    lr: float = 3e-4  # peak learning rate of AdamW
    schedule: str = "cosine"  # or "linear": the way from the peak towards 0 at the end
    warmup_steps: int = 0  # steps of linear rise to the peak
    weight_decay: float = 0.0  # share of a matrix taken off per step, times lr; vectors do not decay
    max_grad_norm: float = 1.0  # largest 2-norm of the whole gradient
    seed: int = 0  # of batch order and dropout
    checkpoint_every: int | None = None  # steps between checkpoints; None writes one at the end only
    compile: bool = False  # through torch.compile: minutes at the start, faster steps, sums in another order
    progress: bool = True  # whether a bar on stderr shows loss and tokens/s

    def __post_init__(self) -> None:
        stops = [name for name in ("epochs", "max_steps", "max_tokens") if getattr(self, name) is not None]
        if len(stops) != 1:
            got = " and ".join(stops) or "none"
            raise ValueError(f"set exactly one of epochs, max_steps and max_tokens; got {got}")
        check_choice("schedule", self.schedule, SCHEDULES)
        every = [] if self.checkpoint_every is None else ["checkpoint_every"]
        least = dict.fromkeys((*stops, *every, "batch_size", "gradient_accumulation_steps"), 1)
        for name, low in {**least, "warmup_steps": 0, "seed": 0}.items():
            check_whole(name, getattr(self, name), low)
        check_number("weight_decay", self.weight_decay, low=0)
        for name in ("lr", "max_grad_norm"):
            check_number(name, getattr(self, name), above=0)
        for name in ("compile", "progress"):
            check_flag(name, getattr(self, name))


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Learning rate of step 0 ... total - 1: up during the warm-up, then linear or cosine towards 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    left = (total - step) / (total - config.warmup_steps)
    return config.lr * (left if config.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))


class Step(NamedTuple):
    """Epoch from 0, whether it ends here, row numbers of each micro-batch, tokens without padding."""

    epoch: int
    epoch_ends: bool
    micro: list[list[int]]
    tokens: int


def steps(encoded: Sequence[Encoded], config: TrainConfig, order: Order) -> list[Step]:
    """All steps of the run. ValueError for an order that gives no batch, and a warm-up as long as the run."""
    size = config.gradient_accumulation_steps
    most = config.max_tokens or math.inf
    plan: list[Step] = []
    for epoch in count():
        micro = order(encoded, config.batch_size, config.seed, epoch)
        if not micro:
            raise ValueError(
                "examples must hold a batch in the order asked for, one of pairs a right and a wrong one of "
                "one question; take more questions or rationales"
            )
        for start in range(0, len(micro), size):
            if epoch == config.epochs or len(plan) == config.max_steps or most <= 0:
                if config.warmup_steps >= len(plan):
                    raise ValueError(
                        f"warmup_steps must be below all {len(plan)} steps; got {config.warmup_steps}"
                    )
                return plan
            part = micro[start : start + size]
            tokens = sum(encoded[i].length for rows in part for i in rows)
            plan.append(Step(epoch, start + size >= len(micro), part, tokens))
            most -= tokens


def counted(row: Encoded, per: str) -> int:
    """How much a row counts in the mean of a loss that is a sum over `per`, "target" or "row"."""
    return int(row.loss_mask.sum()) if per == "target" else int(row.matched)
