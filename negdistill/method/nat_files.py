"""What NAT keeps on disk: LoRA pairs as PEFT writes them, and the marks by which a base is known again.

folder/adapter_config.json          what peft.LoraConfig says: r, lora_alpha, target_modules, ...
folder/adapter_model.safetensors    base_model.model.<module>.lora_A.weight [r, d_in]
                                    base_model.model.<module>.lora_B.weight [d_out, r]
                                    in its metadata the marks of the base, if this package wrote it
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from negdistill.checks import check_number, check_whole
from negdistill.method.peft_loader import load_peft
from negdistill.method.projections import widths
from negdistill.runs.digests import digest_weights

Pairs = dict[str, tuple[Tensor, Tensor]]  # module name -> A [r, d_in], B [d_out, r]
Shapes = Mapping[str, tuple[int, int]]  # module name -> d_in, d_out

FILES = ("adapter_config.json", "adapter_model.safetensors")
KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# What adapter_config.json may say. All else must be empty: it makes an adapter more than a plain LoRA.
PLAIN = (
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "lora_dropout", "target_modules", "fan_in_fan_out", "use_rslora"),
    *("megatron_core", "qalora_group_size", "runtime_config"),  # act with an option that must be empty
)
EMPTY = (None, False, "none", [], {})
INITS = (True, False, "gaussian", "orthogonal")  # those that leave the base as it is
SAME = 0.01  # largest distance of two sketches, in norms of the weights; rounding to bfloat16 makes 0.002
# What a configuration says that changes no number of a text's logits.
SILENT = re.compile(
    r".*name_or_path|transformers_version|(torch_)?dtype|architectures|use_cache|quantization_config|auto_map|"
    r".*attn_implementation.*|.*(bos|eos|pad)_token_id|.*dropout|.*pdrop|init.*|id2label|label2id|"
    r"problem_type|output_\w+|return_dict|chunk_size_feed_forward|tie_word_embeddings|router_aux_loss_coef"
)

# --- adapters -----------------------------------------------------------------------------------------


class OtherBase(ValueError):
    """An adapter was trained on another base than the model that it is to stand on."""


def read_plain(folder: str | Path) -> tuple[dict[str, object], set[str], dict | None]:
    """Configuration of a PEFT LoRA folder, the modules that it adapts, and the marks of its base or None.

    ValueError for a folder without the two files, a damaged one, a configuration without the numbers r and
    lora_alpha, and an adapter that is more than plain LoRA:
    DoRA, PiSSA, ranks that differ by module, tokens that switch it on, ... What is not known is refused.
    """
    folder = Path(folder)
    for file in FILES:
        if not (folder / file).is_file():
            raise ValueError(f"{folder} holds no {file}: give a folder that PeftModel.save_pretrained wrote")
    try:
        config = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
        with safe_open(folder / FILES[1], framework="pt") as file:
            keys, marks = list(file.keys()), json.loads((file.metadata() or {}).get("base", "null"))
    except (ValueError, SafetensorError) as error:  # no JSON, or no UTF-8
        raise ValueError(f"{folder} is damaged: {error}; get it again, or train it again") from error
    _check_config(folder / FILES[0], config)
    if config.get("peft_type") != "LORA":
        beyond = f"peft_type {config.get('peft_type')}"
    elif (init := config.get("init_lora_weights", True)) not in INITS:
        beyond = f"init_lora_weights {init!r}"
    else:
        free = (*PLAIN, "init_lora_weights")
        options = [name for name, value in config.items() if name not in free and value not in EMPTY]
        beyond = next(iter([*options, *(key for key in keys if not KEY.fullmatch(key))]), None)
    if beyond is not None:
        raise ValueError(f"{folder} is not a plain LoRA ({beyond}): train it with one r and no such options")
    return config, {KEY.fullmatch(key)[1] for key in keys}, marks


def _check_config(place: Path, config: object) -> None:
    """ValueError, naming file and field, unless a configuration holds what a LoRA is scaled by."""
    if not isinstance(config, dict):
        raise ValueError(
            f"{place} must hold an object of JSON; got {config!r}; get it again, or train it again"
        )
    try:
        if config.get("peft_type") == "LORA":
            check_whole("r", config.get("r"), 1)
            check_number("lora_alpha", config.get("lora_alpha"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}; get it again, or train it again") from None


def read_adapter(folder: str | Path, shapes: Shapes) -> tuple[float, Pairs]:
    """Scaling s and pairs of a PEFT LoRA folder for exactly the modules in `shapes`.

    Raises ValueError as `read_plain`, for other modules than those of `shapes`, and widths of another base.
    """
    folder = Path(folder)
    config, found, _ = read_plain(folder)
    tensors = load_file(folder / FILES[1])
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
            raise OtherBase(f"{folder} belongs to another base: {name} is {d_in} -> {d_out} here, {there}")
    return config["lora_alpha"] / (math.sqrt(r) if config.get("use_rslora") else r), pairs


def check_adapter(folder: str | Path, model: nn.Module) -> None:
    """ValueError where PEFT would load a folder wrongly: more than plain LoRA, or an adapter of another base.

    A folder without marks of its base, as other programs write it, is taken at its word.
    """
    _, names, there = read_plain(folder)
    modules = dict(model.named_modules())
    if lacking := sorted(names - modules.keys()):
        raise OtherBase(f"{folder} belongs to another base: it adapts {lacking[0]}, which the model lacks")
    if there is not None:
        check_base(folder, there, fingerprint(model, {name: modules[name] for name in there["widths"]}))


def write_adapter(folder: Path, pairs: Pairs, model: nn.Module, base: Mapping, **settings: object) -> None:
    """Write a PEFT LoRA folder that `PeftModel.from_pretrained` loads on the base of `model`.

    base      `fingerprint` of the base
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
    _save(folder, {key: w.detach().cpu() for key, w in named}, base)


def mark_adapter(folder: Path, base: Mapping) -> None:
    """Put the marks of its base into a PEFT LoRA folder."""
    _save(folder, load_file(folder / FILES[1]), base)


def _save(folder: Path, tensors: Mapping[str, Tensor], base: Mapping) -> None:
    # one entry alone: safetensors writes several in an order of chance, and equal adapters are equal bytes
    save_file(dict(tensors), folder / FILES[1], metadata={"base": json.dumps(base)})


# --- bases --------------------------------------------------------------------------------------------


def fingerprint(model: nn.Module, targets: Mapping[str, nn.Module]) -> dict[str, object]:
    """Marks of a base in JSON's types: architecture, configuration, 16 numbers of its embedding, and of the
    projections in `targets` the widths, a digest, and a sketch that outlasts rounding.

    Quantised weights have neither digest nor sketch: libraries pack them as the processor likes it.
    """
    table = model.get_input_embeddings().weight.detach()
    said = json.loads(json.dumps(model.config.get_text_config().to_dict(), default=str))
    marks = {
        "model_type": model.config.model_type,
        "vocabulary": len(table),
        "widths": {name: list(widths(module)) for name, module in targets.items()},
        "config": {name: value for name, value in said.items() if not SILENT.fullmatch(name)},
        "embedding": table.flatten()[:: max(1, table.numel() // 16)][:16].float().tolist(),
    }
    weights = {name: module.weight.detach() for name, module in targets.items()}
    if all(weight.is_floating_point() for weight in weights.values()):
        marks["dtype"] = str(next(iter(weights.values())).dtype)
        marks["weights"] = digest_weights(weights.items())
        marks["sketch"] = {name: _sketch(weight) for name, weight in weights.items()}
    return marks


def _sketch(weight: Tensor) -> float:
    """u W v / |W| with signs u, v from a seed: another W moves it by about |W - W'| / |W|."""
    random = torch.Generator().manual_seed(0)
    signs = (torch.randint(0, 2, (d,), generator=random) * 2.0 - 1 for d in weight.shape)
    (u, v), wide = (sign.to(weight.device) for sign in signs), weight.float()
    return (u @ (wide @ v) / wide.norm().clamp(min=1e-30)).item()


def check_base(folder: str | Path, there: Mapping, here: Mapping) -> None:
    """Raise ValueError where two fingerprints are not of one base, in whatever dtype each is.

    What one of the two lacks is not compared: it was written before, or by another version of transformers.
    """
    for mark in ("model_type", "vocabulary", "widths"):
        if there[mark] != here[mark]:
            pair = f"its {mark} is {there[mark]}, the model's {here[mark]}"
            raise OtherBase(f"{folder} belongs to another base: {pair}")
    theirs, ours = there.get("config", {}), here["config"]
    for name in sorted(theirs.keys() & ours.keys()):
        if theirs[name] != ours[name]:
            pair = f"its {name} is {theirs[name]}, the model's {ours[name]}"
            raise OtherBase(f"{folder} belongs to another base: {pair}")
    numbers = (torch.tensor(marks["embedding"]) for marks in (there, here))
    if not torch.allclose(*numbers, rtol=0.01, atol=1e-6):
        raise OtherBase(
            f"{folder} belongs to another base: the embeddings differ; load the one it was trained on"
        )
    if not _same_weights(there, here):
        raise OtherBase(
            f"{folder} belongs to another base: the weights that it adapts differ; load the one it was "
            "trained on"
        )


def _same_weights(there: Mapping, here: Mapping) -> bool:
    """To the last bit in one dtype, up to rounding in two."""
    if "weights" not in there or "weights" not in here:
        return True
    if there["dtype"] == here["dtype"]:
        return there["weights"] == here["weights"]
    away = [there["sketch"][name] - value for name, value in here["sketch"].items()]
    return math.sqrt(sum(one * one for one in away) / len(away)) < SAME
