"""trl's SFTTrainer on the batches of `real_steps`, for `real.py`, which says what is measured."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from nce_memory import status
from real_steps import BATCH, LOSS, SEVEN, fill, first_loss, full, stepper, timed
from torch import nn
from transformers import PrinterCallback, TrainerCallback

from negdistill.method.nat_unit import NATConfig
from negdistill.method.peft_loader import load_peft
from negdistill.training.adapters import lora
from negdistill.training.batching import Encoded, Example
from negdistill.training.students import Student, load_student

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
TRL = {"trl, as it comes": True, "trl, no checkpointing": False}  # gradient checkpointing


class Turns(TrainerCallback):
    """Seconds of the steps of a Trainer, and after each of them one of ours on the same batch, or nothing."""

    def __init__(self, ours: Callable[[int], object] | None = None) -> None:
        self.ours, self.seconds, self.resident = ours, [], []

    def on_step_begin(self, args: object, state: object, control: object, **rest: object) -> None:
        self.began = time.process_time()

    def on_step_end(self, args: object, state: object, control: object, **rest: object) -> None:
        took = time.process_time() - self.began
        self.resident.append(status("VmRSS") / 2**30)
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
