"""The cache of sampling: keys and values of all rows at one common column, and the forward over it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from negdistill.method.low_precision import on_cpu


@dataclass(slots=True)
class Window:
    """What all layers agree on: rows [0, rows) are in use, columns [first, stop) are written."""

    rows: int = 0
    first: int = 0
    stop: int = 0


class Layer(DynamicLayer):
    """Keys and values of one layer, (rows, heads, columns, d), written in place at the common column."""

    def __init__(self, window: Window, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.window, self.keys, self.values, self.is_initialized = window, keys, values, True

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        w = self.window
        self.keys[: w.rows, :, w.stop] = keys[:, :, 0]
        self.values[: w.rows, :, w.stop] = values[:, :, 0]
        used = slice(w.first, w.stop + 1)
        return self.keys[: w.rows, :, used], self.values[: w.rows, :, used]

    def get_seq_length(self) -> int:
        return self.window.stop - self.window.first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0


def plain(model: nn.Module) -> nn.Module:
    """The base of a PEFT model, in which its layers sit and whose own forward needs no wrapper."""
    return getattr(model, "get_base_model", lambda: model)()


def require_keys_only(model: nn.Module) -> None:
    """ValueError for a model that keeps anything but keys and values of each token."""
    kinds = {type(layer) for layer in DynamicCache(config=model.config.get_text_config()).layers}
    if other := kinds - {DynamicLayer, DynamicSlidingWindowLayer}:
        raise ValueError(
            f"model must keep nothing but keys and values of each token; {type(plain(model)).__name__} has "
            f"{min(kind.__name__ for kind in other)}; use its own generate"
        )


def token_bytes(model: nn.Module) -> int:
    """Bytes of the keys and values of one token; ValueError as `require_keys_only`."""
    require_keys_only(model)
    layers = prefill(plain(model), [[0]], 0)[1].layers
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)


@cache
def _takes(kind: type[nn.Module]) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters)


def prefill(model: nn.Module, rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Cache]:
    """Logits (B, V) after each row; keys and values of all columns, in the last of which the rows stand."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=model.device)
    start = torch.tensor([width - len(row) for row in rows], device=model.device)
    cache = DynamicCache()
    return forward(model, ids, torch.arange(width, device=model.device), start, width, cache), cache


@torch.no_grad()
def forward(
    model: nn.Module, ids: Tensor, columns: Tensor, start: Tensor, context: int, cache: Cache
) -> Tensor:
    """Logits (B, V) of the last column. ids (B, T) stand in the last T of the columns; row b begins in column
    start[b]."""
    takes = _takes(type(model))
    inputs = {"attention_mask": (columns >= start[:, None]).long()}
    if "position_ids" in takes:
        inputs["position_ids"] = (columns[-ids.shape[1] :] - start[:, None]).clamp(0, context - 1)
    if "logits_to_keep" in takes:
        # an index gives a copy, one after another in memory: of a slice, torch multiplies a copy of the whole
        # output layer for each row where that is frozen
        last = torch.tensor([ids.shape[1] - 1], device=ids.device)
        inputs["logits_to_keep"] = last if on_cpu(model) else 1
    logits = model(input_ids=ids, past_key_values=cache, use_cache=True, **inputs).logits[:, -1]
    return logits if logits.dtype == torch.float64 else logits.float()
