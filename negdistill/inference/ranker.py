"""Ranker: how right a rationale looks, a number between 0 and 1.

    prompt, rationale --backbone + LoRA--> hidden states --mean over the rationale--> h
    z = w h + b,  s = sigmoid(z)

    mse       (s - y)^2                           y = 1 for right, 0 for wrong: the paper (method.md, 3)
    bce       - y log s - (1 - y) log(1 - s)
    pairwise  - log sigmoid(z_right - z_wrong)    Bradley-Terry; s only orders the rationales of one question
    cubic     (1 - s_right)^3 + s_wrong^3         the released code

The last two see one random pair per question and epoch (`batching.pairs`); questions without a pair are left
out. The backbone is that of a student or any other of transformers: an encoder, or the encoder of a pair.
Weights are trained and kept by `ranker_fit`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm
from transformers import Cache, DynamicCache

from negdistill.data.prompts import format_prompt
from negdistill.data.records import Problem, Rationale
from negdistill.inference.kv_cache import token_bytes
from negdistill.method.losses import mean_pool
from negdistill.method.rivals import pair_places
from negdistill.training.batching import encode_prompts, pad_id
from negdistill.training.students import context_length

if TYPE_CHECKING:
    from negdistill.training.students import Student

GROUP = 8  # batches of candidates over one computation of their prompts

# --- model --------------------------------------------------------------------------------------------


class Ranker(nn.Module):
    """A backbone and a linear head, both of a student as it stands; the head starts at zero, s at 1/2.

    shares  whether candidates of one question can share the prompt: its tokens do not look ahead, and all
            that the model keeps of them are keys and values
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        model, self.tokenizer = student
        pair = model.config.is_encoder_decoder
        self.backbone = model.get_encoder() if pair else model.base_model
        width = _hidden(self.backbone, [[0]]).shape[-1]  # that of its output; OPT-350m has another inside
        self.head = nn.Linear(width, 1, device=model.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.takes = frozenset(inspect.signature(self.backbone.forward).parameters)
        self.shares = not pair and model.can_generate() and _looks_back(self.backbone) and _keeps_keys(model)

    @property
    def config(self) -> object:
        return self.backbone.config

    @property
    def context(self) -> int:
        """Longest row in tokens."""
        return context_length(self.backbone, self.tokenizer)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, mask: Tensor) -> Tensor:
        """z of each row (B,), float32: ids, attention (B, T) long; mask (B, T) bool marks the rationale."""
        return self.rate(self.backbone(input_ids, attention_mask=attention_mask).last_hidden_state, mask)

    def rate(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """z from hidden states (B, T, D) and the mask of the rationale (B, T)."""
        return self.head(mean_pool(hidden.to(self.head.weight.dtype), mask)).squeeze(1)

    def extend(self, ids: Tensor, attention: Tensor, cache: Cache) -> Tensor:
        """Hidden states (B, T, D) of ids (B, T), the last columns of attention (B, C) over what is kept."""
        inputs = {"attention_mask": attention}
        if "position_ids" in self.takes:
            places = (attention.cumsum(1) - 1).clamp(min=0)
            inputs["position_ids"] = places[:, -ids.shape[1] :]
        return self.backbone(input_ids=ids, past_key_values=cache, use_cache=True, **inputs).last_hidden_state


@torch.no_grad()
def _looks_back(backbone: nn.Module) -> bool:
    """Whether the hidden state of a token does not depend on what follows."""
    one, other = _hidden(backbone, [[0, 1, 1], [0, 2, 2]])[:, 0]
    return torch.equal(one, other)


def _hidden(backbone: nn.Module, rows: Sequence[Sequence[int]]) -> Tensor:
    """Hidden states (B, T, D) of rows of equal length."""
    ids = torch.tensor(rows, device=backbone.device)
    return backbone(ids, attention_mask=torch.ones_like(ids)).last_hidden_state


def _keeps_keys(model: nn.Module) -> bool:
    try:
        return token_bytes(model) > 0
    except ValueError:
        return False


# --- losses -------------------------------------------------------------------------------------------


def mse(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Squared distance of s from the label, summed over rows: ()."""
    z, counts = _rated(model, batch)
    return ((z.sigmoid() - batch["positive"].to(z.dtype)) ** 2 * counts).sum()


def bce(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Negative log-likelihood of the label under s, summed over rows: ()."""
    z, counts = _rated(model, batch)
    return F.binary_cross_entropy_with_logits(z, batch["positive"].to(z.dtype), counts, reduction="sum")


def pairwise(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """- log sigmoid(z_right - z_wrong), twice the sum over pairs: the mean over rows is that of pairs."""
    right, wrong = _paired(model, batch)
    return -2 * F.logsigmoid(right - wrong).sum()


def cubic(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """(1 - s_right)^3 + s_wrong^3, twice the sum over pairs, as `pairwise`."""
    right, wrong = _paired(model, batch)
    return 2 * ((1 - right.sigmoid()) ** 3 + wrong.sigmoid() ** 3).sum()


LOSSES: dict[str, Callable[[nn.Module, Mapping[str, Tensor]], Tensor]] = {
    loss.__name__: loss for loss in (mse, bce, pairwise, cubic)
}
PAIRED = ("pairwise", "cubic")


def _rated(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """z (B,), and 1 for rows that count, 0 for those that only keep a process company."""
    mask = batch["attention_mask"].bool() & ~batch["prompt_mask"]
    z = model(batch["input_ids"], batch["attention_mask"], mask)
    return z, batch["loss_mask"].any(1).to(z.dtype)


def _paired(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """z of the right and of the wrong rows, question by question."""
    z, _ = _rated(model, batch)
    right, wrong = pair_places(batch["positive"], batch["question"])
    return z[right], z[wrong]


# --- scores -------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    problem_id: str
    text: str
    prompt: list[int]
    completion: list[int]


@torch.no_grad()
def score(
    ranker: Ranker,
    problems: Sequence[Problem],
    candidates: Sequence[Rationale],
    batch_size: int = 64,
    progress: bool = True,
) -> np.ndarray:
    """s of each candidate, float64 (len(candidates),), in [0, 1] and in their order.

    Equal texts of one question are computed once. Where the backbone allows, the candidates of a question
    share the computation of its prompt; to about 1e-6 in float32 that changes nothing. A rationale that does
    not fit the context is cut off.

    ValueError for a candidate of no problem, and a question that leaves no room in the context.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    rows = sorted(_rows(ranker, problems, candidates), key=lambda row: (len(row.prompt), row.problem_id))
    found: dict[tuple[str, str], float] = {}
    ranker.eval()
    with tqdm(total=len(rows), unit="rationale", desc="ranker", disable=not progress) as bar:
        for first in range(0, len(rows), GROUP * batch_size):
            group = rows[first : first + GROUP * batch_size]
            prompts = _Prompts(ranker, group) if ranker.shares else None
            group.sort(key=lambda row: len(row.completion))
            for start in range(0, len(group), batch_size):
                part = group[start : start + batch_size]
                z = prompts.extended(part) if prompts else _whole(ranker, part)
                for row, value in zip(part, z.double().sigmoid().tolist(), strict=True):
                    found[row.problem_id, row.text] = value
                bar.update(len(part))
    return np.array([found[one.problem_id, one.text] for one in candidates], dtype=float)


def _rows(ranker: Ranker, problems: Sequence[Problem], candidates: Sequence[Rationale]) -> list[_Row]:
    """Different candidates as tokens; each has one token at least after its prompt."""
    asked = {problem.id: format_prompt(problem.question) for problem in problems}
    if strange := next((one.problem_id for one in candidates if one.problem_id not in asked), None):
        raise ValueError(
            f"candidates must belong to problems; got problem_id {strange!r}, which no problem has"
        )
    different = list(dict.fromkeys((one.problem_id, one.text) for one in candidates))
    if not different:
        return []
    names = list(dict.fromkeys(name for name, _ in different))
    tokenizer, room = ranker.tokenizer, ranker.context
    prompts = dict(zip(names, encode_prompts([asked[name] for name in names], tokenizer), strict=True))
    for name, prompt in prompts.items():
        if not 0 < len(prompt) < room:
            raise ValueError(
                f"question {name!r} takes {len(prompt)} tokens, the context holds {room}; leave it out"
            )
    end = tokenizer.eos_token_id
    end = pad_id(tokenizer) if end is None else end
    completions = encode_prompts([text for _, text in different], tokenizer, special=False)
    return [
        _Row(name, text, prompts[name], [*completion, end][: room - len(prompts[name])])
        for (name, text), completion in zip(different, completions, strict=True)
    ]


def _pad(
    rows: Sequence[Sequence[int]], pad: int, device: torch.device, left: bool = False
) -> tuple[Tensor, Tensor]:
    """ids and attention, long (B, T), padded on the right or on the left."""
    width = max(map(len, rows))
    ids, attention = torch.full((len(rows), width), pad), torch.zeros(len(rows), width, dtype=torch.long)
    for b, row in enumerate(rows):
        at = slice(width - len(row), None) if left else slice(len(row))
        ids[b, at], attention[b, at] = torch.tensor(row), 1
    return ids.to(device), attention.to(device)


def _whole(ranker: Ranker, rows: Sequence[_Row]) -> Tensor:
    """z (B,) of prompt and completion together."""
    pad, device = pad_id(ranker.tokenizer), ranker.head.weight.device
    ids, attention = _pad([row.prompt + row.completion for row in rows], pad, device)
    lengths = torch.tensor([len(row.prompt) for row in rows], device=device)
    after = torch.arange(ids.shape[1], device=device) >= lengths[:, None]
    return ranker(ids, attention, attention.bool() & after)


class _Prompts:
    """Keys and values of the prompts of some rows, padded on the left: all completions follow at once."""

    def __init__(self, ranker: Ranker, rows: Sequence[_Row]) -> None:
        self.ranker, self.pad, self.device = ranker, pad_id(ranker.tokenizer), ranker.head.weight.device
        prompts = {row.problem_id: row.prompt for row in rows}
        self.number = {name: number for number, name in enumerate(prompts)}
        ids, self.attention = _pad(list(prompts.values()), self.pad, self.device, left=True)
        self.cache = DynamicCache()
        ranker.extend(ids, self.attention, self.cache)

    def extended(self, rows: Sequence[_Row]) -> Tensor:
        """z (B,) of the rows."""
        at = torch.tensor([self.number[row.problem_id] for row in rows], device=self.device)
        cache = DynamicCache()
        for number, layer in enumerate(self.cache.layers):
            cache.update(layer.keys[at], layer.values[at], number)
        ids, attention = _pad([row.completion for row in rows], self.pad, self.device)
        hidden = self.ranker.extend(ids, torch.cat([self.attention[at], attention], 1), cache)
        return self.ranker.rate(hidden, attention.bool())
