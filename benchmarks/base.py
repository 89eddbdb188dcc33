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
import json
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch
from nat import in_turn, llama, ratio, spread, training_step
from peft import LoraConfig, get_peft_model
from torch import nn

from negdistill.artifacts import atomic_write_text, machine, versions
from negdistill.nat import NATConfig, attach
from negdistill.students import load_student

VARIANTS = ("plain", "compiled", "8bit", "4bit")
SAME = 1e-3  # relative difference of a compiled model's loss that rounding explains


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
        f"{where['gpu'] or where['cpu']}, {p['threads']} threads, torch {result['versions']['torch']}, "
        f"bitsandbytes {result['bitsandbytes']}, {p['dtype']}. LLaMA of width {p['model_width']}, "
        f"{p['layers']} layers, vocabulary {p['vocabulary']}, {p['batch']} x {p['length']} tokens, q_proj, "
        f"v_proj. Median of {p['repeats']} turns; times faster with quartiles.",
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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cpu")
    add("--dtype", default="float32", choices=["float32", "bfloat16"])
    add("--threads", type=int, default=1)
    add("--model-width", type=int, default=1024)
    add("--layers", type=int, default=4)
    add("--vocabulary", type=int, default=8000)
    add("--batch", type=int, default=4, help="rows of a batch")
    add("--length", type=int, default=128, help="tokens per row")
    add("--repeats", type=int, default=10)
    add(
        "--llama-7b",
        action="store_true",
        help="width 4096, 32 layers, vocabulary 32000, rows of 512, bfloat16",
    )
    add("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args(arguments)
    if chosen.llama_7b:
        shape = {"model_width": 4096, "layers": 32, "vocabulary": 32000, "length": 512, "dtype": "bfloat16"}
        chosen = argparse.Namespace(**(vars(chosen) | shape))
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as folder:
        llama(chosen).save_pretrained(folder)
        load_student("embedded", device="cpu").tokenizer.save_pretrained(
            folder
        )  # any will do: it reads no text
        rows = [row for method in ("LoRA (PEFT)", "NAT") for row in measure(method, folder, chosen)]
    result = {
        "machine": machine(),
        "versions": versions(),
        "bitsandbytes": version("bitsandbytes"),
        "parameters": {name: value for name, value in vars(chosen).items() if name != "out"},
        "rows": rows,
    }
    name = "base-7b" if chosen.llama_7b else "base"
    atomic_write_text(chosen.out / f"{name}.json", json.dumps(result, indent=1) + "\n")
    atomic_write_text(chosen.out / f"{name}.md", report(result))
    print(report(result))


if __name__ == "__main__":
    main()
