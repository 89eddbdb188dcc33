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
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from negdistill.artifacts import atomic_write_text, machine, versions
from negdistill.nat import DualLinear, NATConfig, attach

TOLERANCE = 1e-10  # of the largest difference in float64, relative to the largest number


def literal(layer: DualLinear, x: Tensor) -> Tensor:
    """The formula as it is printed: both branches formed, scored, and sent through the value matrices."""
    y = layer.base_layer(x)
    seen = {"pos": F.dropout(x, layer.dropout, layer.training), "neg": x}
    h = {b: y + layer.scaling[b] * layer.lora_B[b](layer.lora_A[b](seen[b])) for b in seen}
    query = layer.query(x)
    scores = torch.stack([(query * layer.key(h[b])).sum(-1) for b in h], dim=-1)
    alpha = torch.softmax(scores, dim=-1) + torch.tensor([0.5, -0.5], dtype=x.dtype, device=x.device)
    values = [layer.value_out(F.gelu(layer.value_in(h[b]))) for b in h]
    return y + alpha[..., :1] * values[0] + alpha[..., 1:] * values[1]


# --- measuring ----------------------------------------------------------------------------------------


def in_turn(
    actions: dict[str, Callable[[], None]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each repeat of each action; the actions take turns, so that noise meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for repeat in range(repeats + 1):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - began)
    return seconds


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


def ratio(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """Quartiles of slow / fast over the turns: the middle one is the ratio, the others how sure it is."""
    return statistics.quantiles([a / b for a, b in zip(slow, fast, strict=True)], n=4, method="inclusive")


def spread(quartiles: Sequence[float]) -> str:
    low, middle, high = quartiles
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


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


def llama(arguments: argparse.Namespace) -> LlamaForCausalLM:
    """LLaMA of a given width in the proportions of LLaMA-7B, random weights."""
    width = arguments.model_width
    config = LlamaConfig(
        vocab_size=arguments.vocabulary,
        hidden_size=width,
        intermediate_size=width * 11008 // 4096,
        num_hidden_layers=arguments.layers,
        num_attention_heads=max(1, width // 128),
        max_position_embeddings=2048,
        use_cache=False,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, arguments.dtype))
    with torch.device(arguments.device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(before)
    return model


def training_step(model: nn.Module, ids: Tensor, others: int, peaks: list[int]) -> Callable[[], None]:
    """Forward, backward, AdamW; peak bytes join `peaks`, without `others`, which another model holds."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4, fused=True)

    def run() -> None:
        if ids.is_cuda:
            torch.cuda.reset_peak_memory_stats()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if ids.is_cuda:
            peaks.append(torch.cuda.max_memory_allocated() - others)

    return run


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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--dtype", default="float32", choices=["float32", "bfloat16"])
    add("--widths", type=int, nargs="+", default=[512, 1024, 2048], help="of the projection")
    add("--tokens", type=int, default=1024, help="through the projection")
    add("--model-width", type=int, default=1024)
    add("--layers", type=int, default=2)
    add("--vocabulary", type=int, default=2048)
    add("--batch", type=int, default=4, help="rows of the model's batch")
    add("--length", type=int, default=256, help="tokens per row")
    add("--repeats", type=int, default=10)
    add("--compile", action="store_true", help="both models through torch.compile")
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
    layer = [measure_layer(width, dropout, chosen) for width in chosen.widths for dropout in (0.05, 0.0)]
    parameters = {name: value for name, value in vars(chosen).items() if name != "out"}
    result = {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "parameters": parameters,
    }
    result |= {"layer": layer, "model": measure_model(chosen)}
    name = ("nat-7b" if chosen.llama_7b else "nat") + ("-compiled" if chosen.compile else "")
    atomic_write_text(chosen.out / f"{name}.json", json.dumps(result, indent=1) + "\n")
    atomic_write_text(chosen.out / f"{name}.md", report(result))
    print(report(result))


if __name__ == "__main__":
    main()
