"""Settings: adapters, optimiser, budget and seed, the same for every method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType

from negdistill.checks import check_choice, check_number, check_type, check_whole
from negdistill.data.prompts import PRESETS
from negdistill.method.nat_unit import (
    NATConfig,
)
from negdistill.training.loop import TrainConfig

# For the embedded student: every projection of a LLaMA block, and a unit as narrow as its base.
EMBEDDED = NATConfig(
    target_modules=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), unit_dim=32
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all rows share.

    nat     rank, alpha, dropout and projections of every adapter; width of the unit
    train   optimiser, budget and seed. max_steps and max_tokens are the budget of a row with all that it
            uses: what that took is subtracted, and what is not there yet is given an equal share. epochs are
            those of each training.
    preset  name in `prompts.PRESETS`
    mixing, temperature, top_k   of KD and NCE, as in `nce.distilled` and `teacher_cache.teacher_cache`
    shots   worked examples of Few-shot
    """

    nat: NATConfig
    train: TrainConfig
    preset: str = "fixed"
    mixing: float = 0.5
    temperature: float = 1.0
    top_k: int = 128
    shots: int = 4

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, PRESETS)
        check_type("nat", self.nat, NATConfig, "a NATConfig")
        check_type("train", self.train, TrainConfig, "a TrainConfig")
        for name in ("shots", "top_k"):
            check_whole(name, getattr(self, name), 1)
        check_number("temperature", self.temperature, above=0)
        check_number("mixing", self.mixing, 0, 1)


_PAPER = Settings(
    nat=NATConfig(),
    train=TrainConfig(
        epochs=20,
        batch_size=8,
        gradient_accumulation_steps=16,
        lr=3e-4,
        warmup_steps=200,
        checkpoint_every=100,
    ),
)
SETTINGS: Mapping[str, Settings] = MappingProxyType(
    {
        "embedded": Settings(
            nat=EMBEDDED, train=TrainConfig(epochs=20, batch_size=32, lr=3e-3, checkpoint_every=100)
        ),
        "paper": _PAPER,
        "faithful": replace(_PAPER, preset="faithful"),
    }
)


def settings(name: str = "embedded", **changes: object) -> Settings:
    """A copy of SETTINGS[name] with fields of it, of its NATConfig or of its TrainConfig changed.

    name     "embedded", for the embedded student; "paper", of arXiv 2312.12832; "faithful", the same with the
             text format of its released code
    changes  fields by name, in the units and ranges that Settings, NATConfig and TrainConfig give

    settings(max_steps=300, seed=1) trains 300 steps: of epochs, max_steps and max_tokens the one given holds.
    ValueError for an unknown name or field, a value out of its range, and more than one of these three;
    TypeError for a value of another type.
    """
    check_choice("name", name, SETTINGS)
    base = SETTINGS[name]
    if changes.keys() & {"epochs", "max_steps", "max_tokens"}:
        changes = {"epochs": None, "max_steps": None, "max_tokens": None} | changes
    parts: dict[str, dict[str, object]] = {"train": {}, "nat": {}, "": {}}
    for key, value in changes.items():
        owners = {"train": TrainConfig, "nat": NATConfig, "": Settings}
        owner = next((part for part, kind in owners.items() if key in {f.name for f in fields(kind)}), None)
        if owner is None:
            known = [field.name for kind in owners.values() for field in fields(kind)]
            check_choice("setting", key, known)
        parts[owner][key] = value
    own = {"train": replace(base.train, **parts["train"]), "nat": replace(base.nat, **parts["nat"])}
    return replace(base, **own | parts[""])
