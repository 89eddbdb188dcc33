"""Sixteen samples per prompt: negdistill.sample against model.generate, in tokens per second.

    python benchmarks/sampling.py                            # about five minutes on a CPU
    python benchmarks/sampling.py --device cuda --llama-1b   # a random LLaMA, 1.2 B parameters, bfloat16

The student is the embedded one, adapted to the task for half a minute (row "CoT KD"): its answers end
where answers end; a random LLaMA never ends, its answers take --max-new-tokens. Equality of greedy tokens in
float64 is asserted first. Then three ways take turns:

one prompt   model.generate(num_return_sequences=16), prompt by prompt
batched      the fastest of: generate over several prompts of similar length; the same in rounds, where
             the rows that have not ended after --first tokens are put aside and continued together
ours         negdistill.sample

Counted are tokens up to the end of text. Writes sampling.json and sampling.md into --out (default:
benchmarks/results).
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from measuring import keep, options, provenance, ratio, spread, untrained
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from negdistill.data import arithmetic
from negdistill.data.prompts import format_prompt
from negdistill.inference.sample import sample
from negdistill.training.batching import encode_prompts, pad_id
from negdistill.training.dataset import training_set
from negdistill.training.fit import adapted, fit
from negdistill.training.settings import settings
from negdistill.training.students import Student, load_student

N = 16

# --- students -----------------------------------------------------------------------------------------


@contextmanager
def prepared(arguments: argparse.Namespace) -> Iterator[Student]:
    """The student to sample from."""
    student = load_student("embedded", device=arguments.device, dtype=getattr(torch, arguments.dtype))
    if arguments.llama_1b:
        yield student._replace(model=llama(arguments, student.tokenizer.eos_token_id))
        return
    problems = arithmetic.generate("train", 300, seed=0)
    data = training_set(problems, arithmetic.teach(problems, n=8))
    with tempfile.TemporaryDirectory() as folder:
        made = fit("CoT KD", student, data, settings(epochs=arguments.epochs), folder)
        with adapted(student, made) as trained:
            yield trained._replace(model=trained.model.get_base_model())


def llama(arguments: argparse.Namespace, end: int) -> LlamaForCausalLM:
    """The shape of LLaMA-3.2-1B with the vocabulary of LLaMA-2, random weights."""
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=2048,
        eos_token_id=end,
    )
    return untrained(config, arguments).eval()


# --- generate -----------------------------------------------------------------------------------------


def generate(
    student: Student, rows: Sequence[Sequence[int]], tokens: int, n: int = 1, greedy: bool = False
) -> list[list[int]]:
    """`n` continuations of each row by model.generate, without what follows the end of text."""
    end, pad, width = student.tokenizer.eos_token_id, pad_id(student.tokenizer), max(map(len, rows))
    device = student.model.device
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=device)
    start = torch.tensor([[width - len(row)] for row in rows], device=device)
    config = GenerationConfig(
        do_sample=not greedy,
        top_k=None if greedy else 0,  # all tokens
        max_new_tokens=tokens,
        num_return_sequences=n,
        eos_token_id=end,
        pad_token_id=pad,
    )
    mask = (torch.arange(width, device=device) >= start).long()
    found = student.model.generate(ids, attention_mask=mask, generation_config=config)[:, width:].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in found]


def one_by_one(student: Student, rows: Sequence[Sequence[int]], tokens: int) -> int:
    return sum(len(text) for row in rows for text in generate(student, [row], tokens, N))


def batched(student: Student, rows: Sequence[Sequence[int]], tokens: int, prompts: int, first: int) -> int:
    """Batches of `prompts` prompts, longest first; rows that go on after `first` tokens are put aside."""
    end, total, aside = student.tokenizer.eos_token_id, 0, []
    rows = sorted(rows, key=len, reverse=True)
    for start in range(0, len(rows), prompts):
        group = rows[start : start + prompts]
        texts = generate(student, group, min(first, tokens), N)
        for place, text in enumerate(texts):
            total += len(text)
            if text[-1] != end and len(text) < tokens:
                aside.append((group[place // N] + text, tokens - len(text)))
    done = first
    while aside:
        aside.sort(key=lambda pair: len(pair[0]), reverse=True)
        later = []
        for start in range(0, len(aside), prompts * N):
            group = aside[start : start + prompts * N]
            limit = min(done, max(left for _, left in group))
            for (row, left), text in zip(
                group, generate(student, [row for row, _ in group], limit), strict=True
            ):
                text = text[:left]
                total += len(text)
                if text[-1] != end and len(text) < left:
                    later.append((row + text, left - len(text)))
        aside, done = later, 2 * done
    return total


def ours(student: Student, prompts: dict[str, str], tokens: int, seed: int) -> int:
    return sum(
        one.tokens for one in sample(student, prompts, N, max_new_tokens=tokens, seed=seed, progress=False)
    )


# --- measuring ----------------------------------------------------------------------------------------


def check(student: Student, prompts: dict[str, str], tokens: int) -> int:
    """Greedy tokens in float64, ours against generate's; their number."""
    exact = student._replace(model=copy.deepcopy(student.model).double())
    rows = encode_prompts(list(prompts.values()), student.tokenizer)
    expected = [generate(exact, [row], tokens, greedy=True)[0] for row in rows]
    found = [list(one.ids) for one in sample(exact, prompts, 1, 0.0, max_new_tokens=tokens, progress=False)]
    if found != expected:
        raise AssertionError("greedy tokens differ from those of model.generate")
    return sum(map(len, found))


def rate(action: Callable[[], int], device: str) -> float:
    """Tokens per second."""
    began = time.perf_counter()
    tokens = action()
    if device == "cuda":
        torch.cuda.synchronize()
    return tokens / (time.perf_counter() - began)


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    problems = arithmetic.generate("test", arguments.prompts, seed=0)
    prompts = {problem.id: format_prompt(problem.question) for problem in problems}
    limit, device = arguments.max_new_tokens, arguments.device
    with prepared(arguments) as student:
        rows = encode_prompts(list(prompts.values()), student.tokenizer)
        checked = check(student, dict(list(prompts.items())[:16]), limit)
        torch.manual_seed(0)
        candidates = {
            (size, first): rate(
                lambda size=size, first=first: batched(student, rows, limit, size, first), device
            )
            for size in arguments.batched
            for first in {arguments.first, limit}
        }
        best = max(candidates, key=candidates.get)
        ways = {
            "one prompt": lambda seed: one_by_one(student, rows[::4], limit),
            "batched": lambda seed: batched(student, rows, limit, *best),
            "ours": lambda seed: ours(student, prompts, limit, seed),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        ways["ours"](0)  # warm
        for turn in range(arguments.repeats):
            for name, way in ways.items():
                rates[name].append(rate(lambda way=way, turn=turn: way(turn), device))
    return {
        "greedy_tokens_checked": checked,
        "candidates": [[*key, value] for key, value in candidates.items()],
        "best": best,
        "tokens_per_second": rates,
        "ratio": {name: ratio(rates["ours"], rates[name]) for name in ("one prompt", "batched")},
    }


def report(result: dict) -> str:
    """The table in Markdown."""
    where, p = result["machine"], result["parameters"]
    student = "random LLaMA of 1.2 B parameters" if p["llama_1b"] else "embedded student with CoT KD"
    size, first = result["best"]
    lines = [
        f"{where['gpu'] or where['cpu']}, {result['threads']} thread(s), {p['dtype']}, torch "
        f"{result['versions']['torch']}, transformers {result['versions']['transformers']}; {student}, "
        f"{p['prompts']} prompts, {N} samples each, at most {p['max_new_tokens']} tokens; "
        f"{result['greedy_tokens_checked']} greedy tokens equal in float64; rates: median of {p['repeats']}; "
        "ratios: median of each turn's (quartiles).",
        "",
        "| way | tokens/s | ours / it |",
        "|---|---:|---:|",
    ]
    names = {
        "one prompt": "`generate`, prompt by prompt",
        "batched": f"`generate`, {size} prompts together, put aside after {first} tokens",
        "ours": "`negdistill.sample`",
    }
    for name, rates in result["tokens_per_second"].items():
        against = spread(result["ratio"][name]) if name in result["ratio"] else ""
        lines.append(f"| {names[name]} | {statistics.median(rates):,.0f} | {against} |")
    tried = "; ".join(f"{size} prompts, {first}: {value:,.0f}" for size, first, value in result["candidates"])
    return "\n".join([*lines, "", f"Batched ways tried (prompts, put aside after): {tried} tokens/s."]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, prompts=48, max_new_tokens=256, repeats=3, epochs=2, first=64)
    add = parser.add_argument
    add("--batched", type=int, nargs="+", default=[4, 8, 16], help="prompts of a batch of generate")
    add("--llama-1b", action="store_true", help="a random LLaMA in bfloat16 instead of the student")
    chosen = parser.parse_args(arguments)
    if chosen.llama_1b:
        chosen.dtype = "bfloat16"
    result = provenance(chosen) | measure(chosen)
    keep(result, report(result), chosen.out, "sampling-1b" if chosen.llama_1b else "sampling")


if __name__ == "__main__":
    main()
