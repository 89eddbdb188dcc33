"""Evaluate: greedy answers of a student, graded.

    prompts, sorted by length and padded on the left         . . p p p p | c c e       p prompt, c completion,
                                                             p p p p p p | c c c       e end of text

`evaluate` answers a list of problems, `predictions` does so for every fitted row and seed, which is what
`tables` reads, and `Follow` does so along a path of training: fit(..., on_epoch=Follow({"valid": valid})).
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
    from transformers import PreTrainedTokenizerBase

    from negdistill.students import Student

FIRST_ROUND = 64  # new tokens before finished rows are put aside


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
    _check_room(problems, rows, _context(student))
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


def _context(student: Student) -> int:
    return student.model.config.get_text_config().max_position_embeddings


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
    """Generated ids of each prompt, without padding; the end-of-text token included where it came.

    All rows get at most `FIRST_ROUND` tokens, those that have not ended twice as many more, and so on: a few
    long answers do not keep whole batches waiting.
    """
    # PEFT's layers sit inside the base model, whose own generate needs no wrapper
    model: nn.Module = getattr(student.model, "get_base_model", lambda: student.model)()
    context, end = _context(student), student.tokenizer.eos_token_id
    found: list[list[int]] = [[] for _ in rows]
    training, own = model.training, model.generation_config
    model.eval()
    pending, tokens = list(range(len(rows))), FIRST_ROUND
    try:
        while pending:
            pending.sort(key=lambda row: len(rows[row]) + len(found[row]), reverse=True)
            for start in range(0, len(pending), batch_size):
                batch = pending[start : start + batch_size]
                texts = [[*rows[row], *found[row]] for row in batch]
                left = min(max_new_tokens - len(found[row]) for row in batch)
                limit = min(tokens, left, context - len(texts[0]))
                for row, more in zip(batch, _generate(model, texts, limit, student.tokenizer), strict=True):
                    found[row] += more[: more.index(end) + 1] if end in more else more
            pending = [
                row
                for row in pending
                if found[row][-1] != end
                and len(found[row]) < max_new_tokens
                and len(rows[row]) + len(found[row]) < context
            ]
            tokens *= 2
    finally:
        model.generation_config = own
        model.train(training)
    return found


def _generate(
    model: nn.Module, texts: Sequence[Sequence[int]], tokens: int, tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """Continue each text by `tokens` tokens, fewer where all have ended; the longest text comes first."""
    pad, width = pad_id(tokenizer), len(texts[0])
    # in place of the model's own, which may sample or penalise repetition
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=tokens, eos_token_id=tokenizer.eos_token_id, pad_token_id=pad
    )
    ids = torch.tensor([[pad] * (width - len(text)) + list(text) for text in texts], device=model.device)
    mask = (torch.arange(width) >= torch.tensor([[width - len(text)] for text in texts])).long()
    return model.generate(ids, attention_mask=mask.to(model.device))[:, width:].tolist()
