"""Projections: the linear layers of a model that adapters stand on, found by name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakSet

from torch import Tensor, nn


def widths(module: nn.Module) -> tuple[int, int] | None:
    """(d_in, d_out) of nn.Linear, a quantised layer like it, or Conv1D of transformers; None of others."""
    for d_in, d_out in (("in_features", "out_features"), ("nx", "nf")):
        weight = getattr(module, "weight", None)  # kernels of some libraries have none
        if hasattr(module, d_in) and hasattr(module, d_out) and isinstance(weight, Tensor):
            return getattr(module, d_in), getattr(module, d_out)
    return None


def projections(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The projections that `names` names, as in NATConfig, by full name; of a model that also sees or hears,
    those of its language model.

    ValueError where a name has none, or also means experts, which are packed into one tensor.
    """
    found = {name: module for name, module in model.named_modules() if widths(module)}
    if (parts := _language(model)) is not None:
        found = {name: module for name, module in found.items() if f"{name}.".startswith(parts)}
    packed = [name for name, weight in model.named_parameters() if weight.ndim == 3]
    for wanted in names:
        there = ", ".join(sorted({name.rpartition(".")[2] for name in found}))
        if expert := next((name for name in packed if f".{name}".endswith(f".{wanted}")), None):
            raise ValueError(
                f"target_modules: {wanted!r} also means packed experts, {expert}, which no adapter covers; "
                f"leave it out, or name more of a projection, as in shared_expert.{wanted}; candidates are "
                f"{there}"
            )
        if not any(f".{name}".endswith(f".{wanted}") for name in found):
            raise ValueError(f"target_modules: no projection is named {wanted!r}; candidates are {there}")
    ends = tuple(f".{wanted}" for wanted in names)
    return {name: module for name, module in found.items() if f".{name}".endswith(ends)}


def target_names(model: nn.Module, targets: Collection[str], names: Sequence[str]) -> list[str]:
    """What PEFT is told so that it adapts the `targets`: the names, or all of each where they mean more."""
    ends = tuple(f".{name}" for name in names)
    meant = {name for name, _ in model.named_modules() if f".{name}".endswith(ends)}
    return list(names) if meant == set(targets) else list(targets)


def _language(model: nn.Module) -> tuple[str, ...] | None:
    """Where the language model and its head lie in a model of more than text; None for one of text alone."""
    config = getattr(model, "config", None)
    if not hasattr(model, "get_decoder") or config.is_encoder_decoder or config.get_text_config() is config:
        return None
    parts = (model.get_decoder(), model.get_output_embeddings())
    return tuple(f"{name}." for name, module in model.named_modules() if any(module is one for one in parts))


_taken: WeakSet[nn.Module] = WeakSet()


@contextmanager
def taken(*models: nn.Module) -> Iterator[None]:
    """Within the block `check_plain` refuses the models, also where nothing on them tells that they adapt."""
    _taken.update(models)
    try:
        yield
    finally:
        _taken.difference_update(models)


def check_plain(model: nn.Module) -> None:
    """ValueError for a model that carries adapters: a second one would change what the first computes."""
    if model in _taken or any(hasattr(module, "lora_A") for module in model.modules()):
        raise ValueError(
            "the model already carries adapters: leave the block that put them on, or detach(model); those "
            "of PEFT go with merge_and_unload(), which keeps what they learned"
        )
