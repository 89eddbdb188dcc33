"""NAT on a model: attach it, choose what forward computes, save it.

    attach    W0  ->  DualLinear(W0; A+, B+, A-, B-, W_Q, W_K, W_1, W_2)        detach is the way back
    trained   A+, B+ and the unit; W0, A- and B- are frozen (other ways, for ablations: NATConfig)

    view    every adapted projection computes    on disk
    base    W0 x
    pos     h+ = W0 x + s+ B+ A+ x               folder/pos, a PEFT LoRA
    neg     h- = W0 x + s- B- A- x               folder/neg, a PEFT LoRA
    nat     the integrate unit of `nat_unit`     both, and folder/unit.safetensors

    attach(model, NATConfig(), neg="runs/negative")     # the view is nat: train it
    with view(model, "neg"):
        logits = model(**batch).logits
    save_nat(model, "runs/nat")

The negative adapter is an ordinary PEFT LoRA, trained with PEFT on the same base.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from negdistill.checks import check_choice, check_path, check_type, json_number
from negdistill.method.nat_files import (
    Shapes,
    check_adapter,
    check_base,
    fingerprint,
    read_adapter,
    write_adapter,
)
from negdistill.method.nat_unit import BRANCHES, UNIT, VIEWS, DualLinear, NATConfig, NATState
from negdistill.method.projections import check_plain, projections, target_names, widths
from negdistill.runs.digests import digest_tree
from negdistill.runs.files import atomic_path

CONFIG = "nat_config.json"
FORMAT = 1
MODEL = "a model of torch, such as Student.model"


def attach(model: nn.Module, config: NATConfig, neg: str | Path | None = None) -> nn.Module:
    """Wrap what `target_modules` names in DualLinear, eq-nat of book/method.md, in place; returns the model.

    neg  folder of a PEFT LoRA of the same base and projections, of any rank; None: an empty one, h- = W0 x

    Afterwards A+, B+ and the unit require gradients and nothing else does, unless `config` has it otherwise;
    the view is "nat". A+ and the unit draw on torch's random numbers, the same ones whatever `neg` is.
    Raises ValueError for a name that matches no projection, a model that already carries adapters, and an
    adapter of another base or of other projections; TypeError for an argument of another type.
    """
    check_type("model", model, nn.Module, MODEL)
    check_type("config", config, NATConfig, "a NATConfig, such as settings().nat")
    if neg is not None:
        check_path("neg", neg)
    check_plain(model)
    targets = projections(model, config.target_modules)
    scaling, pairs = read_adapter(neg, _shapes(targets)) if neg is not None else (1.0, {})
    if neg is not None:
        check_adapter(neg, model)
    state = NATState(
        config, thawed=[parameter for parameter in model.parameters() if parameter.requires_grad]
    )
    model.requires_grad_(False)
    for name, base_layer in targets.items():
        layer = DualLinear(base_layer, len(pairs[name][0]) if pairs else 1, scaling, name, state)
        if pairs:
            fill(layer, "neg", pairs[name])
        layer.lora_A["neg"].requires_grad_(config.train_neg)
        layer.lora_B["neg"].requires_grad_(config.train_neg)
        if config.mix == "sum":
            for part in UNIT:
                getattr(layer, part).requires_grad_(False)
        _replace(model, name, layer)
    return model


def detach(model: nn.Module) -> nn.Module:
    """Give the plain model back, in place: the base's own modules, trainable where they were before.

    W0 of book/method.md was never changed, so it is the model before `attach`, bit for bit. ValueError for a
    model that carries no NAT, TypeError for what is no model.
    """
    layers, state = dual_layers(model), _state(model)
    for name, layer in layers.items():
        _replace(model, name, layer.base_layer)
    for parameter in state.thawed:
        parameter.requires_grad_(True)
    return model


def _shapes(targets: dict[str, nn.Module]) -> Shapes:
    return {name: widths(module) for name, module in targets.items()}


def dual_layers(model: nn.Module) -> dict[str, DualLinear]:
    """DualLinear by full name; ValueError where there is none, TypeError for what is no model."""
    check_type("model", model, nn.Module, MODEL)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, DualLinear)}
    if not layers:
        raise ValueError(
            "the model carries no NAT: attach(model, NATConfig()) or load_nat(model, folder) first"
        )
    return layers


def _state(model: nn.Module) -> NATState:
    return next(iter(dual_layers(model).values())).state


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


@torch.no_grad()
def fill(layer: DualLinear, branch: str, pair: tuple[Tensor, Tensor]) -> None:
    """Put A and B into a branch of a layer."""
    layer.lora_A[branch].weight.copy_(pair[0])
    layer.lora_B[branch].weight.copy_(pair[1])


@contextmanager
def view(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """Within the block forward computes the view "base", "pos", "neg" or "nat"; afterwards the one before.

    They are W0 x, h+, h- (eq-branches of book/method.md) and the output of the unit (eq-nat). Only forward
    changes: what is trainable stays so, and a view that was never trained is not refused.
    ValueError for an unknown view and a model that carries no NAT, TypeError for what is no model.
    """
    check_choice("view", name, VIEWS)
    state = _state(model)
    before, state.view = state.view, name
    try:
        yield model
    finally:
        state.view = before


def require_trained(model: nn.Module, name: str) -> None:
    """Raise ValueError where the last matrices of a view are all zero, as at the start: it equals the base.
    The weights themselves tell, so it survives saving."""
    check_choice("view", name, VIEWS)
    layers, branch = dual_layers(model).values(), name
    if name == "nat" and _state(model).config.mix == "sum":
        branch = "pos"
    last = (
        layer.value_out if branch == "nat" else layer.lora_B[branch] for layer in layers if name != "base"
    )
    if name != "base" and not any(linear.weight.any() for linear in last):
        raise ValueError(
            f"the view {name!r} was never trained, it equals the base: train it, or choose another"
        )


@contextmanager
def collect_alpha(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Collect the weight of h- from every forward of the nat view within the block.

    Yields a dictionary: module name -> one tensor per forward, alpha in [-0.5, 0.5] (with `shift`, in
    [-shift, 1 - shift]), (B, T, 1), float32 or float64, without gradient. The weight of h+ is 1 - alpha.
    """
    state = _state(model)
    before, state.alpha = state.alpha, {}
    try:
        yield state.alpha
    finally:
        state.alpha = before


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block no weight changes: the unit folds them once, not at every token; errors as `view`."""
    state = _state(model)
    before, state.folds = state.folds, {}
    try:
        with torch.no_grad():
            yield model
    finally:
        state.folds = before


class _Recompute:
    """How a checkpointed part runs again: in the view of its forward pass, without collecting alpha twice."""

    def __init__(self, state: NATState) -> None:
        self.state, self.view = state, state.view

    def __enter__(self) -> None:
        self.before = self.state.view, self.state.alpha
        self.state.view, self.state.alpha = self.view, None

    def __exit__(self, *_: object) -> None:
        self.state.view, self.state.alpha = self.before


def checkpointing(model: nn.Module) -> dict[str, object]:
    """Arguments of activation checkpointing under which backward recomputes in the view of the forward pass.

        model.gradient_checkpointing_enable(checkpointing(model))                  # transformers
        torch.utils.checkpoint.checkpoint(function, x, **checkpointing(model))     # torch

    Without them a part that ran in `with view(...)` is recomputed in whatever view holds during backward, and
    torch raises CheckpointError, since no two views keep the same tensors.
    """
    state = _state(model)
    return {"use_reentrant": False, "context_fn": lambda: (nullcontext(), _Recompute(state))}


def save_nat(model: nn.Module, folder: str | Path) -> None:
    """Write pos/ and neg/ (PEFT LoRA folders), unit.safetensors and nat_config.json, all of it or nothing.

    `PeftModel.from_pretrained(base, folder / "pos")` gives the logits of the view "pos", likewise "neg".
    Raises ValueError for a model whose unit was never trained.
    """
    require_trained(model, "nat")
    layers, config = dual_layers(model), _state(model).config
    base = fingerprint(model, {name: layer.base_layer for name, layer in layers.items()})
    with atomic_path(folder) as part:
        for branch in BRANCHES:
            pairs = {
                name: (layer.lora_A[branch].weight, layer.lora_B[branch].weight)
                for name, layer in layers.items()
            }
            write_adapter(part / branch, pairs, model, base, **_lora_settings(model, branch))
        save_file(
            {key: weight.detach().cpu() for key, weight in _unit(model).items()}, part / "unit.safetensors"
        )
        stored = {"format": FORMAT, "config": asdict(config), "base": base, "files": digest_tree(part)}
        (part / CONFIG).write_text(json.dumps(stored, indent=1, default=json_number), encoding="utf-8")


def load_nat(model: nn.Module, folder: str | Path) -> nn.Module:
    """Attach what `save_nat` wrote to the same base, in place; returns the model, in the view "nat".

    Raises ValueError for a model that carries adapters, a folder that is incomplete or changed, and another
    base: other architecture, vocabulary, widths or configuration, other numbers in embedding or projections.
    """
    check_plain(model)
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds no {CONFIG}: give a folder that save_nat wrote")
    stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    check_choice(f"format in {folder / CONFIG}", stored["format"], [FORMAT])
    found = digest_tree(folder)
    changed = [file for file, digest in stored["files"].items() if found.get(file) != digest]
    if changed:
        raise ValueError(
            f"{folder} is damaged, not as save_nat wrote it: {', '.join(changed)}; save it again"
        )
    config = NATConfig(**stored["config"])
    targets = projections(model, config.target_modules)
    check_base(folder, stored["base"], fingerprint(model, targets))
    _, pairs = read_adapter(folder / "pos", _shapes(targets))
    unit = load_file(folder / "unit.safetensors")
    layers = dual_layers(attach(model, config, neg=folder / "neg"))
    if {key: weight.shape for key, weight in unit.items()} != {
        key: w.shape for key, w in _unit(model).items()
    }:
        detach(model)
        raise ValueError(
            f"{folder / 'unit.safetensors'} is not the unit that {CONFIG} describes; save it again"
        )
    with torch.no_grad():
        for name, layer in layers.items():
            fill(layer, "pos", pairs[name])
        for key, weight in _unit(model).items():
            weight.copy_(unit[key])
    return model


def _lora_settings(model: nn.Module, branch: str) -> dict[str, object]:
    """What peft.LoraConfig is told of a branch, besides its rank."""
    layers, config = dual_layers(model), _state(model).config
    layer = next(iter(layers.values()))
    alpha = layer.scaling[branch] * len(layer.lora_A[branch].weight)
    return {
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": config.dropout if branch == "pos" else 0.0,
        "target_modules": target_names(model, layers, config.target_modules),
        "fan_in_fan_out": hasattr(layer.base_layer, "nf"),  # Conv1D keeps its weight transposed
    }


def _unit(model: nn.Module) -> dict[str, Tensor]:
    layers = dual_layers(model)
    return {
        f"{name}.{part}.weight": getattr(layer, part).weight
        for name, layer in layers.items()
        for part in UNIT
    }
