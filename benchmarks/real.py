"""A real student in bfloat16 on a CPU: training and answering against their old forms, in one process.

    python benchmarks/real.py                       # a quarter of an hour on one core
    python benchmarks/real.py --steps 500           # for the memory as well

The student is smollm2-135m, the data are released rationales of MATH; both have to be there. *Old* is what
PEFT and transformers do by themselves: adapters in float32, a mask in every attention, lengths as they come,
the output layer on a slice. *trl* is its SFTTrainer on the same batches: as it comes, which is with gradient
checkpointing, and without. Equality is asserted before anything is timed: the loss of a batch without
dropout to LOSS, and most greedy tokens. Then the forms take turns on the same batches. Rates are tokens
without padding in a second of processor time, so that other processes matter less. Memory is that of a
process of its own.

Writes real.json and real.md into --out (default: benchmarks/results).
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from measuring import keep, options, provenance, ratio, spread
from sampling import generate
from torch import nn
from transformers import PrinterCallback, TrainerCallback

from negdistill.data.prompts import format_prompt
from negdistill.data.tasks import load_task
from negdistill.inference.sample import sample
from negdistill.method.low_precision import fast_dtype, length_multiple, quicken
from negdistill.method.nat_unit import NATConfig
from negdistill.method.objectives import likelihood
from negdistill.method.peft_loader import load_peft
from negdistill.training.adapters import lora, nat_lora
from negdistill.training.batching import Encoded, Example, batches, collate, encode, encode_prompts, pad_id
from negdistill.training.dataset import training_set
from negdistill.training.students import THREADS, Student, load_student

os.environ |= {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    THREADS: "1",
}  # of here and of what is started
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LOSS = 1e-2  # difference of the loss of a token that rounding explains
SAME = 0.5  # share of greedy answers that are equal, at least; bfloat16 breaks ties otherwise in longer ones
BATCH = 8
TRL = {"trl, as it comes": True, "trl, no checkpointing": False}  # gradient checkpointing

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


def examples(questions: int) -> list[Example]:
    world = load_task("math")
    easy = [p for p in world.questions("train") if p.level in (1, 2, 3)][:questions]
    said = world.rationales(easy, "tdg-gpt-3.5-turbo", 2)
    data = training_set(easy, [one for one in said if len(one.text) <= 1200], **world.grading)
    return data.examples("positives")


def full(rows: Sequence[Encoded]) -> list[list[int]]:
    """Batches of one epoch, without the one that is not full."""
    return [cut for cut in batches(rows, BATCH, 0, 0) if len(cut) == BATCH]


def stepper(student: Student, model: nn.Module, rows: Sequence[Encoded]) -> Callable[[int], float]:
    """A training step on batch number n: its loss per target."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    groups, pad = full(rows), pad_id(student.tokenizer)

    def step(number: int) -> float:
        batch = collate([rows[i] for i in groups[number % len(groups)]], pad, length_multiple(model))
        loss = likelihood(model, batch) / batch["loss_mask"].sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    step.tokens = [sum(rows[i].length for i in group) for group in groups]
    return step


class Turns(TrainerCallback):
    """Seconds of the steps of a Trainer, and after each of them one of ours on the same batch, or nothing."""

    def __init__(self, ours: Callable[[int], object] | None = None) -> None:
        self.ours, self.seconds, self.resident = ours, [], []

    def on_step_begin(self, args: object, state: object, control: object, **rest: object) -> None:
        self.began = time.process_time()

    def on_step_end(self, args: object, state: object, control: object, **rest: object) -> None:
        took = time.process_time() - self.began
        self.resident.append(resident())
        if self.ours is not None:
            self.seconds.append((took, timed(lambda: self.ours(len(self.seconds)))))


def sft(
    texts: Sequence[Example], rows: Sequence[Encoded], steps: int, checkpointing: bool, turns: Turns
) -> object:
    """trl's SFTTrainer over a student of its own: the examples in the order of our batches."""
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig, SFTTrainer

    warnings.simplefilter("ignore")
    disable_progress_bars()
    base, tokenizer = load_student("smollm2-135m", torch.bfloat16, "cpu")
    shape = NATConfig(target_modules=SEVEN)
    adapter = load_peft().LoraConfig(
        r=shape.r,
        lora_alpha=shape.lora_alpha,
        lora_dropout=shape.dropout,
        target_modules=list(SEVEN),
        task_type="CAUSAL_LM",
    )
    groups = full(rows)
    cuts = [groups[number % len(groups)] for number in range(steps)]
    asked = [{"prompt": texts[i].prompt, "completion": texts[i].completion} for cut in cuts for i in cut]
    quiet = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    config = SFTConfig(
        tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        train_sampling_strategy="sequential",
        max_length=None,
        max_steps=steps,
        learning_rate=1e-4,
        logging_strategy="no",
        gradient_checkpointing=checkpointing,
        **quiet,
    )
    trainer = SFTTrainer(
        load_peft().get_peft_model(base, adapter),
        args=config,
        train_dataset=Dataset.from_list(asked),
        processing_class=tokenizer,
        callbacks=[turns],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def measure_trl(
    student: Student, texts: Sequence[Example], rows: Sequence[Encoded], repeats: int
) -> dict[str, object]:
    """Tokens a second of trl's steps and of ours between them."""
    rates, losses = {}, {}
    with lora(student.model, NATConfig(target_modules=SEVEN)) as model:
        fill(model)
        for name, checkpointing in TRL.items():
            step = stepper(student, model, rows)
            turns = Turns(step)
            trainer = sft(texts, rows, repeats + 1, checkpointing, turns)
            with torch.no_grad():
                for ours, theirs in zip(adapter(model), adapter(trainer.model), strict=True):
                    theirs.copy_(ours)
                first = trainer.data_collator([trainer.train_dataset[i] for i in range(BATCH)])
                theirs = trainer.compute_loss(trainer.model.eval(), first).item()
            losses[name] = theirs, first_loss(student, model, [rows[i] for i in full(rows)[0]])
            if not abs(theirs - losses[name][1]) < LOSS:
                raise AssertionError(f"the losses of one batch differ: {losses}")
            model.train()
            trainer.train()
            tokens = [step.tokens[turn % len(step.tokens)] for turn in range(repeats + 1)]
            pairs = zip(tokens[1:], turns.seconds[1:], strict=True)  # the first warms up
            rates[name] = [[count / seconds for seconds in both] for count, both in pairs]
    return {"losses": losses, "tokens_per_second": rates}


def adapter(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for name, parameter in model.named_parameters() if "lora_" in name]


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


def resident() -> float:
    """Memory of this process, GiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**30


def remember(way: str, steps: int, questions: int) -> list[float]:
    """Largest, last and middle resident memory, GiB, of `steps` steps in this process."""
    student = load_student("smollm2-135m", torch.bfloat16)
    texts = examples(questions)
    rows = encode(texts, student.tokenizer, 2048)
    if way in TRL:
        turns = Turns()
        del student
        sft(texts, rows, steps, TRL[way], turns).train()
        return [max(turns.resident), turns.resident[-1], turns.resident[len(turns.resident) // 2]]
    with lora(student.model, NATConfig(target_modules=SEVEN)) as model:
        step, path = stepper(student, model.train(), rows), []
        for number in range(steps):
            if way == "old":
                with old(model):
                    step(number)
            else:
                step(number)
            path.append(resident())
    return [max(path), path[-1], path[len(path) // 2]]


def measure_memory(steps: int, questions: int) -> dict[str, list[float]]:
    results = {}
    for way in ("old", "LoRA", *TRL):
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
    steps, trl, answers, memory = (result[name] for name in ("steps", "trl", "answers", "memory"))
    p, train, said = result["parameters"], steps["tokens_per_second"], answers["tokens_per_second"]

    def against(fast: Sequence[float], slow: Sequence[float]) -> str:
        return spread(ratio(fast, slow))

    rows = [
        ("LoRA step against its old form", train["LoRA"], against(train["LoRA"], train["old"]), "2.4"),
        ("LoRA step against a NAT step", train["NAT"], against(train["LoRA"], train["NAT"]), "at most 1.35"),
        *(
            (
                f"LoRA step against {name}",
                (ours := [b for _, b in both]),
                against(ours, [a for a, _ in both]),
                "5",
            )
            for name, both in trl["tokens_per_second"].items()
        ),
        ("answers against their old form", said["ours"], against(said["ours"], said["old"]), "6"),
        ("answers against batched `generate`", said["ours"], against(said["ours"], said["generate"]), "2"),
        ("answers of the merged model", said["merged"], against(said["merged"], said["ours"]), ""),
    ]
    losses = ", ".join(f"{name} {value:.4f}" for name, value in steps["losses"].items())
    same = ", ".join(f"{theirs:.4f} and {ours:.4f}" for theirs, ours in trl["losses"].values())
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
        f"Losses of one batch: {losses}; of another one, trl's and ours with the same adapter: {same}. "
        f"Equal greedy answers of {answers['answers']}: old form {answers['equal']['old']}, merged "
        f"{answers['equal']['merged']}. What is merged is rounded to bfloat16, so plain LoRA stays beside.",
        "",
        f"Resident memory of {p['steps']} steps, GiB, largest (after half, at the end): "
        + "; ".join(
            f"{name} {most:.1f} ({half:.1f}, {last:.1f})" for name, (most, last, half) in memory.items()
        )
        + ". The goal is half of trl's.",
        "",
        f"trl {result['trl_version']} does more with a step: it counts entropy and accuracy of the tokens, "
        "logs to every tracker, packs short texts, runs on many GPUs, and trains on chats, images and tools. "
        "What is measured here is one thing alone, a LoRA on a CPU.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, repeats=5, steps=60, questions=200, prompts=64, max_new_tokens=96)
    chosen = parser.parse_args(arguments)
    student = load_student("smollm2-135m", torch.bfloat16, "cpu")
    texts = examples(chosen.questions)
    rows = encode(texts, student.tokenizer, 2048)
    problems = [p for p in load_task("math").questions("test") if p.level in (1, 2, 3)][: chosen.prompts]
    prompts = {problem.id: format_prompt(problem.question) for problem in problems}
    result = provenance(chosen) | {
        "flags": flags(),
        "dtype": f"bfloat16 (fast here: {str(fast_dtype()).removeprefix('torch.')})",
        "trl_version": version("trl"),
        "steps": measure_steps(student, rows, chosen.repeats),
        "trl": measure_trl(student, texts, rows, chosen.repeats),
        "answers": measure_answers(student, prompts, chosen.max_new_tokens, max(2, chosen.repeats // 2)),
        "memory": measure_memory(chosen.steps, chosen.questions),
    }
    keep(result, report(result), chosen.out, "real")


if __name__ == "__main__":
    main()
