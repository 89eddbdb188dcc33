"""Rivals: what a DPO step costs, and trl's DPOTrainer on the same pairs of the embedded student.

1. Equality: the same batch, adapters away from their start: our loss and gradients and those of
   trl's trainer, which keeps the start as a second adapter and runs it forward at every step.
2. Time of a DPO step beside one of plain likelihood, on the same tokens and on the right rationales alone,
   and beside trl's step as it comes and with the reference given (precompute_ref_log_probs); interleaved in
   one process. The reference's pass is measured apart.
3. Peak memory of some steps of either, each in a process of its own (growth of the resident set; Linux).

Writes rivals.json and rivals.md into --out (default: benchmarks/results).
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from measuring import in_turn, keep, options, provenance, ratio, spread
from nce_memory import status
from torch import Tensor, nn

from negdistill.data import arithmetic
from negdistill.method.objectives import OBJECTIVES, likelihood
from negdistill.training.batching import Encoded, collate, encode, pad_id, pairs
from negdistill.training.dataset import training_set
from negdistill.training.reference import log_probs
from negdistill.training.students import load_student

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
TOLERANCE = 1e-5  # of loss and gradients in float32, relative to the largest number
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Work:
    """The student with a LoRA, pairs in the order of one epoch, and trl's trainer over the same model."""

    def __init__(self, chosen: argparse.Namespace, with_trl: bool) -> None:
        from peft import LoraConfig, get_peft_model

        warnings.simplefilter("ignore")
        base, self.tokenizer = load_student(device="cpu")
        torch.manual_seed(0)
        lora = LoraConfig(r=8, lora_alpha=16, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
        self.model = get_peft_model(base, lora)
        self.pad = pad_id(self.tokenizer)
        problems = arithmetic.generate("train", chosen.questions, 0)
        examples = training_set(problems, arithmetic.teach(problems, n=4)).examples("both")
        self.rows: list[Encoded] = encode(examples, self.tokenizer, 512)
        found = pairs(self.rows, 2 * chosen.pairs, 0, 0)
        self.cuts = [cut for cut in found if len(cut) == 2 * chosen.pairs]
        self.texts = {example.id: example for example in examples}
        self.trainer = self._trainer() if with_trl else None  # copies the start of the adapter
        began = time.perf_counter()
        self.reference = log_probs(self.model, self.rows, self.pad, 2 * chosen.pairs)[0]
        self.passed = (time.perf_counter() - began) / len(self.rows)
        self.move()
        self.model.train()

    def _trainer(self) -> object:
        from datasets import Dataset, disable_progress_bars
        from trl import DPOConfig, DPOTrainer

        disable_progress_bars()
        given = []
        for cut in self.cuts:
            for right, wrong in zip(cut[::2], cut[1::2], strict=True):
                good, bad = (self.texts[self.rows[at].id] for at in (right, wrong))
                given.append({"prompt": good.prompt, "chosen": good.completion, "rejected": bad.completion})
        quiet = dict(use_cpu=True, report_to=[], disable_tqdm=True, bf16=False, max_length=None)
        config = DPOConfig(tempfile.mkdtemp(), beta=0.1, gradient_checkpointing=False, **quiet)
        data = Dataset.from_list(given)
        return DPOTrainer(self.model, args=config, train_dataset=data, processing_class=self.tokenizer)

    @torch.no_grad()
    def move(self) -> None:
        """The adapter away from its start."""
        random = torch.Generator().manual_seed(1)
        for parameter in self.trained():
            parameter += 0.02 * torch.randn(parameter.shape, generator=random)

    def trained(self) -> list[nn.Parameter]:
        return [p for name, p in self.model.named_parameters() if p.requires_grad and ".ref." not in name]

    def batch(self, number: int, right: bool = False) -> dict[str, Tensor]:
        cut = self.cuts[number % len(self.cuts)][:: 2 if right else 1]
        return collate([self.rows[at] for at in cut], self.pad) | {"reference": self.reference[cut]}

    def inputs(self, number: int) -> dict[str, Tensor]:
        """trl's batch of the same pairs."""
        size = len(self.cuts[0]) // 2
        first = number % len(self.cuts) * size
        data = self.trainer.train_dataset
        return self.trainer.data_collator([data[at] for at in range(first, first + size)])

    def theirs(self, number: int, given: bool) -> Tensor:
        """trl's loss; whether it is given the reference's numbers, as after precompute_ref_log_probs."""
        inputs, cut = self.inputs(number), self.cuts[number % len(self.cuts)]
        if given:
            inputs |= {"ref_chosen_logps": self.reference[cut[::2]]}
            inputs |= {"ref_rejected_logps": self.reference[cut[1::2]]}
        self.trainer.precompute_ref_logps = given
        return self.trainer._compute_loss(self.model, inputs, False)

    def losses(self) -> dict[str, Callable[[int], Tensor]]:
        size = len(self.cuts[0])
        found: dict[str, Callable[[int], Tensor]] = {
            "DPO": lambda number: OBJECTIVES["dpo"](self.model, self.batch(number)) / size,
            "likelihood, same tokens": lambda number: likelihood(self.model, self.batch(number)),
            "likelihood, right ones": lambda number: likelihood(self.model, self.batch(number, True)),
        }
        if self.trainer is not None:
            found["trl"] = lambda number: self.theirs(number, False)
            found["trl, reference given"] = lambda number: self.theirs(number, True)
        return found


def check(work: Work) -> float:
    """Largest difference of loss and gradients of three batches, relative to the largest number."""
    work.model.eval()
    worst, losses = 0.0, work.losses()
    for number in range(3):
        found = []
        for name in ("DPO", "trl", "trl, reference given"):
            loss = losses[name](number)
            found.append([loss.detach(), *torch.autograd.grad(loss, work.trained())])
        for other in found[1:]:
            both = zip(found[0], other, strict=True)
            worst = max(worst, *(((a - b).abs().max() / b.abs().max()).item() for a, b in both))
    work.model.train()
    return worst


def measure(chosen: argparse.Namespace, work: Work) -> dict[str, object]:
    optimizer = torch.optim.AdamW(work.trained(), lr=0.0, fused=True)  # the same work at every repeat

    def stepping(loss: Callable[[int], Tensor]) -> Callable[[], None]:
        def run() -> None:
            for number in range(chosen.batches):
                loss(number).backward()
                optimizer.step()
                optimizer.zero_grad()

        return run

    actions = {name: stepping(loss) for name, loss in work.losses().items()}
    seconds = in_turn(actions, chosen.repeats, torch.device("cpu"))
    ours = seconds["DPO"]
    return {
        "seconds": {name: statistics.median(values) / chosen.batches for name, values in seconds.items()},
        "reference": work.passed * 2 * chosen.pairs,
        "tokens": statistics.fmean(sum(work.rows[at].length for at in cut) for cut in work.cuts),
        "same tokens": ratio(ours, seconds["likelihood, same tokens"]),
        "right ones": ratio(ours, seconds["likelihood, right ones"]),
        "trl": ratio(seconds["trl"], ours),
        "trl, reference given": ratio(seconds["trl, reference given"], ours),
    }


def peak(chosen: argparse.Namespace, name: str) -> int:
    """Bytes by which the resident set grows at most in steps of one kind; run in a process of its own."""
    work = Work(chosen, with_trl=name == "trl")
    loss = work.losses()[name]
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak until now
    before = status("VmRSS")
    for number in range(chosen.batches):
        loss(number).backward()
    return status("VmHWM") - before


def peaks(chosen: argparse.Namespace) -> dict[str, int]:
    line = [sys.executable, __file__, "--pairs", str(chosen.pairs), "--batches", str(chosen.batches)]
    line += ["--questions", str(chosen.questions), "--peak"]
    run = {"capture_output": True, "text": True, "check": True}
    return {name: int(subprocess.run([*line, name], **run).stdout.split()[-1]) for name in ("DPO", "trl")}


def report(result: dict) -> str:
    where, p, t, memory = (result[name] for name in ("machine", "parameters", "time", "memory"))
    lines = [
        f"{where['cpu']}, {result['threads']} thread(s), float32, torch {result['versions']['torch']}, "
        f"trl {result['trl']}; medians of {p['repeats']} turns of {p['batches']} steps, ratios with their "
        "quartiles over turns.",
        "",
        f"Embedded student, LoRA of rank 8 on all projections, {p['pairs']} pairs a step, {t['tokens']:.0f} "
        f"tokens. Largest difference of loss and gradients to trl's: {result['difference']:.0e}.",
        "",
        "| step | ms | DPO step / this |",
        "|---|---:|---:|",
        f"| DPO, reference kept | {1e3 * t['seconds']['DPO']:.1f} |  |",
        f"| likelihood, same tokens | {1e3 * t['seconds']['likelihood, same tokens']:.1f} "
        f"| {spread(t['same tokens'])} |",
        f"| likelihood, right rationales alone | {1e3 * t['seconds']['likelihood, right ones']:.1f} "
        f"| {spread(t['right ones'])} |",
        "",
        "| trl on the same pairs | ms | this / DPO step |",
        "|---|---:|---:|",
        *(
            f"| {label} | {1e3 * t['seconds'][name]:.1f} | {spread(t[name])} |"
            for name, label in (("trl", "as it comes"), ("trl, reference given", "reference given"))
        ),
        "",
        f"Our reference pass, once for all epochs, takes {1e3 * t['reference']:.1f} ms for as many rows.",
        "",
        f"The resident set grows by at most {memory['DPO'] / 2**20:.0f} MiB in our steps and by "
        f"{memory['trl'] / 2**20:.0f} MiB in trl's, {memory['DPO'] / max(1, memory['trl']):.2f} of it.",
    ]
    return "\n".join(lines) + "\n"


def main(given: Sequence[str] | None = None) -> None:
    parser = options(__doc__, pairs=8, batches=4, questions=200)
    parser.add_argument("--peak", choices=["DPO", "trl"], help="print the bytes of one kind of step, no more")
    chosen = parser.parse_args(given)
    torch.set_num_threads(1)
    if chosen.peak:
        print(peak(chosen, chosen.peak))
        return
    import trl

    work = Work(chosen, with_trl=True)
    difference = check(work)
    if not difference < TOLERANCE:
        raise AssertionError(f"the two forms differ by {difference:.1e}")
    result = provenance(chosen, "peak", "device", "dtype") | {
        "trl": trl.__version__,
        "difference": difference,
        "time": measure(chosen, work),
        "memory": peaks(chosen),
    }
    keep(result, report(result), chosen.out, "rivals")


if __name__ == "__main__":
    main()
