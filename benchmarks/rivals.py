"""Rivals: what a DPO step costs, and trl's DPOTrainer on the same pairs.

Of the embedded student, and of a LLaMA of tens of millions of random parameters with a usual vocabulary, on
the same texts in the same tokens: in the small one the output layer hardly counts.

1. Equality in float64: the same batch, adapters away from their start: our loss and gradients and those of
   trl's trainer, which keeps the start as a second adapter and runs it forward at every step.
2. Time of a DPO step beside one of plain likelihood, on the same tokens and on the right rationales alone,
   and beside trl's step as it comes and with the reference given (precompute_ref_log_probs); interleaved in
   one process. The reference's pass is measured apart.
3. Peak memory of some steps of each, in a process of its own: what the resident set grows by over that after
   imports, loading and a first step (Linux). malloc gives back at once what is freed, so the growth is what
   is held at the same time.

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
from measuring import in_turn, keep, llama, options, provenance, ratio, spread
from nce_memory import status
from torch import Tensor, nn

from negdistill.data import arithmetic
from negdistill.method.objectives import OBJECTIVES, likelihood
from negdistill.training.batching import Encoded, collate, encode, pad_id, pairs
from negdistill.training.dataset import training_set
from negdistill.training.reference import log_probs
from negdistill.training.students import load_student

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
TOLERANCE = 1e-5  # relative to the largest number; LLaMA norms in float32 whatever comes
STUDENTS = ("embedded", "LLaMA")
STEPS = ("DPO", "trl", "trl, reference given")
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Work:
    """The student with a LoRA, pairs in the order of one epoch, and trl's trainer over the same model."""

    def __init__(self, chosen: argparse.Namespace, student: str, with_trl: bool = True) -> None:
        from peft import LoraConfig, get_peft_model

        warnings.simplefilter("ignore")
        base, self.tokenizer = load_student(device="cpu")
        torch.manual_seed(0)
        if student == "LLaMA":
            base = llama(chosen)
            base.config.pad_token_id = pad_id(self.tokenizer)
        self.parameters = base.num_parameters()
        lora = LoraConfig(r=8, lora_alpha=16, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
        self.model = get_peft_model(base, lora)
        self.pad = pad_id(self.tokenizer)
        problems = arithmetic.generate("train", chosen.questions, 0)
        examples = training_set(problems, arithmetic.teach(problems, n=4)).examples("both")
        self.rows: list[Encoded] = encode(examples, self.tokenizer, 512)
        found = pairs(self.rows, 2 * chosen.pairs, 0, 0)
        self.cuts = [cut for cut in found if len(cut) == 2 * chosen.pairs][: max(3, chosen.batches)]
        self.texts = {example.id: example for example in examples}
        self.trainer = self._trainer() if with_trl else None  # copies the start of the adapter
        began = time.perf_counter()
        used = sum(self.cuts, [])
        self.reference = torch.full((len(self.rows),), torch.nan)
        self.reference[used] = self.start(used)
        self.passed = (time.perf_counter() - began) / len(used)
        self.move()
        self.model.train()

    def start(self, rows: Sequence[int]) -> Tensor:
        """l of these rows without the adapter, which is 0 at the start."""
        with self.model.disable_adapter():
            return log_probs(self.model, [self.rows[at] for at in rows], self.pad, len(self.cuts[0]))[0]

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
    """Most difference of loss and gradients of three batches in float64, relative to the largest number."""
    work.model.eval().double()
    kept, used = work.reference, sum(work.cuts, [])
    work.reference = kept.double()
    work.reference[used] = work.start(used)
    worst, losses = 0.0, work.losses()
    for number in range(3):
        found = []
        for name in STEPS:
            loss = losses[name](number)
            found.append([loss.detach(), *torch.autograd.grad(loss, work.trained())])
        for other in found[1:]:
            both = zip(found[0], other, strict=True)
            worst = max(worst, *(((a - b).abs().max() / b.abs().max()).item() for a, b in both))
    work.model.train().float()
    work.reference = kept
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
        "parameters": work.parameters,
        "tokens": statistics.fmean(sum(work.rows[at].length for at in cut) for cut in work.cuts),
        "targets": statistics.fmean(sum(work.rows[at].loss_mask.sum() for at in cut) for cut in work.cuts),
        "same tokens": ratio(ours, seconds["likelihood, same tokens"]),
        "right ones": ratio(ours, seconds["likelihood, right ones"]),
        "trl": ratio(seconds["trl"], ours),
        "trl, reference given": ratio(seconds["trl, reference given"], ours),
    }


def peak(chosen: argparse.Namespace, student: str, name: str) -> int:
    """Bytes by which the resident set grows at most in steps of one kind; run in a process of its own."""
    work = Work(chosen, student, with_trl=name != "DPO")
    loss = work.losses()[name]
    loss(0).backward()  # what is loaded at the first call does not count
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak until now
    before = status("VmRSS")
    for number in range(chosen.batches):
        loss(number).backward()
    return status("VmHWM") - before


def peaks(chosen: argparse.Namespace, student: str) -> dict[str, int]:
    line = [sys.executable, __file__]
    for name in ("pairs", "batches", "questions", "model_width", "layers", "vocabulary"):
        line += [f"--{name.replace('_', '-')}", str(getattr(chosen, name))]
    # a fixed threshold: otherwise malloc keeps what was freed for tensors to come
    run = {"env": os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}, "stdout": subprocess.PIPE, "text": True}
    found = {}
    for name in STEPS:
        done = subprocess.run([*line, "--peak", student, name], check=True, **run)
        found[name] = int(done.stdout.split()[-1])
    return found


def report(result: dict) -> str:
    where, p = result["machine"], result["parameters"]
    lines = [
        f"{where['cpu']}, {result['threads']} thread(s), float32, torch {result['versions']['torch']}, "
        f"trl {result['trl']}; medians of {p['repeats']} turns of {p['batches']} steps, ratios with their "
        f"quartiles over turns. LoRA of rank 8 on all projections, {p['pairs']} pairs a step.",
    ]
    for student, found in result["students"].items():
        t, memory = found["time"], found["memory"]
        ms = {name: f"{1e3 * value:.1f}" for name, value in t["seconds"].items()}
        mib = {name: f"{value / 2**20:.0f}" for name, value in memory.items()}
        part = {name: f"{memory['DPO'] / max(1, value):.2f}" for name, value in memory.items()}
        lines += [
            "",
            f"## {student}, {t['parameters'] / 1e6:.1f} M parameters",
            "",
            f"{t['tokens']:.0f} tokens a step, {t['targets']:.0f} of them targets. Largest difference of "
            f"loss and gradients to trl's in float64: {found['difference']:.0e}.",
            "",
            "| step | ms | this / DPO step | peak, MiB | DPO step's / this |",
            "|---|---:|---:|---:|---:|",
            f"| DPO, reference kept | {ms['DPO']} |  | {mib['DPO']} |  |",
            *(
                f"| {label} | {ms[name]} | {spread(t[name])} | {mib[name]} | {part[name]} |"
                for name, label in (("trl", "trl, as it comes"), ("trl, reference given",) * 2)
            ),
            "",
            f"A DPO step takes {spread(t['same tokens'])} times as long as one of likelihood on the "
            f"same tokens ({ms['likelihood, same tokens']} ms), and {spread(t['right ones'])} times as long "
            f"as one on the right rationales alone ({ms['likelihood, right ones']} ms). The reference pass, "
            f"once for all epochs, takes {1e3 * t['reference']:.1f} ms for as many rows.",
        ]
    return "\n".join(lines) + "\n"


def main(given: Sequence[str] | None = None) -> None:
    sizes = {"pairs": 8, "batches": 4, "questions": 200, "model_width": 512, "layers": 6, "vocabulary": 32000}
    parser = options(__doc__, **sizes)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args(given)
    chosen.device, chosen.dtype = "cpu", "float32"
    torch.set_num_threads(1)
    if chosen.peak:
        print(peak(chosen, *chosen.peak))
        return
    import trl

    students = {}
    for student in STUDENTS:
        work = Work(chosen, student)
        difference = check(work)
        if not difference < TOLERANCE:
            raise AssertionError(f"{student}: the two forms differ by {difference:.1e}")
        students[student] = {"difference": difference, "time": measure(chosen, work)}
        del work
        students[student]["memory"] = peaks(chosen, student)
    result = provenance(chosen, "peak", "device", "dtype") | {"trl": trl.__version__, "students": students}
    keep(result, report(result), chosen.out, "rivals")


if __name__ == "__main__":
    main()
