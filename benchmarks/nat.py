"""The integrate unit against the literal order of operations, and a NAT step against a plain LoRA step.

    python benchmarks/nat.py                                   # a few minutes on a CPU
    python benchmarks/nat.py --device cuda --llama-7b          # the shape of LLaMA-7B, bfloat16

1. One projection d -> d. Equality of output and all gradients in float64 is asserted first; then forward plus
   backward of both orders are timed in turn, and the bytes that autograd keeps are counted.
2. A whole training step (forward, backward, AdamW) of one model with PEFT's LoRA and with NAT, in turn.
   TFLOP/s count 4 N FLOPs per token (N parameters of the base; its weights get no gradient); the ceiling is a
   large square product timed among them.

Writes nat.json and nat.md into --out (default: benchmarks/results).
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
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
from torch import Tensor, nn

from negdistill.method.nat import attach
from negdistill.method.nat_unit import UNIT, DualLinear, NATConfig, integrate_plain

TOLERANCE = 1e-10  # of the largest difference in float64, relative to the largest number


def literal(layer: DualLinear, x: Tensor) -> Tensor:
    """The formula as it is printed: both branches formed, scored, and sent through the value matrices."""
    seen = {"pos": F.dropout(x, layer.dropout, layer.training), "neg": x}
    branches = (layer.scaling[b] * layer.lora_B[b](layer.lora_A[b](seen[b])) for b in seen)
    unit = (getattr(layer, part).weight for part in UNIT)
    return integrate_plain(x, layer.base_layer(x), *branches, *unit)[0]


# --- measuring ----------------------------------------------------------------------------------------


def kept_bytes(forward: Callable[[], object], model: nn.Module) -> int:
    """Bytes of the distinct tensors that autograd keeps for backward, the model's own weights not counted."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}  # holding the tensors keeps their addresses apart

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del result
    return total


def matmul(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """A large square product, and its FLOPs: what this machine can do at best."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return (lambda: a @ b), 2 * n**3


# --- one projection -----------------------------------------------------------------------------------


def dual(width: int, dropout: float, device: torch.device, dtype: torch.dtype) -> DualLinear:
    """A projection with trained-looking matrices: none is zero, scores are of order one."""
    torch.manual_seed(0)
    base = nn.Linear(width, width, bias=False, device=device, dtype=dtype)
    layer = attach(nn.ModuleDict({"p": base}), NATConfig(dropout=dropout, target_modules=("p",)))["p"].train()
    for linear in (layer.lora_A["neg"], *layer.lora_B.values(), layer.value_out):
        nn.init.normal_(linear.weight, std=0.1)
    return layer


def largest_difference(width: int, tokens: int, device: torch.device) -> float:
    """Of output and gradients in float64, each relative to its largest number."""
    layer = dual(width, 0.0, device, torch.float64)
    x = torch.randn(2, tokens, width, device=device, dtype=torch.float64, requires_grad=True)
    towards = torch.randn_like(x)
    wanted = [x, *(parameter for parameter in layer.parameters() if parameter.requires_grad)]
    results = []
    for order in (literal, DualLinear.forward):
        out = order(layer, x)
        results.append([out, *torch.autograd.grad(out, wanted, towards)])
    return max(((a - b).abs().max() / a.abs().max()).item() for a, b in zip(*results, strict=True))


def measure_layer(width: int, dropout: float, arguments: argparse.Namespace) -> dict[str, object]:
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    difference = largest_difference(width, min(arguments.tokens, 128), device)
    if not difference < TOLERANCE:
        raise AssertionError(f"the two orders differ by {difference:.1e} in float64 at width {width}")
    layer = dual(width, dropout, device, dtype).to(dtype)
    x = torch.randn(1, arguments.tokens, width, device=device, dtype=dtype, requires_grad=True)
    towards = torch.randn_like(x)

    def step(order: Callable[[DualLinear, Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            order(layer, x).backward(towards)
            layer.zero_grad()
            x.grad = None

        return run

    orders = {"literal": literal, "ours": DualLinear.forward}
    seconds = in_turn({name: step(order) for name, order in orders.items()}, arguments.repeats, device)
    kept = {name: kept_bytes(lambda order=order: order(layer, x), layer) for name, order in orders.items()}
    return {
        "width": width,
        "dropout": dropout,
        "tokens": arguments.tokens,
        "largest_difference": difference,
        "milliseconds_min": {name: 1e3 * min(values) for name, values in seconds.items()},
        "milliseconds_median": {name: 1e3 * statistics.median(values) for name, values in seconds.items()},
        "ratio": ratio(seconds["literal"], seconds["ours"]),
        "saved_bytes": kept,
        "ratio_saved": kept["literal"] / kept["ours"],
    }


# --- a whole step -------------------------------------------------------------------------------------


def measure_model(arguments: argparse.Namespace) -> list[dict[str, object]]:
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    base = llama(arguments)
    size = sum(parameter.numel() for parameter in base.parameters())
    weights = sum(parameter.nbytes for parameter in base.parameters())
    lora = LoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=["q_proj", "v_proj"])
    models = {"LoRA (PEFT)": get_peft_model(copy.deepcopy(base), lora), "NAT": attach(base, NATConfig())}
    if arguments.compile:
        for model in models.values():
            model.compile()
    ids = torch.randint(0, arguments.vocabulary, (arguments.batch, arguments.length), device=device)
    peaks: dict[str, list[int]] = {name: [] for name in models}
    steps = {name: training_step(model.train(), ids, weights, peaks[name]) for name, model in models.items()}
    product, flops = matmul(device, getattr(torch, arguments.dtype))
    seconds = in_turn(steps | {"matmul": product}, arguments.repeats, device)
    rows = []
    for name, model in models.items():
        rate = 4 * size * ids.numel() / min(seconds[name])
        rows.append(
            {
                "method": name,
                "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
                "seconds_min": min(seconds[name]),
                "seconds_median": statistics.median(seconds[name]),
                "ratio": ratio(seconds[name], seconds["LoRA (PEFT)"]),
                "tokens_per_second": ids.numel() / min(seconds[name]),
                "tflops": rate / 1e12,
                "share_of_ceiling": rate / (flops / min(seconds["matmul"])),
                "saved_bytes": kept_bytes(lambda model=model: model(input_ids=ids, labels=ids), model),
                "peak_bytes": max(peaks[name], default=None),
            }
        )
    return rows


# --- report -------------------------------------------------------------------------------------------


def report(result: dict) -> str:
    """The two tables in Markdown."""
    where, p = result["machine"], result["parameters"]
    lines = [
        f"{where['gpu'] or where['cpu']}, {result['threads']} thread(s), {p['dtype']}, "
        f"torch {result['versions']['torch']}, peft {result['versions']['peft']}; "
        f"times: fastest of {p['repeats']} (median); ratios: median of each turn's (quartiles).",
        "",
        f"One projection, r = 8, unit_dim = 128, {p['tokens']} tokens, forward and backward:",
        "",
        "| width | dropout | literal, ms | ours, ms | ratio | saved, literal | ours | ratio | in float64 |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["layer"]:
        low, mid, kept = row["milliseconds_min"], row["milliseconds_median"], row["saved_bytes"]
        lines.append(
            f"| {row['width']} | {row['dropout']} "
            + "".join(f"| {low[name]:.1f} ({mid[name]:.1f}) " for name in ("literal", "ours"))
            + f"| {spread(row['ratio'])} "
            + "".join(f"| {kept[name] / 2**20:.1f} MiB " for name in ("literal", "ours"))
            + f"| {row['ratio_saved']:.2f} | {row['largest_difference']:.0e} |"
        )
    shape = f"width {p['model_width']}, {p['layers']} layers, vocabulary {p['vocabulary']}"
    shape += ", compiled" if p["compile"] else ""
    lines += [
        "",
        f"Training step of a LLaMA ({shape}), {p['batch']} x {p['length']} tokens, q_proj and v_proj:",
        "",
        "| method | trainable | step, s | NAT / LoRA | tokens/s | TFLOP/s | of ceiling | saved | peak |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["model"]:
        peak = f"{row['peak_bytes'] / 2**30:.1f} GiB" if row["peak_bytes"] else ""
        against = spread(row["ratio"]) if row["method"] == "NAT" else ""
        lines.append(
            f"| {row['method']} | {row['trainable']:,} "
            f"| {row['seconds_min']:.3f} ({row['seconds_median']:.3f}) | {against} "
            f"| {row['tokens_per_second']:,.0f} | {row['tflops']:.3g} | {row['share_of_ceiling']:.0%} "
            f"| {row['saved_bytes'] / 2**20:,.0f} MiB | {peak} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    shape = {"tokens": 1024, "model_width": 1024, "layers": 2, "vocabulary": 2048, "batch": 4, "length": 256}
    parser = options(__doc__, **shape)
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1024, 2048], help="of the projection")
    parser.add_argument("--compile", action="store_true", help="both models through torch.compile")
    add_llama_7b(parser)
    chosen = shaped(parser.parse_args(arguments))
    layer = [measure_layer(width, dropout, chosen) for width in chosen.widths for dropout in (0.05, 0.0)]
    result = provenance(chosen) | {"layer": layer, "model": measure_model(chosen)}
    name = ("nat-7b" if chosen.llama_7b else "nat") + ("-compiled" if chosen.compile else "")
    keep(result, report(result), chosen.out, name)


if __name__ == "__main__":
    main()
