"""Losses: what each objective minimises, as pure functions of tensors.

    likelihood     - sum_all log p
    unlikelihood   - sum_pos log p  -  lambda sum_neg log(1 - p)
    negative       - sum_pos log p  +  lambda sum_neg log p
    contrastive    - sum_pos log p  +  lambda sum_pos InfoNCE of the row

Sums run over target tokens, p is the probability of the target, lambda = 0.05 as in the paper's baselines.
MIX is the likelihood of positives and negatives alike.

Symbols: B rows, T tokens of a row, N targets of the batch (true places of loss_mask), V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LAMBDA = 0.05
TEMPERATURE = 0.1
CHUNK = 1 << 24  # elements of the largest float32 copy of logits: 64 MiB
CERTAIN = -1e-5  # log p is clamped here before log(1 - p): closer to 0, float32 holds no digit of 1 - p


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        exact = torch.promote_types(logits.dtype, torch.float32)
        rows = max(1, CHUNK // logits.shape[1])
        normaliser = torch.empty(len(logits), dtype=exact, device=logits.device)
        for part, out in zip(logits.split(rows), normaliser.split(rows), strict=True):
            out.copy_(part.to(exact).logsumexp(1))
        ctx.save_for_backward(logits, targets, normaliser)
        return logits.gather(1, targets[:, None]).squeeze(1).to(exact) - normaliser

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, targets, normaliser = ctx.saved_tensors
        rows = max(1, CHUNK // logits.shape[1])
        result = torch.empty_like(logits)
        pieces = (
            tensor.split(rows)
            for tensor in (logits, targets[:, None], normaliser[:, None], grad[:, None], result)
        )
        for part, target, norm, weight, out in zip(*pieces, strict=True):
            softmax = (part.to(norm.dtype) - norm).exp_()
            out.copy_(softmax.mul_(-weight).scatter_add_(1, target, weight))
        return result, None


def token_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Log probability of each target: logits (N, V), targets (N,) long -> (N,), at most 0.

    The softmax is taken in float32 (float64 for float64 logits), a chunk of rows at a time: beside the logits
    and their gradient, both in their own type, no (N, V) tensor is ever made.
    """
    return _TokenLogProbs.apply(logits, targets)


def log_one_minus(log_p: Tensor) -> Tensor:
    """log(1 - p) from log p <= 0, elementwise; log p is clamped to at most -1e-5, so at least -11.6."""
    log_p = log_p.clamp(max=CERTAIN)
    return torch.log(-torch.expm1(log_p))


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean of the marked positions: hidden (B, T, D), mask (B, T) bool -> (B, D), 0 where none is."""
    weight = mask.to(hidden.dtype)
    return torch.einsum("btd,bt->bd", hidden, weight) / weight.sum(1, keepdim=True).clamp(min=1)


def info_nce(
    question: Tensor, rationale: Tensor, positive: Tensor, group: Tensor, temperature: float = TEMPERATURE
) -> Tensor:
    """InfoNCE of each row with its own question as the anchor; cosine similarity s.

        - log( exp(s(q_i, r_i) / temperature) / sum_j exp(s(q_i, r_j) / temperature) )

    j runs over row i, all negatives, and the positives of other questions: another positive of the same
    question is neither pulled nor pushed. question, rationale (B, D); positive (B,) bool; group (B,) long,
    the number of the question -> (B,), at least 0, and 0 for rows that are not positive.
    """
    similar = F.normalize(question, dim=1) @ F.normalize(rationale, dim=1).T / temperature  # (B, B)
    same = group[:, None] == group[None, :]
    other_positive = same & positive[None, :] & ~torch.eye(len(group), dtype=torch.bool, device=group.device)
    loss = similar.masked_fill(other_positive, float("-inf")).logsumexp(1) - similar.diagonal()
    return torch.where(positive, loss, torch.zeros_like(loss))


class Targets(NamedTuple):
    """A forward pass seen from its targets: log_probs (N,), row (N,) long, hidden (B, T, D)."""

    log_probs: Tensor
    row: Tensor
    hidden: Tensor


def forward_targets(model: nn.Module, batch: Mapping[str, Tensor]) -> Targets:
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
    row = place // batch["input_ids"].shape[1]
    return Targets(token_log_probs(logits, targets), row, seen[0])


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


Objective = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
OBJECTIVES: dict[str, Objective] = {
    "likelihood": likelihood,
    "unlikelihood": unlikelihood,
    "negative": negative,
    "contrastive": contrastive,
}
