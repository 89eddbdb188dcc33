"""Objectives: what a training minimises, a model and a batch to one number."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from negdistill.method import low_precision
from negdistill.method.losses import LAMBDA, TEMPERATURE, info_nce, log_one_minus, mean_pool, token_log_probs
from negdistill.method.nce import distilled
from negdistill.method.rivals import (
    gain_weight,
    pair_places,
    preference,
    prospect,
    rationale_unlikelihood,
    reference_point,
    sequence_log_probs,
    tapered,
    weighted,
)


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
    """`forward_logits`, with the log probabilities of the targets in place of all logits.

    The backward pass overwrites the logits, so it can be taken once.
    """
    logits, targets, row, hidden = forward_logits(model, batch)
    return Targets(token_log_probs(logits, targets, overwrite=True), row, hidden)


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
    # padding on the right is seen by padding alone: without a mask attention is causal, which costs less
    padding_counts = (batch["loss_mask"] & ~batch["attention_mask"].bool()).any()
    mask = None if low_precision.on_cpu(model) and not padding_counts else batch["attention_mask"]
    # token t is predicted at t - 1
    place = F.pad(batch["loss_mask"][:, 1:], (0, 1)).flatten().nonzero().squeeze(1)
    targets = batch["input_ids"].flatten()[place + 1]
    seen: list[Tensor] = []

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(inputs[0])
        return (inputs[0].flatten(0, 1).index_select(0, place),)

    handle = head.register_forward_pre_hook(select)
    try:
        logits = model(batch["input_ids"], attention_mask=mask, use_cache=False).logits  # (N, V)
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
    token. Negatives enter only as rows to stay away from. Several processes compare within a share each.
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


# --- of whole rationales ------------------------------------------------------------------------------


class Rationales(NamedTuple):
    """What a forward pass says of whole rationales, those without targets left out.

    log_prob, tokens  l and the number of targets, (B,)      positive (B,) bool      question (B,) long
    gain              l minus that of the reference, (B,); None without one
    weight            that the batch carries, (B,); 1 each without one
    """

    log_prob: Tensor
    tokens: Tensor
    positive: Tensor
    question: Tensor
    gain: Tensor | None
    weight: Tensor

    @property
    def mean(self) -> Tensor:
        """L (B,), at most 0."""
        return self.log_prob / self.tokens


def rationales(model: nn.Module, batch: Mapping[str, Tensor]) -> Rationales:
    """One forward pass. A batch that carries `reference`, l of the frozen start, has a gain as well. That and
    `weight` are (B,), or () where no row has targets."""
    log_probs, row, _ = forward_targets(model, batch)
    there = batch["loss_mask"].any(1)  # a row without targets only keeps a process company
    log_prob, tokens = (one[there] for one in sequence_log_probs(log_probs, row, len(there)))
    carried = {
        name: batch[name].to(log_prob.dtype).expand(len(there))[there]
        for name in ("reference", "weight")
        if name in batch
    }
    gain = log_prob - carried["reference"] if "reference" in carried else None
    weight = carried.get("weight", torch.ones_like(tokens))
    return Rationales(log_prob, tokens, batch["positive"][there], batch["question"][there], gain, weight)


def _preferred(beta: float, nll: float, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """DPO of the pairs, twice their sum: the mean over rows is that of pairs."""
    seen = rationales(model, batch)
    right, wrong = pair_places(seen.positive, seen.question)
    loss = preference(seen.gain[right], seen.gain[wrong], beta)
    return 2 * (loss - nll * seen.mean[right]).sum()


def kto(model: nn.Module, batch: Mapping[str, Tensor], beta: float = 0.1) -> Tensor:
    """KTO, summed over the rationales that answer their own question: ().

    The others (`matched` False) give z0, of the part of the batch that this process has, and no gradient.
    batch["weight"] (B,) is lambda of each row, which follows from the whole training set: `rivals.balance`.
    """
    own = rationales(model, _rows_where(batch, batch["matched"]))
    with torch.no_grad():
        other = rationales(model, _rows_where(batch, ~batch["matched"]))
    return prospect(own.gain, own.positive, reference_point(other.gain), beta, own.weight).sum()


def kto_zero(model: nn.Module, batch: Mapping[str, Tensor], beta: float = 0.1) -> Tensor:
    """KTO with z0 = 0, summed over rationales, weighed as there: ()."""
    seen = rationales(model, batch)
    return prospect(seen.gain, seen.positive, 0.0, beta, seen.weight).sum()


def _rows_where(batch: Mapping[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    return {name: tensor[chosen] if tensor.ndim else tensor for name, tensor in batch.items()}


def _weighted(right: float, wrong: float, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    seen = rationales(model, batch)
    return weighted(seen.mean, seen.positive, right, wrong).sum()


def topr(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """TOPR, summed over rationales: ()."""
    seen = rationales(model, batch)
    return tapered(seen.log_prob, seen.log_prob.detach() - seen.gain.detach(), seen.positive).sum()


def glow(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """-L of right and wrong rationales alike, each weighted by `gain_weight`, summed: ().

    batch["memory"] (B,) is what was left there the last time these rows were seen, NaN at first: -L, which is
    replaced by that of today.
    """
    seen = rationales(model, batch)
    weight = gain_weight(batch["memory"].to(seen.mean.dtype), -seen.mean)
    batch["memory"].copy_(-seen.mean.detach())  # of the rows with targets, as it came
    return -(weight * seen.mean).sum()


def unlikelihood_of_rationales(
    model: nn.Module, batch: Mapping[str, Tensor], weight: float = LAMBDA
) -> Tensor:
    """UL as the paper writes it [second-hand]: likelihood of positives, per token, and `weight` times the
    unlikelihood of each negative as a whole, summed: ()."""
    seen = rationales(model, batch)
    return torch.where(seen.positive, -seen.log_prob, weight * rationale_unlikelihood(seen.log_prob)).sum()


# --- names --------------------------------------------------------------------------------------------

Objective = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]


def _named(name: str, function: Callable[..., Tensor], *settings: float) -> Objective:
    objective = partial(function, *settings)
    objective.__name__ = name
    return objective


OBJECTIVES: dict[str, Objective] = {
    "likelihood": likelihood,
    "unlikelihood": unlikelihood,
    "negative": negative,
    "contrastive": contrastive,
    "distillation": distillation,
    "unlikelihood of rationales": unlikelihood_of_rationales,
    "dpo": _named("dpo", _preferred, 0.1, 0.0),
    "dpo, small beta": _named("dpo, small beta", _preferred, 0.001, 0.0),
    "dpo and likelihood": _named("dpo and likelihood", _preferred, 0.1, 1.0),
    "kto": kto,
    "kto, no z0": kto_zero,
    "redi": _named("redi", _weighted, 1.0, 0.8),
    "redi, alpha 0": _named("redi, alpha 0", _weighted, 1.0, 0.0),
    "redi, alpha 1": _named("redi, alpha 1", _weighted, 1.0, 1.0),
    "w-reinforce": _named("w-reinforce", _weighted, 0.1, 1.0),
    "nsr": _named("nsr", _weighted, 0.0, 1.0),
    "topr": topr,
    "glow": glow,
}
NEEDS_TEACHER = ("distillation",)  # objectives that need a teacher
NEEDS_REFERENCE = ("dpo", "dpo, small beta", "dpo and likelihood", "kto", "kto, no z0", "topr")
