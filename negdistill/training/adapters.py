"""Adapters on a student: put on to train or to use, and taken off again.

    with lora(model, config) as trained: ...               a fresh PEFT LoRA
    with lora(model, config, start=folder) as trained: ... training goes on from a stored one
    with nat_lora(model, config, neg=folder) as model:    NAT over a stored negative adapter
    with stored(model, folder, "lora") as adapted: ...     what lies in a folder, to compute with

After each block the model is the plain base again, bit for bit, so one base in memory serves every row. One
block at a time: a model that carries adapters is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from negdistill.method.low_precision import quicken
from negdistill.method.nat import attach, detach, load_nat
from negdistill.method.nat_files import check_adapter, fingerprint, mark_adapter
from negdistill.method.nat_unit import NATConfig
from negdistill.method.peft_loader import load_peft
from negdistill.method.projections import check_plain, projections, target_names, widths
from negdistill.method.random_branch import randomize_negative
from negdistill.training.contrast import load_contrast

if TYPE_CHECKING:
    from peft import PeftModel


@contextmanager
def lora(
    model: nn.Module, config: NATConfig, r: int | None = None, start: Path | None = None, seed: int = 0
) -> Iterator[nn.Module]:
    """A trainable PEFT LoRA: a fresh one, or the one in folder `start`. Its first numbers follow from `seed`.

    r  rank, by default that of `config`; the scaling lora_alpha / r is that of `config` at every rank
    """
    r = r or config.r
    peft = load_peft()
    fresh = peft.LoraConfig(
        r=r,
        lora_alpha=config.lora_alpha * r / config.r,
        lora_dropout=config.dropout,
        target_modules=target_names(model, projections(model, config.target_modules), config.target_modules),
        fan_in_fan_out=any(hasattr(module, "nf") for module in model.modules()),  # Conv1D of transformers
        task_type="CAUSAL_LM" if model.can_generate() else None,  # None: an encoder, or a backbone alone
    )
    with _peft(
        model,
        lambda: (
            peft.get_peft_model(model, fresh) if start is None else _load(model, start, is_trainable=True)
        ),
        seed,
    ) as wrapped:
        yield wrapped


@contextmanager
def nat_lora(
    model: nn.Module, config: NATConfig, neg: Path | None = None, noise: bool = False, seed: int = 0
) -> Iterator[nn.Module]:
    """NAT to train, over the negative adapter in folder `neg`, noise of its size, or an empty branch."""
    with _seeded(seed):
        attach(model, config, neg)
    try:
        if noise:
            randomize_negative(model, seed)
        yield model
    finally:
        detach(model)


@contextmanager
def merged(model: nn.Module, folders: Mapping[Path, float]) -> Iterator[nn.Module]:
    """The weighted sum of stored LoRA adapters as one LoRA, exact: their ranks add up."""
    names = [f"part{number}" for number in range(len(folders))]  # PEFT takes a bare number for a layer's
    first, *others = zip(folders, names, strict=True)
    for folder, _ in others:
        check_adapter(folder, model)
    with _peft(model, lambda: _load(model, first[0], adapter_name=first[1])) as wrapped:
        for folder, name in others:
            wrapped.load_adapter(folder, adapter_name=name)
        # "default", because an adapter of that name is saved without a folder of its own
        wrapped.add_weighted_adapter(names, list(folders.values()), "default", combination_type="cat")
        wrapped.set_adapter("default")
        yield wrapped


@contextmanager
def stored(model: nn.Module, folder: Path, view: str) -> Iterator[nn.Module]:
    """What lies in a folder, to compute with: view "nat" one of `save_nat`, "lora" one of PEFT, "contrast"
    one of `save_contrast`."""
    if view == "nat":
        load_nat(model, folder)
        try:
            yield model.eval()
        finally:
            detach(model)
    elif view == "contrast":
        check_plain(model)
        yield load_contrast(model, folder)
    else:
        with _peft(model, lambda: _load(model, folder)) as wrapped:
            yield wrapped.eval()


def save_lora(model: nn.Module, folder: Path) -> None:
    """Write a PEFT folder that `PeftModel.from_pretrained` loads: marks of the base, no embeddings of it."""
    model.save_pretrained(folder, save_embedding_layers=False, selected_adapters=["default"])
    base = model.get_base_model()
    layers = {name: one.base_layer for name, one in base.named_modules() if hasattr(one, "lora_A")}
    mark_adapter(Path(folder), fingerprint(base, layers))


def wide_rank(model: nn.Module, config: NATConfig) -> int:
    """Rank at which LoRA on the same projections has as many trainable parameters as NAT, to the nearest."""
    sizes = [widths(module) for module in projections(model, config.target_modules).values()]
    unit = config.unit_dim * sum(d_in + 3 * d_out for d_in, d_out in sizes)
    return round(config.r + unit / sum(d_in + d_out for d_in, d_out in sizes))


def _load(model: nn.Module, folder: Path, **options: object) -> PeftModel:
    """The stored adapter on the base that it was trained on; ValueError as `check_adapter`."""
    check_adapter(folder, model)
    return load_peft().PeftModel.from_pretrained(model, folder, **options)


@contextmanager
def _peft(model: nn.Module, wrap: Callable[[], PeftModel], seed: int = 0) -> Iterator[PeftModel]:
    """The wrapped model; afterwards unwrapped, trainable where it was before."""
    check_plain(model)
    thawed = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with warnings.catch_warnings(), _seeded(seed):
        # PEFT asks transformers for a property that was renamed
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        # an adapted output layer is no matter here, and before it is merged `export` unties it
        warnings.filterwarnings(
            "ignore", message="Model has `tie_word_embeddings=True`", category=UserWarning
        )
        wrapped = wrap()
    quicken(wrapped)
    try:
        yield wrapped
    finally:
        wrapped.unload()
        for parameter in thawed:
            parameter.requires_grad_(True)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers from `seed`; the generator outside goes on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
