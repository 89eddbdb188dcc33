"""A real student in bfloat16 on a CPU: training and answering against their old forms, in one process.

    python benchmarks/real.py                       # a quarter of an hour on one core

The student is smollm2-135m, the data are released rationales of MATH; both have to be there. *Old* is what
PEFT and transformers do by themselves: adapters in float32, a mask in every attention, lengths as they come,
the output layer on a slice. *trl* is its SFTTrainer on the same batches: as it comes, which is with gradient
checkpointing, and without. Equality is asserted before anything is timed: the loss of a batch without
dropout to LOSS, and most greedy tokens. Then the forms take turns on the same batches. Rates are tokens
without padding in a second of processor time, so that other processes matter less. Memory is that of
processes of their own (`real_memory.py` measures it over more steps).

Writes real.json and real.md into --out (default: benchmarks/results).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from measuring import keep, plain_options, provenance, ratio, spread
from real_memory import measure_memory
from real_steps import BATCH, SEVEN, easy, examples, fill, measure_steps, old
from real_trl import TRL, measure_trl
from sampling import generate

from negdistill.data.prompts import format_prompt
from negdistill.inference.sample import sample
from negdistill.method.low_precision import fast_dtype
from negdistill.method.nat_unit import NATConfig
from negdistill.training.adapters import lora
from negdistill.training.batching import encode, encode_prompts
from negdistill.training.students import Student, load_student

SAME = 0.5  # share of greedy answers that are equal, at least; bfloat16 breaks ties otherwise in longer ones

# --- answers -----------------------------------------------------------------------------------------


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


# --- report ------------------------------------------------------------------------------------------


def flags() -> str:
    """What of this processor multiplies bfloat16, as Linux names it."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    known = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
    return ", ".join(name for name in known if f" {name} " in told.replace("\n", " ")) or "unknown"


def resident(path: Sequence[float]) -> str:
    """The largest of some values, and in brackets the middle and the last one."""
    return f"{max(path):.1f} ({path[len(path) // 2]:.1f}, {path[-1]:.1f})"


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
        + "; ".join(f"{name} {resident(path)}" for name, path in memory.items())
        + ". The goal is half of trl's.",
        "",
        f"trl {result['trl_version']} does more with a step: it counts entropy and accuracy of the tokens, "
        "logs to every tracker, packs short texts, runs on many GPUs, and trains on chats, images and tools. "
        "What is measured here is one thing alone, a LoRA on a CPU.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = plain_options(__doc__, repeats=5, steps=60, questions=200, prompts=64, max_new_tokens=96)
    chosen = parser.parse_args(arguments)
    student = load_student("smollm2-135m", torch.bfloat16, "cpu")
    texts = examples(chosen.questions)
    rows = encode(texts, student.tokenizer, 2048)
    prompts = {problem.id: format_prompt(problem.question) for problem in easy("test")[: chosen.prompts]}
    result = provenance(chosen) | {
        "flags": flags(),
        "dtype": f"bfloat16 (fast here: {str(fast_dtype()).removeprefix('torch.')})",
        "trl_version": version("trl"),
        "steps": measure_steps(student, rows, chosen.repeats),
        "trl": measure_trl(student, texts, rows, chosen.repeats),
        "answers": measure_answers(student, prompts, chosen.max_new_tokens, max(2, chosen.repeats // 2)),
        "memory": measure_memory(("old", "LoRA", *TRL), chosen.steps, chosen.questions),
    }
    keep(result, report(result), chosen.out, "real")


if __name__ == "__main__":
    main()
