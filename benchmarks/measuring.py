"""What the benchmarks share: a model of a shape, turns, ratios, options, and how a result is kept."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from negdistill.runs.files import atomic_write_text
from negdistill.runs.folder import machine, versions

LLAMA_7B = {"model_width": 4096, "layers": 32, "vocabulary": 32000, "length": 512, "dtype": "bfloat16"}

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


def ratio(slow: Sequence[float], fast: Sequence[float]) -> list[float]:
    """Quartiles of slow / fast over the turns: the middle one is the ratio, the others how sure it is."""
    return statistics.quantiles([a / b for a, b in zip(slow, fast, strict=True)], n=4, method="inclusive")


def spread(quartiles: Sequence[float]) -> str:
    low, middle, high = quartiles
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


# --- models -------------------------------------------------------------------------------------------


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
    return untrained(config, arguments)


def untrained(config: LlamaConfig, arguments: argparse.Namespace) -> LlamaForCausalLM:
    """A model with random weights, made in its type and where it is to compute."""
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


# --- command line -------------------------------------------------------------------------------------


def turns(text: str) -> int:
    """A number of repeats, as the command line gives it; quartiles need two."""
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2, which quartiles need; got {text}")
    return number


def plain_options(description: str, **defaults: int) -> argparse.ArgumentParser:
    """A parser with --out and an integer option for each of the defaults; the description is a module's."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    for name, default in defaults.items():
        kind = turns if name == "repeats" else int
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default)
    return parser


def options(description: str, **defaults: int) -> argparse.ArgumentParser:
    """`plain_options` with --device, --dtype and --repeats; defaults are the shape of what is measured."""
    parser = plain_options(description, **{"repeats": 10} | defaults)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    return parser


def add_llama_7b(parser: argparse.ArgumentParser) -> None:
    text = "width 4096, 32 layers, vocabulary 32000, rows of 512, bfloat16"
    parser.add_argument("--llama-7b", action="store_true", help=text)


def shaped(chosen: argparse.Namespace) -> argparse.Namespace:
    """The options with the shape of LLaMA-7B, if that was asked for."""
    return argparse.Namespace(**(vars(chosen) | (LLAMA_7B if chosen.llama_7b else {})))


def provenance(chosen: argparse.Namespace, *left_out: str) -> dict[str, object]:
    """Machine, threads, versions and options: what every result begins with."""
    parameters = {name: value for name, value in vars(chosen).items() if name not in ("out", *left_out)}
    about = {"machine": machine(), "threads": torch.get_num_threads(), "versions": versions()}
    return about | {"parameters": parameters}


def keep(result: dict[str, object], table: str, out: Path, name: str) -> None:
    """Write name.json and name.md into `out`, and show the table."""
    atomic_write_text(out / f"{name}.json", json.dumps(result, indent=1) + "\n")
    atomic_write_text(out / f"{name}.md", table)
    print(table)
