"""NCE with its teachers run once, against the released scheme that runs them at every step.

    NEGDISTILL_DATA=... python benchmarks/nce.py                # some minutes on a CPU; --device cuda

1. Equality in float64, asserted first: the cached step (buckets, chunks, completion tokens) has the loss and
   the gradients of the plain form, with both teachers run on rows padded to the longest of the set.
2. Time of a whole training. Released scheme: at every step both views of the teacher and the student, every
   row padded to the longest of the set, loss over all positions. Ours: one pass of both views, then cached
   steps. Lengths are those of the released rationales under 1,200 characters (question and text) that are
   graded right; the model is a small LLaMA with random weights. What is timed are single batches, drawn from
   all lengths alike, turn by turn; the training is EPOCHS times their mean, ours with the pass on top.
3. Time of a cached step beside one of plain likelihood, same batches.
4. Peak memory of the loss with its gradient at a vocabulary of 32,000, each form in a process of its own.

Writes nce.json and nce.md into --out (default: benchmarks/results).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from measuring import keep, llama, options, provenance, ratio, spread
from nce_memory import FORMS, measure_memory
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from negdistill.data.prompts import format_prompt
from negdistill.data.sources import load_problems, load_rationales
from negdistill.method.nat import attach, view
from negdistill.method.nat_unit import NATConfig
from negdistill.method.nce import calibration_beta
from negdistill.method.objectives import distillation, likelihood
from negdistill.training.batching import (
    Encoded,
    Example,
    batches,
    collate,
    encode,
    padding_share,
    real_text_tokenizer,
)
from negdistill.training.dataset import training_set
from negdistill.training.teacher_cache import CachedTeacher, teacher_cache

TOLERANCE = 1e-10  # of the largest difference in float64, relative to the largest number
EPOCHS = 20
CHARACTERS = 1200  # the released code keeps shorter pairs of question and rationale
SMALL = ((load_problems, ("train",)), (load_rationales, ()))  # embedded, for where there is no other data


# --- both schemes -------------------------------------------------------------------------------------


def plain_loss(student: Tensor, neg: Tensor, nat: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """book/method.md, step 2, on full logits (B, T, V): mean over the marked tokens of ids (B, T)."""
    student, neg, nat = (logits[:, :-1].log_softmax(2) for logits in (student, neg, nat))
    mask = mask[:, 1:]
    beta = calibration_beta(neg, nat, mask)
    hard = -student.gather(2, ids[:, 1:, None]).squeeze(2)
    soft = -(nat.exp() * student).sum(2)
    loss = 0.5 * hard + 0.5 * (0.5 + beta[:, None]) * soft
    return (loss * mask).sum() / mask.sum()


def released_loss(teacher: nn.Module, student: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Both views and the student on all positions."""
    given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "use_cache": False}
    logits = {}
    for name in ("neg", "nat"):
        with torch.no_grad(), view(teacher, name):
            logits[name] = teacher(**given).logits
    return plain_loss(
        student(**given).logits, logits["neg"], logits["nat"], batch["input_ids"], batch["loss_mask"]
    )


def models(arguments: argparse.Namespace, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """A teacher with NAT and a student with LoRA over the same base, no matrix of them zero."""
    torch.manual_seed(0)
    base = llama(arguments).to(dtype)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    student = get_peft_model(llama(arguments).to(dtype), lora).to(dtype)
    student.get_base_model().load_state_dict(base.state_dict(), strict=False)
    teacher = attach(base, NATConfig(dropout=0.0)).eval()
    for name, parameter in teacher.named_parameters():
        if "lora_B" in name or "value_out" in name:
            nn.init.normal_(parameter, std=0.05)
    return teacher, student.train()


def lengths(arguments: argparse.Namespace) -> tuple[list[Encoded], list[Encoded]]:
    """The right rationales as rows of both presets, with tokens of the model's vocabulary."""
    if arguments.teacher == "arithmetic":
        problems, given = (load("arithmetic", *split, n=40) for load, split in SMALL)
    else:
        problems, given = load_problems("math", "train"), load_rationales(arguments.teacher)
    data = training_set(problems, given)
    questions = {problem.id: problem.question for problem in problems}
    kept = [r for r in data.positives if len(questions[r.problem_id] + r.text) < CHARACTERS]
    tokenizer = real_text_tokenizer(questions[r.problem_id] + r.text for r in kept)
    kept = [kept[i] for i in np.random.default_rng(0).permutation(len(kept))[: arguments.rows]]
    found = []
    for preset in ("fixed", "faithful"):
        examples = [
            Example(f"{r.problem_id}#{r.index}", format_prompt(questions[r.problem_id], preset), r.text)
            for r in kept
        ]
        rows = encode(examples, tokenizer, 2048, preset)
        found.append([replace(row, input_ids=row.input_ids % arguments.vocabulary) for row in rows])
    return found[0], found[1]


# --- 1. equality --------------------------------------------------------------------------------------


def check(arguments: argparse.Namespace, rows: list[Encoded]) -> float:
    """Largest difference of loss and gradients, relative to the largest number."""
    teacher, student = models(arguments, torch.float64)
    few = sorted(rows[:40], key=lambda row: row.length)[::13]  # of four lengths
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    with tempfile.TemporaryDirectory() as folder:
        cache = teacher_cache(teacher, few, 0, folder, top_k=arguments.vocabulary, progress=False)
    batch = collate(few, 0)
    count = batch["loss_mask"].sum()
    cached = batch | cache.teacher()(range(len(few)))
    ours = distillation(student, to(cached, arguments)) / count
    extra = max(row.length for row in rows) - batch["input_ids"].shape[1]
    wide = {name: nn.functional.pad(tensor, (0, extra)) for name, tensor in batch.items() if tensor.ndim == 2}
    theirs = released_loss(teacher, student, to(wide, arguments))
    pairs = [(ours, theirs)]
    pairs += zip(torch.autograd.grad(ours, trained), torch.autograd.grad(theirs, trained), strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


# --- 2 and 3. time ------------------------------------------------------------------------------------


def to(batch: dict[str, Tensor], arguments: argparse.Namespace) -> dict[str, Tensor]:
    return {name: tensor.to(arguments.device) for name, tensor in batch.items()}


def timed(action: Callable[[], object], device: str) -> float:
    began = time.perf_counter()
    action()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def draw(rows: list[Encoded], size: int, count: int, turn: int) -> list[list[int]]:
    """`count` batches of one epoch, one from each part of their range of widths."""
    of = [batch for batch in batches(rows, size, 0, turn) if len(batch) == size]
    of.sort(key=lambda batch: max(rows[i].length for i in batch))
    random = np.random.default_rng(turn)
    return [of[random.choice(part)] for part in np.array_split(np.arange(len(of)), count)]


def turn_seconds(
    arguments: argparse.Namespace,
    rows: list[Encoded],
    wide: list[Encoded],
    teacher: nn.Module,
    step: Callable[[Callable[[], Tensor]], None],
    student: nn.Module,
    turn: int,
) -> dict[str, float]:
    """Mean seconds of a batch: released step, pass of both views, cached step, likelihood step."""
    drawn = draw(rows, arguments.batch, arguments.batches, turn)
    seconds: dict[str, list[float]] = {name: [] for name in ("released", "cached", "likelihood")}
    with tempfile.TemporaryDirectory() as folder:
        flat = [rows[i] for batch in drawn for i in batch]
        made = partial(teacher_cache, teacher, flat, 0, folder, batch_size=arguments.batch, progress=False)
        passed = timed(made, arguments.device) / len(drawn)
        taught: CachedTeacher = made().teacher()  # the second time it is found
        for number, batch in enumerate(drawn):
            places = range(number * len(batch), (number + 1) * len(batch))

            def cached(batch: list[int] = batch, places: range = places) -> Tensor:
                return distillation(
                    student, to(collate([rows[i] for i in batch], 0) | taught(places), arguments)
                )

            def plain(batch: list[int] = batch) -> Tensor:
                return likelihood(student, to(collate([rows[i] for i in batch], 0), arguments))

            actions = {"cached": cached, "likelihood": plain}
            for name in sorted(actions, reverse=bool((number + turn) % 2)):
                seconds[name].append(timed(partial(step, actions[name]), arguments.device))
        for batch in drawn[:: max(1, len(drawn) // 2)]:  # all as wide as each other
            given = to(collate([wide[i] for i in batch], 0), arguments)
            loss = partial(released_loss, teacher, student, given)
            seconds["released"].append(timed(partial(step, loss), arguments.device))
    return {name: statistics.fmean(values) for name, values in seconds.items()} | {"pass": passed}


def measure(arguments: argparse.Namespace, rows: list[Encoded], wide: list[Encoded]) -> dict[str, object]:
    teacher, student = models(arguments, getattr(torch, arguments.dtype))
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    def step(loss: Callable[[], Tensor]) -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    turns = [
        turn_seconds(arguments, rows, wide, teacher, step, student, turn)
        for turn in range(arguments.repeats + 1)
    ][1:]  # the first one warms up
    ours = [EPOCHS * turn["cached"] + turn["pass"] for turn in turns]
    order = batches(rows, arguments.batch, 0, 0)
    return {
        "rows": len(rows),
        "steps": EPOCHS * len(order),
        "tokens": {"mean": float(np.mean([row.length for row in rows])), "longest": len(wide[0].input_ids)},
        "padding": {"ours": padding_share(rows, order), "released": padding_share(wide, order)},
        "seconds": {name: statistics.median(turn[name] for turn in turns) for name in turns[0]},
        "training": {
            "released": statistics.median(EPOCHS * turn["released"] for turn in turns) * len(order),
            "ours": statistics.median(ours) * len(order),
        },
        "ratio": ratio([EPOCHS * turn["released"] for turn in turns], ours),
        "step": ratio([turn["cached"] for turn in turns], [turn["likelihood"] for turn in turns]),
    }


# --- report -------------------------------------------------------------------------------------------


def report(result: dict) -> str:
    """The tables in Markdown."""
    where, p, t, memory = (result[name] for name in ("machine", "parameters", "time", "memory"))
    shape = f"width {p['model_width']}, {p['layers']} layers, vocabulary {p['vocabulary']}"
    first = t["seconds"]
    lines = [
        f"{where['gpu'] or where['cpu']}, {result['threads']} thread(s), {p['dtype']}, "
        f"torch {result['versions']['torch']}, peft {result['versions']['peft']}; medians of {p['repeats']} "
        "turns, ratios with their quartiles over turns.",
        "",
        f"Largest difference of loss and gradients between the forms, float64: {result['difference']:.0e}.",
        "",
        f"LLaMA ({shape}), batches of {p['batch']}, lengths of {t['rows']:,} right rationales of "
        f"{p['teacher']}: {t['tokens']['mean']:.0f} tokens on average, longest {t['tokens']['longest']}. "
        f"{EPOCHS} epochs are {t['steps']:,} steps; their time is that of single batches times their number.",
        "",
        "| scheme | padding | pass, ms per batch | step, ms | training, s | released / ours |",
        "|---|---:|---:|---:|---:|---:|",
        f"| released: teachers at every step | {t['padding']['released']:.0%} |  "
        f"| {1e3 * first['released']:.0f} | {t['training']['released']:,.0f} |  |",
        f"| ours: teachers cached | {t['padding']['ours']:.1%} | {1e3 * first['pass']:.0f} "
        f"| {1e3 * first['cached']:.0f} | {t['training']['ours']:,.0f} | {spread(t['ratio'])} |",
        "",
        f"A cached step takes {spread(t['step'])} of the time of a likelihood step on the same batch "
        f"({1e3 * first['likelihood']:.0f} ms).",
        "",
        f"Peak memory of the loss and its gradient, {p['loss_tokens']:,} tokens, vocabulary "
        f"{p['loss_vocabulary']:,}; the float32 logits that all are given, "
        f"{4 * p['loss_tokens'] * p['loss_vocabulary'] / 2**20:.0f} MiB, and the teacher's do not count:",
        "",
        "| form | peak | of plain |",
        "|---|---:|---:|",
        *(
            f"| {form} | {memory[form] / 2**20:,.0f} MiB | {memory[form] / memory['plain']:.2f} |"
            for form in FORMS
        ),
    ]
    return "\n".join(lines) + "\n"


def main(given: Sequence[str] | None = None) -> None:
    shape = {"model_width": 256, "layers": 2, "vocabulary": 2048, "batch": 8, "batches": 8, "rows": 8000}
    parser = options(__doc__, **shape, loss_tokens=2048, loss_vocabulary=32_000, top_k=128)
    parser.add_argument("--teacher", default="tdg-gpt-3.5-turbo", help="whose rationales give the lengths")
    chosen = parser.parse_args(given)
    rows, wide = lengths(chosen)
    difference = check(chosen, rows)
    if not difference < TOLERANCE:
        raise AssertionError(f"the two forms differ by {difference:.1e} in float64")
    sizes = (chosen.device, chosen.loss_tokens, chosen.loss_vocabulary, chosen.top_k)
    result = provenance(chosen) | {
        "difference": difference,
        "time": measure(chosen, rows, wide),
        "memory": measure_memory(*sizes),
    }
    keep(result, report(result), chosen.out, "nce")


if __name__ == "__main__":
    main()
