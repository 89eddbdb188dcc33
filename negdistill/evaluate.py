"""Evaluate: greedy answers of a student, graded.

student, problems --evaluate--> one row per question
student, fits, problems --predictions--> the same for each fitted row and seed, for `tables`
fit(..., on_epoch=Follow({"valid": ..., "test": ...})) --> the same along a path of training, in `Fit.path`

prompt ids, padded on the left         . . p p p p | c c e       p prompt, c completion, e end of text
and sorted by length                   p p p p p p | c c c ...
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import nn
from transformers import GenerationConfig

from negdistill import nat
from negdistill.answers import grade
from negdistill.artifacts import digest_json
from negdistill.batching import encode_prompts, format_prompt, pad_id
from negdistill.methods import Fit, adapted
from negdistill.nat_unit import DualLinear
from negdistill.records import Problem, Rationale

if TYPE_CHECKING:
    from negdistill.students import Student


def evaluate(
    student: Student,
    problems: Sequence[Problem],
    batch_size: int = 128,
    max_new_tokens: int = 256,
    view: str | None = None,
    extract: str = "boxed",
    rule: str = "exact",
    preset: str = "fixed",
    prefix: str = "",
) -> pd.DataFrame:
    """Answer each problem greedily and grade it: problem_id, subject, level, text, answer, correct.

    max_new_tokens  longest answer, shorter where the context ends
    view            view of a model with NAT, by default "nat"
    extract, rule   rules of `answers.grade`
    preset          name in `batching.PRESETS`, the one of training
    prefix          text before every prompt, as `Fit.prefix`

    Rows are in the order of the problems. An answer ends with the end-of-text token, or where it goes on to a
    next problem. frame.attrs holds seconds, tokens (generated) and prompt_tokens.

    ValueError for no problem, a question that leaves no room in the context, a view of a model without NAT,
    and a view that was never trained.
    """
    if not problems:
        raise ValueError("problems must not be empty; there is nothing to answer")
    for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    context = nullcontext()
    if view is not None or any(isinstance(module, DualLinear) for module in student.model.modules()):
        nat.require_trained(student.model, view or "nat")
        context = nat.view(student.model, view or "nat")
    prompts = [prefix + format_prompt(problem.question, preset) for problem in problems]
    rows = encode_prompts(prompts, student.tokenizer)
    _check_room(problems, rows, student.model.config.max_position_embeddings)
    start = time.perf_counter()
    with context:
        answers = _greedy(student, rows, batch_size, max_new_tokens)
    seconds = time.perf_counter() - start
    texts = student.tokenizer.batch_decode(
        answers, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    next_problem = "\n" + format_prompt("", preset).partition("\n")[0]
    texts = [text.partition(next_problem)[0].rstrip() for text in texts]
    frame = _graded(problems, texts, extract, rule)
    frame.attrs = {
        "seconds": seconds,
        "tokens": sum(map(len, answers)),
        "prompt_tokens": sum(map(len, rows)),
    }
    return frame


def predictions(
    student: Student, fits: Iterable[Fit], problems: Sequence[Problem], **options: object
) -> pd.DataFrame:
    """`evaluate` each fit, with `Fit.columns()` added: the frame of `tables.method_table` and its neighbours.

    options  of `evaluate`: batch_size, max_new_tokens, extract, rule
    """
    frames = []
    for fit in fits:
        with adapted(student, fit) as trained:
            frame = evaluate(trained, problems, preset=fit.preset, prefix=fit.prefix, **options)
        frames.append(frame.assign(**fit.columns()))
    return pd.concat(frames, ignore_index=True)


@dataclass(frozen=True, slots=True)
class Follow:
    """An on_epoch for `methods.fit`: evaluate the student along its training.

    sets     problems by the name of their split; `tables.blocks` looks for "valid" and "test"
    every    epochs between evaluations; the last epoch is followed if it is a multiple
    options  of `evaluate`
    """

    sets: Mapping[str, Sequence[Problem]]
    every: int = 1
    options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1; got {self.every}")

    @property
    def key(self) -> str:
        """Digest of all that decides the result."""
        sets = {name: [asdict(problem) for problem in problems] for name, problems in self.sets.items()}
        return digest_json([sets, self.every, dict(self.options)])

    def __call__(self, student: Student, epoch: int) -> pd.DataFrame | None:
        if epoch % self.every:
            return None
        frames = [
            evaluate(student, problems, **self.options).drop(columns=["text", "answer"]).assign(split=name)
            for name, problems in self.sets.items()
        ]
        return pd.concat(frames, ignore_index=True)


def _graded(problems: Sequence[Problem], texts: Sequence[str], extract: str, rule: str) -> pd.DataFrame:
    given = [Rationale(problem.id, 0, text, "student") for problem, text in zip(problems, texts, strict=True)]
    grades = grade(problems, given, extract, rule)
    return pd.DataFrame(
        {
            "problem_id": [problem.id for problem in problems],
            "subject": [problem.subject for problem in problems],
            "level": [problem.level for problem in problems],
            "text": texts,
            "answer": pd.Series([one.answer for one in grades], dtype=object),  # keeps None
            "correct": [one.positive for one in grades],
        }
    )


def _check_room(problems: Sequence[Problem], rows: Sequence[Sequence[int]], context: int) -> None:
    for problem, row in zip(problems, rows, strict=True):
        if len(row) >= context:
            raise ValueError(
                f"problem {problem.id!r}: the question takes {len(row)} tokens with what stands before it, "
                f"the context holds {context}; shorten it or leave it out, or take fewer worked examples"
            )


def _greedy(
    student: Student, rows: Sequence[Sequence[int]], batch_size: int, max_new_tokens: int
) -> list[list[int]]:
    """Generated ids of each prompt, without padding; the end-of-text token included where it came."""
    # PEFT's layers sit inside the base model, whose own generate needs no wrapper
    model: nn.Module = getattr(student.model, "get_base_model", lambda: student.model)()
    pad, end = pad_id(student.tokenizer), student.tokenizer.eos_token_id
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]), reverse=True)
    found: list[list[int]] = [[] for _ in rows]
    training, own = model.training, model.generation_config
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            width = len(rows[batch[0]])
            room = min(max_new_tokens, model.config.max_position_embeddings - width)
            # in place of the model's own, which may sample or penalise repetition
            model.generation_config = GenerationConfig(
                do_sample=False, max_new_tokens=room, eos_token_id=end, pad_token_id=pad
            )
            ids = torch.tensor([[pad] * (width - len(rows[row])) + list(rows[row]) for row in batch])
            mask = torch.tensor([[0] * (width - len(rows[row])) + [1] * len(rows[row]) for row in batch])
            output = model.generate(ids.to(model.device), attention_mask=mask.to(model.device))
            for row, generated in zip(batch, output[:, width:].tolist(), strict=True):
                found[row] = generated[: generated.index(end) + 1] if end in generated else generated
    finally:
        model.generation_config = own
        model.train(training)
    return found
