"""Contrast: two adapters answer together, over one base and in one pass.

    x_1 x_1 x_2 x_2 ...   each row twice: the even ones with adapter +, the odd ones with adapter -
    z = z+ + a (z+ - z-)  logits of the row                       (contrastive decoding, Li et al., 2023)

Two forward passes would read the base's weights twice. The keys and values of a row's two halves stand side
by side in the cache, as so many more heads, so whoever keeps a cache sees one row.
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from negdistill.method.nat_files import Pairs, read_adapter
from negdistill.method.projections import projections, widths

CONFIG, SIDES = "contrast.json", ("right", "wrong")


class Contrast(nn.Module):
    """A causal language model with two adapters; forward takes and gives what that of the base does.

    weight  a, at least 0: how far logits go beyond those of the first adapter, away from those of the second
    """

    def __init__(
        self, base: nn.Module, names: Sequence[str], adapters: Sequence[tuple[float, Pairs]], weight: float
    ) -> None:
        super().__init__()
        if not weight >= 0:
            raise ValueError(f"weight must be at least 0; got {weight}")
        self.base, self.names = base, list(names)
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64), requires_grad=False)
        device, dtype = base.device, base.dtype
        self.pairs = nn.ParameterList(
            nn.Parameter(matrix.to(device, dtype) * scale, requires_grad=False)
            for name in self.names
            for scaling, pairs in adapters
            for matrix, scale in zip(pairs[name], (1.0, scaling), strict=True)
        )  # A+, s+ B+, A-, s- B- of each projection
        self.takes = frozenset(inspect.signature(type(base).forward).parameters)

    @property
    def config(self) -> object:
        return self.base.config

    @property
    def device(self) -> torch.device:
        return self.base.device

    def get_output_embeddings(self) -> None:
        """None, so that nobody takes one half of a row for the row."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        past_key_values: object = None,
        use_cache: bool = False,
        position_ids: Tensor | None = None,
        logits_to_keep: int = 0,
    ) -> SimpleNamespace:
        """logits (B, T, V) of ids (B, T) under attention (B, C); see transformers for the others."""
        inputs = {"position_ids": position_ids, "logits_to_keep": logits_to_keep}
        inputs = {name: value for name, value in inputs.items() if value is not None and name in self.takes}
        if "position_ids" in inputs:
            inputs["position_ids"] = inputs["position_ids"].repeat_interleave(2, 0)
        cache = None if past_key_values is None else _Side(past_key_values)
        with self._adapted():
            logits = self.base(
                input_ids=input_ids.repeat_interleave(2, 0),
                attention_mask=attention_mask.repeat_interleave(2, 0),
                past_key_values=cache,
                use_cache=use_cache,
                **inputs,
            ).logits
        exact = torch.promote_types(logits.dtype, torch.float32)
        right, wrong = (half.to(exact) for half in logits.unflatten(0, (-1, 2)).unbind(1))
        return SimpleNamespace(logits=right + self.weight.to(exact) * (right - wrong))

    @contextmanager
    def _adapted(self) -> Iterator[None]:
        """Within the block each projection of the base adds what the adapter of the row says."""
        with ExitStack() as stack:
            for place, name in enumerate(self.names):
                four = self.pairs[4 * place : 4 * place + 4]
                hook = self.base.get_submodule(name).register_forward_hook(_added(*four))
                stack.callback(hook.remove)
            yield


def _added(a_right: Tensor, b_right: Tensor, a_wrong: Tensor, b_wrong: Tensor):
    def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0].unflatten(0, (-1, 2))
        halves = ((a_right, b_right), (a_wrong, b_wrong))
        delta = [(x[:, side] @ a.T) @ b.T for side, (a, b) in enumerate(halves)]
        return output + torch.stack(delta, 1).flatten(0, 1).to(output.dtype)

    return add


class _Side:
    """A cache as the base sees it: the two halves of a row are rows of their own."""

    def __init__(self, cache: object) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> object:
        return getattr(self._cache, name)

    def update(self, keys: Tensor, values: Tensor, *more: object, **others: object) -> tuple[Tensor, Tensor]:
        heads = keys.shape[1]
        folded = (x.unflatten(0, (-1, 2)).flatten(1, 2) for x in (keys, values))  # (B, 2 heads, T, d)
        kept = self._cache.update(*folded, *more, **others)
        return tuple(x.unflatten(1, (2, heads)).flatten(0, 1) for x in kept)


def save_contrast(folder: Path, right: Path, wrong: Path, names: Sequence[str], weight: float) -> None:
    """Copies of both LoRA folders, and how they answer together, for `load_contrast`."""
    for side, source in zip(SIDES, (right, wrong), strict=True):
        shutil.copytree(source, folder / side)
    text = json.dumps({"target_modules": list(names), "weight": weight}, indent=1)
    (folder / CONFIG).write_text(text, encoding="utf-8")


def load_contrast(model: nn.Module, folder: Path) -> Contrast:
    """What `save_contrast` wrote, over a plain model, which stays as it is; ValueError for another base."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    right, wrong = (folder / side for side in SIDES)
    return contrasted(model, right, wrong, config["target_modules"], config["weight"])


def contrasted(model: nn.Module, right: Path, wrong: Path, names: Sequence[str], weight: float) -> Contrast:
    """A `Contrast` of the LoRA folders `right` and `wrong` over a plain model, which stays as it is.

    names  of the projections, as `NATConfig.target_modules`. ValueError for adapters of another base.
    """
    targets = projections(model, names)
    shapes = {name: widths(module) for name, module in targets.items()}
    adapters = [read_adapter(folder, shapes) for folder in (right, wrong)]
    return Contrast(model, list(targets), adapters, weight).eval()
