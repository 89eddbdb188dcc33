"""The frozen base compiled, or kept in 8 or 4 bits: what a LoRA step and a NAT step gain by it, and pay.

    python benchmarks/base.py                                  # some minutes on a CPU
    python benchmarks/base.py --device cuda --llama-7b         # the shape of LLaMA-7B, bfloat16

Every variant is the same random model. Before anything is timed, its logits are set beside those of the plain
one: compiled, they must be the same; quantised, the base is another model, and the table says how far away.
Then all variants take their training steps in turn. 8 and 4 bits need bitsandbytes.

Writes base.json and base.md into --out (default: benchmarks/results).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version

import torch
from measuring import (
    add_llama_7b,
    in_turn,
    keep,
    llama,
    options,
    provenance,
    ratio,
    shaped,
    spread,
    training_step,
)
from peft import LoraConfig, get_peft_model
from torch import nn

from negdistill.method.nat import attach
from negdistill.method.nat_unit import NATConfig
from negdistill.training.students import load_student

VARIANTS = ("plain", "compiled", "8bit", "4bit")
SAME = 1e-3  # difference of a compiled model's logits that rounding explains, of their spread


def adapted(base: nn.Module, method: str) -> nn.Module:
    """The base with a fresh adapter, in training mode and without dropout, so that losses can be compared."""
    if method == "NAT":
        return attach(base, NATConfig(dropout=0.0)).train()
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    return get_peft_model(base, lora).train()


def measure(method: str, folder: str, arguments: argparse.Namespace) -> list[dict[str, object]]:
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    torch.manual_seed(0)
    ids = torch.randint(0, arguments.vocabulary, (arguments.batch, arguments.length), device=device)
    models, logits, sizes, first = {}, {}, {}, {}
    for variant in VARIANTS:
        quantize = variant if variant.endswith("bit") else None
        base = load_student(folder, dtype, device, quantize).model
        sizes[variant] = sum(tensor.nbytes for tensor in (*base.parameters(), *base.buffers()))
        torch.manual_seed(1)
        models[variant] = model = adapted(base, method)
        if variant == "compiled":
            model.compile()
        with torch.no_grad():
            logits[variant] = model(input_ids=ids).logits.float()
        began = time.perf_counter()
        training_step(model, ids, 0, [])()  # compiles forward and backward
        first[variant] = time.perf_counter() - began
    scale = logits["plain"].std()
    away = {variant: ((logits[variant] - logits["plain"]).std() / scale).item() for variant in VARIANTS}
    if not away["compiled"] < SAME:
        raise AssertionError(f"compiled, the logits of {method} differ by {away['compiled']:.1e}")
    peaks: dict[str, list[int]] = {variant: [] for variant in VARIANTS}
    held = sum(sizes.values())
    steps = {
        name: training_step(model, ids, held - sizes[name], peaks[name]) for name, model in models.items()
    }
    seconds = in_turn(steps, arguments.repeats, device)
    return [
        {
            "method": method,
            "base": variant,
            "step_seconds_median": statistics.median(seconds[variant]),
            "first_step_seconds": first[variant],
            "faster_than_plain": ratio(seconds["plain"], seconds[variant]),
            "base_bytes": sizes[variant],
            "logits_away": away[variant],
            "peak_bytes": max(peaks[variant], default=None),
        }
        for variant in VARIANTS
    ]


def report(result: dict[str, object]) -> str:
    p, where = result["parameters"], result["machine"]
    lines = [
        "# The frozen base, compiled or quantised",
        "",
        f"{where['gpu'] or where['cpu']}, {result['threads']} thread(s), {p['dtype']}, "
        f"torch {result['versions']['torch']}, bitsandbytes {result['bitsandbytes']}. LLaMA of width "
        f"{p['model_width']}, {p['layers']} layers, vocabulary {p['vocabulary']}, "
        f"{p['batch']} x {p['length']} tokens, q_proj, v_proj. Median of {p['repeats']} turns; times faster "
        "with quartiles.",
        "",
        "| method | base | step, s | times faster | first step, s | base, MiB | logits away | peak |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        peak = f"{row['peak_bytes'] / 2**30:.1f} GiB" if row["peak_bytes"] else ""
        lines.append(
            f"| {row['method']} | {row['base']} | {row['step_seconds_median']:.3f} "
            f"| {spread(row['faster_than_plain'])} | {row['first_step_seconds']:.1f} "
            f"| {row['base_bytes'] / 2**20:,.1f} | {row['logits_away']:.0e} | {peak} |"
        )
    lines += ["", "*Logits away*: standard deviation of their difference to the plain base, of theirs.", ""]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    shape = {"model_width": 1024, "layers": 4, "vocabulary": 8000, "batch": 4, "length": 128}
    parser = options(__doc__, **shape)
    add_llama_7b(parser)
    chosen = shaped(parser.parse_args(arguments))
    with tempfile.TemporaryDirectory() as folder:
        llama(chosen).save_pretrained(folder)
        load_student(device="cpu").tokenizer.save_pretrained(folder)  # any will do: no text is read
        rows = [row for method in ("LoRA (PEFT)", "NAT") for row in measure(method, folder, chosen)]
    result = provenance(chosen) | {"bitsandbytes": version("bitsandbytes"), "rows": rows}
    keep(result, report(result), chosen.out, "base-7b" if chosen.llama_7b else "base")


if __name__ == "__main__":
    main()
