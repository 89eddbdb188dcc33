"""Objectives: what a training minimises, a model and a batch to one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from negdistill.method.losses import LAMBDA, TEMPERATURE, info_nce, log_one_minus, mean_pool, token_log_probs
from negdistill.method.nce import distilled


class Targets(NamedTuple):
    """A forward pass seen from its targets: log_probs (N,), row (N,) long, hidden (B, T, D)."""

    log_probs: Tensor
    row: Tensor
    hidden: Tensor


class Predictions(NamedTuple):
    """What a forward pass says of its targets: logits (N, V), targets and row (N,) long, hidden (B, T, D)."""

    logits: Tensor
    targets: Tensor
    row: Tensor
    hidden: Tensor


def forward_targets(model: nn.Module, batch: Mapping[str, Tensor]) -> Targets:
    """`forward_logits`, with the log probabilities of the targets in place of all logits."""
    logits, targets, row, hidden = forward_logits(model, batch)
    return Targets(token_log_probs(logits, targets), row, hidden)


def forward_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Predictions:
    """Run the model's own forward, with its output layer only at the positions that predict a target.

    A hook hands the output layer those N hidden states instead of B x T. Whatever the model does to its
    logits afterwards (soft capping, scaling) still happens, in every architecture, wrapped by PEFT or not.
    `hidden` are the last hidden states, all of them. ValueError for a model without an output layer.
    """
    head = getattr(model, "module", model).get_output_embeddings()
    if head is None:
        raise ValueError(
            f"model must have an output layer over the vocabulary; {type(model).__name__} has none"
        )
    # token t is predicted at t - 1
    place = F.pad(batch["loss_mask"][:, 1:], (0, 1)).flatten().nonzero().squeeze(1)
    targets = batch["input_ids"].flatten()[place + 1]
    seen: list[Tensor] = []

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(inputs[0])
        return (inputs[0].flatten(0, 1).index_select(0, place),)

    handle = head.register_forward_pre_hook(select)
    try:
        logits = model(
            batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits  # (N, V)
    finally:
        handle.remove()
    return Predictions(logits, targets, place // batch["input_ids"].shape[1], seen[0])


def likelihood(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Negative log-likelihood of all targets, positives and negatives alike, summed: ()."""
    return -forward_targets(model, batch).log_probs.sum()


def unlikelihood(model: nn.Module, batch: Mapping[str, Tensor], weight: float = LAMBDA) -> Tensor:
    """UL: likelihood of positives, `weight` times the unlikelihood of the tokens of negatives, summed: ()."""
    log_p, row, _ = forward_targets(model, batch)
    return -torch.where(batch["positive"][row], log_p, weight * log_one_minus(log_p)).sum()


def negative(model: nn.Module, batch: Mapping[str, Tensor], weight: float = LAMBDA) -> Tensor:
    """NT: the log-likelihood of positives is raised, `weight` times that of negatives lowered, summed: ().

    As in the paper, without a floor: the loss is not bounded below, and may become negative.
    """
    log_p, row, _ = forward_targets(model, batch)
    return -torch.where(batch["positive"][row], log_p, -weight * log_p).sum()


def contrastive(
    model: nn.Module, batch: Mapping[str, Tensor], weight: float = LAMBDA, temperature: float = TEMPERATURE
) -> Tensor:
    """CL: likelihood of positives, and `info_nce` of the mean hidden states of question and rationale: ().

    The InfoNCE of a row counts once for each of its targets, so that `weight` compares it with the loss of a
    token. Negatives enter only as rows to stay away from.
    """
    log_p, row, hidden = forward_targets(model, batch)
    prompt = batch["prompt_mask"]
    rationale = batch["attention_mask"].bool() & ~prompt
    apart = info_nce(
        mean_pool(hidden, prompt),
        mean_pool(hidden, rationale),
        batch["positive"],
        batch["question"],
        temperature,
    )
    zero = torch.zeros_like(log_p)
    return torch.where(batch["positive"][row], weight * apart.to(log_p.dtype)[row] - log_p, zero).sum()


def distillation(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """`distilled` at all targets, summed: ().

    The batch carries what a teacher knows of its rows: teacher_log_probs and perhaps teacher_ids, one line a
    target, row after row; weight (B,); mixing and temperature ().
    """
    logits, targets, row, _ = forward_logits(model, batch)
    return distilled(
        logits,
        targets,
        batch["teacher_log_probs"],
        batch["weight"][row],
        batch.get("teacher_ids"),
        float(batch["mixing"]),
        float(batch["temperature"]),
        overwrite=True,
    ).sum()


Objective = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
OBJECTIVES: dict[str, Objective] = {
    "likelihood": likelihood,
    "unlikelihood": unlikelihood,
    "negative": negative,
    "contrastive": contrastive,
    "distillation": distillation,
}
NEEDS_TEACHER = ("distillation",)  # objectives that need a teacher
