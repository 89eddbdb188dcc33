"""Losses: what each objective minimises, as pure functions of tensors.

    likelihood     - sum_all log p
    unlikelihood   - sum_pos log p  -  lambda sum_neg log(1 - p)
    negative       - sum_pos log p  +  lambda sum_neg log p
    contrastive    - sum_pos log p  +  lambda sum_pos InfoNCE of the row
    distillation   - (1 - mixing) sum_all log p  +  mixing sum_all w T^2 H(p_nat, p_student)

Sums run over target tokens, p is the probability of the target, lambda = 0.05 as in the paper's baselines.
MIX is the likelihood of positives and negatives alike. NCE is the distillation with w = 0.5 + beta, a number
of the row that follows from two frozen teachers (`calibration_beta`).

Symbols: B rows, T tokens of a row, N targets of the batch (true places of loss_mask), V vocabulary, D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LAMBDA = 0.05
TEMPERATURE = 0.1
CHUNK = 1 << 21  # elements of the largest float32 copy of logits: 8 MiB
CERTAIN = -1e-5  # log p is clamped here before log(1 - p): closer to 0, float32 holds no digit of 1 - p


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, overwrite: bool) -> Tensor:
        exact = torch.promote_types(logits.dtype, torch.float32)
        rows = max(1, CHUNK // logits.shape[1])
        normaliser = torch.empty(len(logits), dtype=exact, device=logits.device)
        for part, out in zip(logits.split(rows), normaliser.split(rows), strict=True):
            out.copy_(part.to(exact).logsumexp(1))
        ctx.save_for_backward(logits, targets, normaliser)
        ctx.overwrite = overwrite
        return logits.gather(1, targets[:, None]).squeeze(1).to(exact) - normaliser

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, normaliser = ctx.saved_tensors
        rows = max(1, CHUNK // logits.shape[1])
        # detached it still counts its changes: whoever else needs the logits for a gradient is told by torch
        result = logits.detach() if ctx.overwrite else torch.empty_like(logits)
        pieces = (
            tensor.split(rows)
            for tensor in (logits, targets[:, None], normaliser[:, None], grad[:, None], result)
        )
        for part, target, norm, weight, out in zip(*pieces, strict=True):
            softmax = (part.to(norm.dtype) - norm).exp_()
            out.copy_(softmax.mul_(-weight).scatter_add_(1, target, weight))
        return result, None, None


def token_log_probs(logits: Tensor, targets: Tensor, overwrite: bool = False) -> Tensor:
    """Log probability of each target: logits (N, V), targets (N,) long -> (N,), at most 0.

    The softmax is taken in float32 (float64 for float64 logits), a chunk of rows at a time: beside the logits
    and their gradient, both in their own type, no (N, V) tensor is ever made. With `overwrite` the gradient
    takes the place of the logits in memory, as in `nce.distilled`.
    """
    return _TokenLogProbs.apply(logits, targets, overwrite)


def log_one_minus(log_p: Tensor) -> Tensor:
    """log(1 - p) from log p <= 0, elementwise; log p is clamped to at most -1e-5, so at least -11.6."""
    log_p = log_p.clamp(max=CERTAIN)
    return torch.log(-torch.expm1(log_p))


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean of the marked positions: hidden (B, T, D), mask (B, T) bool -> (B, D), 0 where none is.

    In float32 at least: cosines near 1, divided by a temperature of 0.1, are steps of 1/16 in bfloat16.
    """
    hidden = hidden if hidden.dtype == torch.float64 else hidden.float()
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
