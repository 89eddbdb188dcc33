"""Resident memory of a real student over many training steps on a CPU, in a process of its own.

    python benchmarks/real_memory.py                # 500 steps, an hour on one core

The student, its data and its steps are those of `real.py`. Batches differ in length, so blocks of many sizes
are asked for and given back: what is watched is whether the process grows with the steps.

Writes real_memory.json and real_memory.md into --out (default: benchmarks/results).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import torch
from measuring import keep, plain_options, provenance
from nce_memory import status
from real_steps import BATCH, SEVEN, examples, old, stepper
from real_trl import TRL, Turns, sft

from negdistill.method.nat_unit import NATConfig
from negdistill.training.adapters import lora
from negdistill.training.batching import encode
from negdistill.training.students import load_student

SHOWN = 10  # rows of the table


def remember(way: str, steps: int, questions: int) -> list[float]:
    """Resident memory after each of `steps` steps in this process, GiB."""
    student = load_student("smollm2-135m", torch.bfloat16)
    texts = examples(questions)
    rows = encode(texts, student.tokenizer, 2048)
    if way in TRL:
        turns = Turns()
        del student
        sft(texts, rows, steps, TRL[way], turns).train()
        return turns.resident
    with lora(student.model, NATConfig(target_modules=SEVEN)) as model:
        step, path = stepper(student, model.train(), rows), []
        for number in range(steps):
            if way == "old":
                with old(model):
                    step(number)
            else:
                step(number)
            path.append(status("VmRSS") / 2**30)
            if (number + 1) % 50 == 0:
                print(f"{way}: {number + 1} of {steps} steps, {path[-1]:.2f} GiB", flush=True)
    return path


def measure_memory(ways: Sequence[str], steps: int, questions: int) -> dict[str, list[float]]:
    """`remember` of each way, one process after the other."""
    results = {}
    for way in ways:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            results[way] = pool.submit(remember, way, steps, questions).result()
    return results


def report(result: dict[str, object]) -> str:
    (path,), p = result["resident"].values(), result["parameters"]
    ends = [len(path) * (place + 1) // SHOWN for place in range(SHOWN)]
    lines = [
        f"{result['machine']['cpu']}, {result['threads']} thread, torch {result['versions']['torch']}; "
        f"smollm2-135m in bfloat16, LoRA on all seven projections, r 8, dropout 0.05, batch {BATCH} of "
        f"released MATH rationales of {p['questions']} questions.",
        "",
        "| steps | resident, GiB | largest so far, GiB |",
        "|---:|---:|---:|",
        *(f"| {end} | {path[end - 1]:.2f} | {max(path[:end]):.2f} |" for end in ends),
        "",
        "The goal is at most 4 GiB after 500 steps, and no growth.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = plain_options(__doc__, steps=500, questions=200)
    chosen = parser.parse_args(arguments)
    if chosen.steps < SHOWN:
        parser.error(f"--steps must be at least {SHOWN}, which the table shows; got {chosen.steps}")
    found = measure_memory(["LoRA"], chosen.steps, chosen.questions)
    result = provenance(chosen) | {"resident": found}
    keep(result, report(result), chosen.out, "real_memory")


if __name__ == "__main__":
    main()
