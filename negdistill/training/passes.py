"""Passes: what a frozen model says about a method's examples, once, in a folder that methods share."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from negdistill.runs.digests import digest_code, digest_json
from negdistill.runs.folder import RunFolder
from negdistill.training.adapters import stored
from negdistill.training.batching import Encoded, Example, digest_encoded, encode, pad_id
from negdistill.training.fits import ADAPTER, Fit
from negdistill.training.identity import digest_model
from negdistill.training.reference import Reference, reference
from negdistill.training.settings import Settings
from negdistill.training.students import context_length
from negdistill.training.teacher_cache import TeacherCache, teacher_cache

if TYPE_CHECKING:
    from negdistill.training.students import Student


def teacher_pass(
    student: Student, examples: list[Example], config: Settings, used: list[Fit], out_dir: Path
) -> TeacherCache:
    """What the frozen NAT says about the examples, one folder for all rows that ask the same."""
    (nat,) = used
    code = digest_code(teacher_cache.__module__)
    said = [config.top_k, config.temperature, config.train.batch_size]
    named = [code, RunFolder.open(nat.folder).manifest.key, config.preset, *said]
    key = digest_json([*named, [asdict(example) for example in examples]])
    context = context_length(*student)
    rows = encode(examples, student.tokenizer, context, config.preset)
    with stored(student.model, nat.folder / ADAPTER, "nat") as model:
        return teacher_cache(
            model,
            rows,
            pad_id(student.tokenizer),
            out_dir / f"teacher-{key[:12]}",
            top_k=config.top_k,
            temperature=config.temperature,
            batch_size=config.train.batch_size,
            progress=config.train.progress,
        )


def reference_pass(
    model: nn.Module, rows: list[Encoded], student: Student, config: Settings, out_dir: Path
) -> Reference:
    """What the model says before it is trained, one folder for all rows of the table that ask the same."""
    size, progress = config.train.batch_size, config.train.progress
    code = digest_code(reference.__module__)
    key = digest_json([code, digest_model(model), digest_encoded(rows), size])
    folder = out_dir / f"reference-{key[:12]}"
    return reference(model, rows, pad_id(student.tokenizer), folder, size, progress)
