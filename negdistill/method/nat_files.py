"""What NAT keeps on disk: LoRA pairs as PEFT writes them, and the marks by which a base is known again.

folder/adapter_config.json          what peft.LoraConfig says: r, lora_alpha, target_modules, ...
folder/adapter_model.safetensors    base_model.model.<module>.lora_A.weight [r, d_in]
                                    base_model.model.<module>.lora_B.weight [d_out, r]
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from negdistill.method.peft_loader import load_peft

Pairs = dict[str, tuple[Tensor, Tensor]]  # module name -> A [r, d_in], B [d_out, r]
Shapes = Mapping[str, tuple[int, int]]  # module name -> d_in, d_out

FILES = ("adapter_config.json", "adapter_model.safetensors")
KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
BEYOND = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias")  # more than plain LoRA


def read_adapter(folder: str | Path, shapes: Shapes) -> tuple[float, Pairs]:
    """Scaling s and pairs of a PEFT LoRA folder for exactly the modules in `shapes`.

    Raises ValueError for a folder without the two files, an adapter that is more than plain LoRA (DoRA, ranks
    that differ by module, ...), other modules than those of `shapes`, and widths of another base.
    """
    folder = Path(folder)
    for file in FILES:
        if not (folder / file).is_file():
            raise ValueError(f"{folder} holds no {file}: give a folder that PeftModel.save_pretrained wrote")
    config = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
    tensors = load_file(folder / FILES[1])
    beyond = [name for name in BEYOND if config.get(name)] + [
        key for key in tensors if not KEY.fullmatch(key)
    ]
    if config.get("peft_type") != "LORA" or beyond:
        what = beyond[0] if beyond else f"peft_type {config.get('peft_type')}"
        raise ValueError(f"{folder} is not a plain LoRA ({what}): train it with one r and no such options")
    found = {KEY.fullmatch(key)[1] for key in tensors}
    if found != shapes.keys():
        lacking, extra = sorted(shapes.keys() - found), sorted(found - shapes.keys())
        raise ValueError(
            f"{folder} adapts other projections: it lacks {', '.join(lacking[:3]) or 'none'}, it has besides "
            f"{', '.join(extra[:3]) or 'none'}; use one base and one target_modules for both"
        )
    pairs = {
        name: tuple(tensors[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        for name in shapes
    }
    r = config["r"]
    for name, (a, b) in pairs.items():
        d_in, d_out = shapes[name]
        if a.shape != (r, d_in) or b.shape != (d_out, r):
            there = f"A {list(a.shape)}, B {list(b.shape)} with r {r} there"
            raise ValueError(f"{folder} belongs to another base: {name} is {d_in} -> {d_out} here, {there}")
    return config["lora_alpha"] / (math.sqrt(r) if config.get("use_rslora") else r), pairs


def write_adapter(folder: Path, pairs: Pairs, model: nn.Module, **settings: object) -> None:
    """Write a PEFT LoRA folder that `PeftModel.from_pretrained` loads on the base of `model`.

    settings  lora_alpha, lora_dropout, target_modules and fan_in_fan_out of peft.LoraConfig
    """
    name = model.config.name_or_path
    fixed = {"task_type": "CAUSAL_LM", "base_model_name_or_path": name, "inference_mode": True}
    (r,) = {len(a) for a, _ in pairs.values()}
    load_peft().LoraConfig(r=r, **fixed, **settings).save_pretrained(folder)
    named = (
        (f"base_model.model.{name}.lora_{part}.weight", w)
        for name, ab in pairs.items()
        for part, w in zip("AB", ab, strict=True)
    )
    tensors = {key: w.detach().cpu() for key, w in named}
    save_file(tensors, folder / FILES[1], metadata={"format": "pt"})


def fingerprint(model: nn.Module, shapes: Shapes) -> dict[str, object]:
    """Marks of a base in JSON's types: architecture, adapted widths, and 16 numbers of its embedding."""
    table = model.get_input_embeddings().weight.detach()
    return {
        "model_type": model.config.model_type,
        "vocabulary": len(table),
        "widths": {name: list(pair) for name, pair in shapes.items()},
        "embedding": table.flatten()[:: max(1, table.numel() // 16)][:16].float().tolist(),
    }


def check_base(folder: Path, there: Mapping, here: Mapping) -> None:
    """Raise ValueError where two fingerprints are not of one base, in whatever dtype each is."""
    for mark in ("model_type", "vocabulary", "widths"):
        if there[mark] != here[mark]:
            pair = f"its {mark} is {there[mark]}, the model's {here[mark]}"
            raise ValueError(f"{folder} belongs to another base: {pair}")
    numbers = (torch.tensor(marks["embedding"]) for marks in (there, here))
    if not torch.allclose(*numbers, rtol=0.01, atol=1e-6):
        raise ValueError(
            f"{folder} belongs to another base: the embeddings differ; load the one it was trained on"
        )
