"""NCE: beta, the weights that follow from it, and the calibrated loss, as pure functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from negdistill.checks import check_choice, check_number, check_type
from negdistill.method.losses import CHUNK

ROUNDING = 0.1  # how far from 1 a sum of probabilities may be: logarithms in bfloat16 come near it
BETA_MODES = ("paper", "none", "mean", "shuffled", "inverse")


def kd_weights(beta: Tensor, mode: str = "paper", seed: int = 0) -> Tensor:
    """Weight of the distillation term for each rationale: beta (n,) -> (n,), at least 0.

    paper     0.5 + beta, as in eq-nce
    none      1, distillation without calibration
    mean      0.5 + the mean of beta: the same mean without calibration
    shuffled  0.5 + the beta of another rationale, drawn with `seed`
    inverse   0.5 + beta in reverse order, so that the largest goes to the rationale with the smallest
    The last three have the mean of "paper" over rationales, and the last two its spread as well. The loss
    sums over tokens, of which a rationale with a large beta has few: these three distil a little more.
    """
    check_choice("beta_mode", mode, BETA_MODES)
    if mode == "none":
        return torch.ones_like(beta)
    if mode == "mean":
        return torch.full_like(beta, 0.5 + beta.double().mean().item())
    if mode == "shuffled":
        beta = beta[torch.from_numpy(np.random.default_rng(seed).permutation(len(beta)))]
    if mode == "inverse":
        order = beta.argsort(stable=True)
        beta = torch.empty_like(beta).scatter(0, order, beta[order].flip(0))
    return 0.5 + beta


def calibration_beta(neg_log_probs: Tensor, nat_log_probs: Tensor, mask: Tensor) -> Tensor:
    """beta of NCE (eq-beta of book/method.md): tanh of the mean over tokens of KL(p_neg || p_nat).

        KL(p_neg || p_nat) = sum_v p_neg(v) (log p_neg(v) - log p_nat(v))

    The expectation is that of the negative view: what counts is what it would say and NAT would not.
    neg_log_probs, nat_log_probs (B, T, V), natural logarithms, at most 0, -inf where a probability is 0;
    mask (B, T) bool, True where a token counts -> (B,) in [0, 1], in the type of the inputs; 0 for a row
    without tokens. What stands where no token counts may be anything that is not above 0.

    TypeError for what is no tensor or of another dtype; ValueError for other shapes, for a number above 0,
    and for NaN where a token counts.
    """
    _check_tensor("neg_log_probs", neg_log_probs, (None, None, None), "B, T, V")
    _check_tensor("nat_log_probs", nat_log_probs, neg_log_probs.shape, "B, T, V")
    if isinstance(mask, Tensor) and mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True where a token counts; got {mask.dtype}")
    _check_tensor("mask", mask, neg_log_probs.shape[:2], "B, T", torch.bool)
    named = {"neg_log_probs": neg_log_probs, "nat_log_probs": nat_log_probs}
    for name, values in named.items():
        if values.numel() and values.max() > 1e-3:  # rounding of a probability of 1
            raise ValueError(f"{name} must be logarithms of probabilities, at most 0; got {values.max():.3g}")
    terms = neg_log_probs.exp() * (neg_log_probs - nat_log_probs)
    divergence = terms.masked_fill_(neg_log_probs == float("-inf"), 0).sum(-1).clamp_(min=0)  # (B, T)
    # not a product with the mask: what stands at other places may be anything
    summed = torch.where(mask, divergence, torch.zeros_like(divergence)).sum(1)
    beta = torch.tanh(summed / mask.sum(1).clamp(min=1))
    if beta.isnan().any():
        name = next((name for name, values in named.items() if values[mask].isnan().any()), "nat_log_probs")
        raise ValueError(f"{name} must be logarithms of probabilities, at most 0; got nan")
    return beta


def _check_tensor(
    parameter: str,
    value: object,
    shape: Sequence[int | None],
    words: str,
    dtype: torch.dtype | None = None,
) -> None:
    """TypeError unless a tensor of that dtype, floating where it is None; ValueError unless of that shape.

    No value is read, so that a GPU is not waited for.
    """
    check_type(parameter, value, Tensor, "a tensor")
    if value.dtype != dtype if dtype else not value.is_floating_point():
        raise TypeError(f"{parameter} must be of type {dtype or 'float'}; got {value.dtype}")
    if value.ndim != len(shape) or any(
        n is not None and n != m for n, m in zip(shape, value.shape, strict=True)
    ):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{parameter} must be ({words}), here ({wanted}); got {tuple(value.shape)}")


def _check_distilled(
    logits: Tensor, targets: Tensor, teacher: Tensor, weight: Tensor, ids: Tensor | None
) -> None:
    """What `distilled` says of its tensors, except of the teacher's numbers, which `_check_mass` sees."""
    _check_tensor("logits", logits, (None, None), "N, V")
    n, v = logits.shape
    _check_tensor("targets", targets, (n,), "N", torch.long)
    _check_tensor("weight", weight, (n,), "N")
    if ids is None:
        _check_tensor("teacher", teacher, (n, v), "N, V")
    else:
        _check_tensor("ids", ids, (n, None), "N, k", torch.long)
        _check_tensor("teacher", teacher, (n, ids.shape[1] + 1), "N, k + 1")
    if n and weight.device.type == "cpu" and not weight.min() >= 0:
        raise ValueError(f"weight must be at least 0; got {weight.min():.3g}")


def _check_tokens(parameter: str, ids: Tensor | None, vocabulary: int) -> None:
    """ValueError unless all are tokens, on the CPU."""
    if ids is None or ids.device.type != "cpu" or not ids.numel():
        return
    low, high = ids.min().item(), ids.max().item()
    if low < 0 or high >= vocabulary:
        raise ValueError(
            f"{parameter} must be tokens, 0 to {vocabulary - 1}; got {low if low < 0 else high}; "
            "leave out what is not trained on"
        )


def _check_mass(mass: Tensor) -> None:
    """ValueError unless the teacher's probabilities add up to 1 in each row, on the CPU: (n,)."""
    if mass.device.type == "cpu" and not (mass - 1).abs().max() <= ROUNDING:
        raise ValueError(
            "teacher must be logarithms of probabilities, which add up to 1 in each row; "
            f"got a sum of {mass[(mass - 1).abs().argmax()]:.3g}; apply log_softmax, and log to probabilities"
        )


class _Distilled(torch.autograd.Function):
    """`distilled`, a chunk of rows at a time; gradient for the logits alone."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        teacher: Tensor,
        ids: Tensor | None,
        plain: Tensor,
        soft: Tensor,
        temperature: float,
        overwrite: bool,
    ) -> Tensor:
        exact = torch.promote_types(logits.dtype, torch.float32)
        norms = torch.empty(3, len(logits), dtype=exact, device=logits.device)  # of p, of p at T, of its rest
        loss = torch.empty(len(logits), dtype=exact, device=logits.device)
        ctx.temperature, ctx.overwrite, ctx.rows = temperature, overwrite, max(1, CHUNK // logits.shape[1])
        ctx.save_for_backward(logits, targets, teacher, ids, plain, soft, norms)
        for at in _spans(len(logits), ctx.rows):
            part, p = logits[at].to(exact), teacher[at].to(exact).exp()
            norms[0, at] = norms[1, at] = part.logsumexp(1)
            likelihood = part.gather(1, targets[at, None]).squeeze(1) - norms[0, at]
            if temperature != 1:
                part = part / temperature
                norms[1, at] = part.logsumexp(1)
            mass = p.sum(1)
            _check_mass(mass)
            if ids is None:
                cross = norms[1, at] * mass - torch.einsum("nv,nv->n", p, part)
            else:
                named = part.gather(1, ids[at])
                norms[2, at] = part.scatter(1, ids[at], float("-inf")).logsumexp(1)
                named = torch.cat([named, norms[2, at, None]], 1) - norms[1, at, None]
                cross = -(p * named).sum(1)
            loss[at] = soft[at] * cross - plain[at] * likelihood
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, targets, teacher, ids, plain, soft, norms = ctx.saved_tensors
        # detached it still counts its changes: whoever else needs the logits for a gradient is told by torch
        result = logits.detach() if ctx.overwrite else torch.empty_like(logits)
        for at in _spans(len(logits), ctx.rows):
            part, p = logits[at].to(norms.dtype), teacher[at].to(norms.dtype).exp()
            weight = (soft[at] * grad[at] / ctx.temperature)[:, None]
            p_student = (part / ctx.temperature - norms[1, at, None]).exp_()
            if ids is None:
                out = p_student * (p.sum(1, keepdim=True) * weight) - p * weight
            else:
                # the target of a token without name is the student's own share of the remaining mass
                share = (part / ctx.temperature - norms[2, at, None]).exp_().mul_(p[:, -1:])
                out = p_student * p.sum(1, keepdim=True)
                named = out.gather(1, ids[at]) - p[:, :-1]
                out.sub_(share).scatter_(1, ids[at], named).mul_(weight)
            weight = (plain[at] * grad[at])[:, None]
            if ctx.temperature != 1:
                p_student = (part - norms[0, at, None]).exp_()
            out.addcmul_(p_student, weight).scatter_add_(1, targets[at, None], -weight)
            result[at] = out
        return result, *(None,) * 7


def _spans(n: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, n, size)]


def distilled(
    logits: Tensor,
    targets: Tensor,
    teacher: Tensor,
    weight: Tensor,
    ids: Tensor | None = None,
    mixing: float = 0.5,
    temperature: float = 1.0,
    overwrite: bool = False,
) -> Tensor:
    """Loss of NCE at each target (eq-nce of book/method.md): (N,), at least 0.

        (1 - mixing) (- log p_student(target))  +  mixing weight temperature^2 H(p_nat, p_student)

    logits (N, V); targets (N,) long; weight (N,), 0.5 + beta of the token's row. H is the cross-entropy of
    the distributions at `temperature`, and `teacher` holds log p_nat at that temperature: (N, V), or with ids
    (N, k) long, k < V, the k tokens that these name and the mass of all others as one token: (N, k + 1).
    The latter H is at most the former: how the teacher divides the remaining mass is not taught.

    As `token_log_probs` it works a chunk of rows at a time. The gradient goes to the logits alone; with
    `overwrite` it takes their place in memory, and no (N, V) tensor is made at all.

    TypeError for what is no tensor or of another dtype; ValueError for other shapes, mixing outside of
    [0, 1], a temperature that is not above 0, and on the CPU for targets or ids that are no tokens, weights
    below 0 and a teacher whose probabilities do not add up to 1. On a GPU no value is read: it would wait.
    """
    check_number("mixing", mixing, 0, 1)
    check_number("temperature", temperature, above=0)
    _check_distilled(logits, targets, teacher, weight, ids)
    soft = weight.to(torch.promote_types(logits.dtype, torch.float32)) * (mixing * temperature**2)
    plain = torch.full_like(soft, 1 - mixing)
    try:
        return _Distilled.apply(logits, targets, teacher, ids, plain, soft, temperature, overwrite)
    except RuntimeError:  # torch says which number it cannot look up, not whose it is
        _check_tokens("targets", targets, logits.shape[1])
        _check_tokens("ids", ids, logits.shape[1])
        raise
