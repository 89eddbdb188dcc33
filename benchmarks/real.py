"""A real student in bfloat16 on a CPU: training and answering against their old forms, in one process.

    python benchmarks/real.py                       # a quarter of an hour on one core
    python benchmarks/real.py --steps 500           # for the memory as well

The student is smollm2-135m, the data are released rationales of MATH; both have to be there. *Old* is what
PEFT and transformers do by themselves: adapters in float32, a mask in every attention, lengths as they come,
the output layer on a slice. Equality is asserted before anything is timed: the loss of a batch without
dropout to LOSS, and most greedy tokens. Then the forms take turns on the same batches. Rates are tokens
without padding in a second of processor time, so that other processes matter less. Memory is that of a
process of its own.

Writes real.json and real.md into --out (default: benchmarks/results).
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from measuring import keep, options, provenance, ratio, spread
from sampling import generate
from torch import nn

from negdistill.data.prompts import format_prompt
from negdistill.data.tasks import load_task
from negdistill.inference.sample import sample
from negdistill.method.low_precision import fast_dtype, length_multiple, quicken
from negdistill.method.nat_unit import NATConfig
from negdistill.method.objectives import likelihood
from negdistill.training.adapters import lora, nat_lora
from negdistill.training.batching import Encoded, batches, collate, encode, encode_prompts, pad_id
from negdistill.training.dataset import training_set
from negdistill.training.students import Student, load_student

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LOSS = 1e-2  # difference of the loss of a token that rounding explains
SAME = 0.5  # share of greedy answers that are equal, at least; bfloat16 breaks ties otherwise in longer ones
BATCH = 8

# --- the old form -------------------------------------------------------------------------------------


@contextmanager
def old(model: nn.Module) -> Iterator[None]:
    """Within the block PEFT's own forward, masks, free lengths, and a slice before the output layer."""
    layers = [module for module in model.modules() if "forward" in vars(module) and hasattr(module, "lora_A")]
    for layer in layers:
        del layer.forward
    with (
        patch("negdistill.method.low_precision.on_cpu", lambda model: False),
        patch("negdistill.inference.kv_cache.on_cpu", lambda model: False),
    ):
        yield
    quicken(model)


# --- training -----------------------------------------------------------------------------------------


def examples(student: Student, questions: int) -> list[Encoded]:
    world = load_task("math")
    easy = [p for p in world.questions("train") if p.level in (1, 2, 3)][:questions]
    said = world.rationales(easy, "tdg-gpt-3.5-turbo", 2)
    data = training_set(easy, [one for one in said if len(one.text) <= 1200], **world.grading)
    return encode(data.examples("positives"), student.tokenizer, 2048)


def stepper(student: Student, model: nn.Module, rows: Sequence[Encoded]) -> Callable[[int], float]:
    """A training step on batch number n: its loss per target."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    groups, pad = batches(rows, BATCH, 0, 0), pad_id(student.tokenizer)

    def step(number: int) -> float:
        batch = collate([rows[i] for i in groups[number % len(groups)]], pad, length_multiple(model))
        loss = likelihood(model, batch) / batch["loss_mask"].sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    step.tokens = [sum(rows[i].length for i in group) for group in groups]
    return step


def first_loss(student: Student, model: nn.Module, rows: Sequence[Encoded]) -> float:
    batch = collate(rows[:BATCH], pad_id(student.tokenizer), length_multiple(model))
    with torch.no_grad():
        return (likelihood(model.eval(), batch) / batch["loss_mask"].sum()).item()


def timed(action: Callable[[], object]) -> float:
    began = time.process_time()
    action()
    return time.process_time() - began


def measure_steps(student: Student, rows: Sequence[Encoded], repeats: int) -> dict[str, object]:
    """Tokens a second of old LoRA, LoRA and NAT."""
    rates: dict[str, list[float]] = {name: [] for name in ("old", "LoRA", "NAT")}
    losses = {}
    with lora(student.model, NATConfig(target_modules=SEVEN)) as model:
        fill(model)
        losses["LoRA"] = first_loss(student, model, rows)
        with old(model):
            losses["old"] = first_loss(student, model, rows)
        if not abs(losses["LoRA"] - losses["old"]) < LOSS:
            raise AssertionError(f"the losses of one batch differ: {losses}")
        step = stepper(student, model.train(), rows)
        for turn in range(repeats + 1):
            seconds = {"LoRA": timed(lambda turn=turn: step(turn))}
            with old(model):
                seconds["old"] = timed(lambda turn=turn: step(turn))
            if turn:  # the first warms up
                for name, value in seconds.items():
                    rates[name].append(step.tokens[turn % len(step.tokens)] / value)
    with nat_lora(student.model, NATConfig(target_modules=SEVEN, unit_dim=32)) as model:
        step = stepper(student, model.train(), rows)
        for turn in range(repeats + 1):
            taken = timed(lambda turn=turn: step(turn))
            if turn:
                rates["NAT"].append(step.tokens[turn % len(step.tokens)] / taken)
    return {"losses": losses, "tokens_per_second": rates}


def fill(model: nn.Module) -> None:
    """Numbers as after some training: a fresh B is zero, and would hide what the adapters compute."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.005)


# --- memory -------------------------------------------------------------------------------------------


def remember(way: str, steps: int, questions: int) -> list[float]:
    """Largest, last and middle resident memory, GiB, of `steps` steps in this process."""
    torch.set_num_threads(1)
    student = load_student("smollm2-135m", torch.bfloat16)
    rows = examples(student, questions)
    with lora(student.model, NATConfig(target_modules=SEVEN)) as model:
        step, path = stepper(student, model.train(), rows), []
        for number in range(steps):
            if way == "old":
                with old(model):
                    step(number)
            else:
                step(number)
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            path.append(pages * resource.getpagesize() / 2**30)
    return [max(path), path[-1], path[len(path) // 2]]


def measure_memory(steps: int, questions: int) -> dict[str, list[float]]:
    results = {}
    for way in ("old", "LoRA"):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            results[way] = pool.submit(remember, way, steps, questions).result()
    return results


# --- answers ------------------------------------------------------------------------------------------


def measure_answers(
    student: Student, prompts: dict[str, str], tokens: int, repeats: int
) -> dict[str, object]:
    """Tokens a second of greedy answers: old, ours, merged, and the fastest of some batched `generate`."""
    rates: dict[str, list[float]] = {name: [] for name in ("old", "ours", "merged", "generate")}
    said: dict[str, list[tuple[int, ...]]] = {}

    def answer(name: str, trained: Student) -> None:
        began = time.process_time()
        drawn = sample(trained, prompts, 1, 0.0, max_new_tokens=tokens, progress=False)
        rates[name].append(sum(one.tokens for one in drawn) / (time.process_time() - began))
        said[name] = [one.ids for one in drawn]

    ids = sorted(encode_prompts(list(prompts.values()), student.tokenizer), key=len)
    with lora(student.model, NATConfig(target_modules=SEVEN)) as model:
        fill(model)
        trained = student._replace(model=model.eval())
        for _ in range(repeats):
            answer("ours", trained)
            with old(model):
                answer("old", trained)
                best = 0.0
                for size in (16, 64):
                    began = time.process_time()
                    groups = [ids[start : start + size] for start in range(0, len(ids), size)]
                    made = sum(
                        len(text)
                        for group in groups
                        for text in generate(trained, group, tokens, greedy=True)
                    )
                    best = max(best, made / (time.process_time() - began))
                rates["generate"].append(best)
            model.merge_adapter()
            answer("merged", trained)
            model.unmerge_adapter()
    equal = {name: sum(map(tuple.__eq__, said[name], said["ours"])) for name in ("old", "merged")}
    if not equal["old"] >= SAME * len(prompts):
        raise AssertionError(
            f"only {equal['old']} of {len(prompts)} greedy answers are those of the old form"
        )
    return {"tokens_per_second": rates, "equal": equal, "answers": len(prompts)}


# --- report -------------------------------------------------------------------------------------------


def flags() -> str:
    """What of this processor multiplies bfloat16, as Linux names it."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    known = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
    return ", ".join(name for name in known if f" {name} " in told.replace("\n", " ")) or "unknown"


def report(result: dict[str, object]) -> str:
    steps, answers, memory = (result[name] for name in ("steps", "answers", "memory"))
    p, train, said = result["parameters"], steps["tokens_per_second"], answers["tokens_per_second"]

    def against(fast: Sequence[float], slow: Sequence[float]) -> str:
        return spread(ratio(fast, slow))

    rows = [
        ("LoRA step against its old form", train["LoRA"], against(train["LoRA"], train["old"]), "2.4"),
        ("LoRA step against a NAT step", train["NAT"], against(train["LoRA"], train["NAT"]), "at most 1.35"),
        ("answers against their old form", said["ours"], against(said["ours"], said["old"]), "6"),
        ("answers against batched `generate`", said["ours"], against(said["ours"], said["generate"]), "2"),
        ("answers of the merged model", said["merged"], against(said["merged"], said["ours"]), ""),
    ]
    losses = ", ".join(f"{name} {value:.4f}" for name, value in steps["losses"].items())
    lines = [
        f"{result['machine']['cpu']} ({result['flags']}), {result['threads']} thread, torch "
        f"{result['versions']['torch']}; smollm2-135m in {result['dtype']}, all seven projections, r 8, "
        f"dropout 0.05, batch {BATCH} of released MATH rationales; tokens without padding in a second of "
        f"processor time; medians and quartiles of {p['repeats']} turns.",
        "",
        "| what | tokens/s | ratio | goal |",
        "|---|---:|---:|---:|",
        *(f"| {name} | {np.median(rate):,.0f} | {times} | {goal} |" for name, rate, times, goal in rows),
        "",
        f"Losses of one batch: {losses}. "
        f"Equal greedy answers of {answers['answers']}: old form {answers['equal']['old']}, merged "
        f"{answers['equal']['merged']}. What is merged is rounded to bfloat16, so plain LoRA stays beside.",
        "",
        f"Resident memory of {p['steps']} steps, GiB, largest (after half, at the end): "
        + "; ".join(
            f"{name} {most:.1f} ({half:.1f}, {last:.1f})" for name, (most, last, half) in memory.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, repeats=5, steps=60, questions=200, prompts=64, max_new_tokens=96)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    student = load_student("smollm2-135m", torch.bfloat16, "cpu")
    rows = examples(student, chosen.questions)
    problems = [p for p in load_task("math").questions("test") if p.level in (1, 2, 3)][: chosen.prompts]
    prompts = {problem.id: format_prompt(problem.question) for problem in problems}
    result = provenance(chosen) | {
        "flags": flags(),
        "dtype": f"bfloat16 (fast here: {str(fast_dtype()).removeprefix('torch.')})",
        "steps": measure_steps(student, rows, chosen.repeats),
        "answers": measure_answers(student, prompts, chosen.max_new_tokens, max(2, chosen.repeats // 2)),
        "memory": measure_memory(chosen.steps, chosen.questions),
    }
    keep(result, report(result), chosen.out, "real")


if __name__ == "__main__":
    main()
