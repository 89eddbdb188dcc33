"""Steps of a real student in bfloat16 on a CPU, ours and the old form; `real.py` says what is measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import nn

from negdistill.data.records import Problem
from negdistill.data.tasks import load_task
from negdistill.method.low_precision import length_multiple, quicken
from negdistill.method.nat_unit import NATConfig
from negdistill.method.objectives import likelihood
from negdistill.training.adapters import lora, nat_lora
from negdistill.training.batching import Encoded, Example, batches, collate, pad_id
from negdistill.training.dataset import TrainingSet, training_set
from negdistill.training.students import THREADS, Student

os.environ[THREADS] = "1"  # of every student that is loaded, here and in what is started
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LOSS = 1e-2  # difference of the loss of a token that rounding explains
BATCH = 8


@contextmanager
def old(model: nn.Module) -> Iterator[None]:
    """Within the block PEFT's own forward, masks, free lengths, and a slice before the output layer."""
    layers = [module for module in model.modules() if "forward" in vars(module) and hasattr(module, "lora_A")]
    for layer in layers:
        del layer.forward
    with (
        patch("negdistill.method.low_precision.on_cpu", lambda model: False),
        patch("negdistill.inference.kv_cache.on_cpu", lambda model: False),
    ):
        yield
    quicken(model)


def easy(split: str) -> list[Problem]:
    """Questions of MATH of the levels that a student of this size learns from."""
    return [problem for problem in load_task("math").questions(split) if problem.level in (1, 2, 3)]


def lessons(questions: int) -> TrainingSet:
    """Released rationales of GPT-3.5, two of each question."""
    world, asked = load_task("math"), easy("train")[:questions]
    said = world.rationales(asked, "tdg-gpt-3.5-turbo", 2)
    return training_set(asked, [one for one in said if len(one.text) <= 1200], **world.grading)


def examples(questions: int) -> list[Example]:
    return lessons(questions).examples("positives")


def full(rows: Sequence[Encoded]) -> list[list[int]]:
    """Batches of one epoch, without the one that is not full."""
    return [cut for cut in batches(rows, BATCH, 0, 0) if len(cut) == BATCH]


def stepper(student: Student, model: nn.Module, rows: Sequence[Encoded]) -> Callable[[int], float]:
    """A training step on batch number n: its loss per target."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    groups, pad = full(rows), pad_id(student.tokenizer)

    def step(number: int) -> float:
        batch = collate([rows[i] for i in groups[number % len(groups)]], pad, length_multiple(model))
        loss = likelihood(model, batch) / batch["loss_mask"].sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    step.tokens = [sum(rows[i].length for i in group) for group in groups]
    return step


def first_loss(student: Student, model: nn.Module, rows: Sequence[Encoded]) -> float:
    batch = collate(rows[:BATCH], pad_id(student.tokenizer), length_multiple(model))
    with torch.no_grad():
        return (likelihood(model.eval(), batch) / batch["loss_mask"].sum()).item()


def timed(action: Callable[[], object]) -> float:
    began = time.process_time()
    action()
    return time.process_time() - began


def measure_steps(student: Student, rows: Sequence[Encoded], repeats: int) -> dict[str, object]:
    """Tokens a second of old LoRA, LoRA and NAT."""
    rates: dict[str, list[float]] = {name: [] for name in ("old", "LoRA", "NAT")}
    losses = {}
    with lora(student.model, NATConfig(target_modules=SEVEN)) as model:
        fill(model)
        losses["LoRA"] = first_loss(student, model, rows)
        with old(model):
            losses["old"] = first_loss(student, model, rows)
        if not abs(losses["LoRA"] - losses["old"]) < LOSS:
            raise AssertionError(f"the losses of one batch differ: {losses}")
        step = stepper(student, model.train(), rows)
        for turn in range(repeats + 1):
            seconds = {"LoRA": timed(lambda turn=turn: step(turn))}
            with old(model):
                seconds["old"] = timed(lambda turn=turn: step(turn))
            if turn:  # the first warms up
                for name, value in seconds.items():
                    rates[name].append(step.tokens[turn % len(step.tokens)] / value)
    with nat_lora(student.model, NATConfig(target_modules=SEVEN, unit_dim=32)) as model:
        step = stepper(student, model.train(), rows)
        for turn in range(repeats + 1):
            taken = timed(lambda turn=turn: step(turn))
            if turn:
                rates["NAT"].append(step.tokens[turn % len(step.tokens)] / taken)
    return {"losses": losses, "tokens_per_second": rates}


def fill(model: nn.Module) -> None:
    """Numbers as after some training: a fresh B is zero, and would hide what the adapters compute."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.005)
