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

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LAMBDA = 0.05
TEMPERATURE = 0.1
CHUNK = 1 << 21  # elements of the largest float32 copy of logits: 8 MiB
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


def calibration_beta(neg_log_probs: Tensor, nat_log_probs: Tensor, mask: Tensor) -> Tensor:
    """beta of NCE (book/method.md, step 2): tanh of the mean over tokens of KL(p_neg || p_nat).

        KL(p_neg || p_nat) = sum_v p_neg(v) (log p_neg(v) - log p_nat(v))

    The expectation is that of the negative view: what counts is what it would say and NAT would not.
    neg_log_probs, nat_log_probs (B, T, V), at most 0, -inf where a probability is 0; mask (B, T) bool, True
    where a token counts -> (B,) in [0, 1], in the type of the inputs; 0 for a row without tokens.
    """
    terms = neg_log_probs.exp() * (neg_log_probs - nat_log_probs)
    divergence = terms.masked_fill_(neg_log_probs == float("-inf"), 0).sum(-1).clamp_(min=0)  # (B, T)
    # not a product with the mask: what stands at other places may be anything
    summed = torch.where(mask, divergence, torch.zeros_like(divergence)).sum(1)
    return torch.tanh(summed / mask.sum(1).clamp(min=1))


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
            if ids is None:
                cross = norms[1, at] * p.sum(1) - torch.einsum("nv,nv->n", p, part)
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
    """Loss of NCE at each target (book/method.md, step 2): (N,), at least 0.

        (1 - mixing) (- log p_student(target))  +  mixing weight temperature^2 H(p_nat, p_student)

    logits (N, V); targets (N,) long; weight (N,), 0.5 + beta of the token's row. H is the cross-entropy of
    the distributions at `temperature`, and `teacher` holds log p_nat at that temperature: (N, V), or with ids
    (N, k) long, k < V, the k tokens that these name and the mass of all others as one token: (N, k + 1).
    The latter H is at most the former: how the teacher divides the remaining mass is not taught.

    As `token_log_probs` it works a chunk of rows at a time. The gradient goes to the logits alone; with
    `overwrite` it takes their place in memory, and no (N, V) tensor is made at all.
    """
    soft = weight.to(torch.promote_types(logits.dtype, torch.float32)) * (mixing * temperature**2)
    plain = torch.full_like(soft, 1 - mixing)
    return _Distilled.apply(logits, targets, teacher, ids, plain, soft, temperature, overwrite)


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

    The batch carries what a `train.Teacher` knows of its rows: teacher_log_probs and perhaps teacher_ids, one
    line per target, row after row; weight (B,); mixing and temperature ().
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
TAUGHT = ("distillation",)  # objectives that need a teacher
