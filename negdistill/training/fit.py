"""Methods: one function fits every row of `method_table.METHODS`.

    data = training_set(problems, rationales)
    nat = fit("NAT", student, data, settings(epochs=4), "../_runs/fits")
    with adapted(student, nat) as trained:
        ...

What a row uses is fitted on the way, in the same folder, and its steps, tokens and seconds count in the row's
totals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from torch import nn

from negdistill.checks import check_choice, check_type
from negdistill.method.nat import save_nat
from negdistill.method.projections import check_plain, projections, taken
from negdistill.runs.digests import digest_code, digest_json
from negdistill.runs.folder import Manifest, RunFolder
from negdistill.runs.processes import held, processes, resumed
from negdistill.training.adapters import lora, merged, nat_lora, save_lora, stored, wide_rank
from negdistill.training.batching import (
    Encoded,
    Example,
    batches,
    beside,
    encode,
    mismatched,
    pairs,
)
from negdistill.training.budget import rest, stage_settings
from negdistill.training.contrast import contrasted, save_contrast
from negdistill.training.dataset import TrainingSet
from negdistill.training.few_shot import few_shot_prefix
from negdistill.training.fits import (
    ADAPTER,
    Fit,
    OnEpoch,
    check_fit,
    check_inputs,
    finished,
    follower,
    load_fit,
    write_fit,
)
from negdistill.training.identity import digest_student
from negdistill.training.loop import COLUMNS, train
from negdistill.training.method_table import (
    CONTRAST,
    COT,
    MERGE,
    NEGATIVE,
    WIDE,
    Method,
    digest_method,
    find_method,
    stages,
)
from negdistill.training.passes import reference_pass, teacher_pass
from negdistill.training.settings import Settings
from negdistill.training.students import check_student, context_length

if TYPE_CHECKING:
    from negdistill.training.students import Student

ORDER = {"single": (batches, 1), "pairs": (pairs, 2), "mismatched": (beside, 2)}  # and what stays together


def fit(
    method: str,
    student: Student,
    data: TrainingSet,
    config: Settings,
    out_dir: str | Path,
    neg: Fit | None = None,
    on_epoch: OnEpoch | None = None,
    nat: Fit | None = None,
    start: Fit | None = None,
) -> Fit:
    """Fit one row of METHODS, and the rows that it uses, each in a folder of its own below `out_dir`.

    The folder's name holds a key of row, data, student, settings and code: what is there already is returned
    without training, what was interrupted continues from its checkpoint. The student is left as it was.

    method    name of a row; "module:Name" is one of your own, see `method_table.find_method`
    neg       negative adapter to use in place of one fitted with the same settings, so that several rows and
              budgets can share it; rows that use none ignore it
    on_epoch  called after each epoch of the row's own training, with the student as trained so far and the
              number of epochs; the frames it returns (problem_id, split, correct, ...) make
              `Fit.trajectory`. Its attribute `key`, a string, says what it does and is part of the key.
    nat       NAT to use in place of one fitted with the same settings, as `neg`; it may have been fitted on
              other rationales, as NCE's teacher before its own samples joined them
    start     CoT KD to use in place of one fitted with the same settings, as `neg`: rivals go on from it, at
              rates of their own

    ValueError for an unknown row, a student that carries adapters, an empty set of rationales, a projection
    that the model lacks, worked examples that do not fit the context, or a budget that the adapters it uses
    took; otherwise as `train`. TypeError for an argument of another type.
    """
    check_type("method", method, str, "the name of a row")
    check_inputs(student, {"data": data}, config, out_dir, {"neg": neg, "nat": nat, "start": start})
    find_method(method)
    _check(on_epoch, student, config)
    named = {NEGATIVE: ("neg", neg), "NAT": ("nat", nat), COT: ("start", start)}
    given = {name: one for name, (_, one) in named.items() if one is not None}
    for name, one in given.items():
        check_choice(f"{named[name][0]}.method", one.method, (name,))
    given.pop(method, None)
    fits, wanted = dict(given), {stage: find_method(stage) for stage in stages(method, given)}
    texts = {
        name: data.examples(one.data or "positives", config.preset, one.marks) for name, one in wanted.items()
    }
    for name, one in wanted.items():
        part = stage_settings(name, method, config, fits, given)
        watch = on_epoch if name == method else None
        fits[name] = _fit(one, student, texts[name], part, Path(out_dir), fits, watch)
    return fits[method]


def _check(on_epoch: OnEpoch | None, student: Student, config: Settings) -> None:
    check_plain(student.model)
    projections(student.model, config.nat.target_modules)
    if on_epoch is not None and not isinstance(getattr(on_epoch, "key", None), str):
        raise ValueError(
            f"on_epoch must have an attribute key, a string that says what it does; got {on_epoch!r}"
        )


@contextmanager
def adapted(student: Student, fit: Fit) -> Iterator[Student]:
    """Within the block, the student with the adapter of the fit; afterwards it is the plain student again.

    TypeError for what is no Student or no Fit; ValueError for an adapter that was trained on another base,
    and for a student that carries one: one block at a time, also for those that share its model.
    """
    check_student(student)
    check_fit("fit", fit)
    check_plain(student.model)
    view = find_method(fit.method).view
    block = (
        nullcontext(student.model) if view == "base" else stored(student.model, fit.folder / ADAPTER, view)
    )
    with block as model, taken(student.model, model):
        yield student._replace(model=model)


def _fit(
    row: Method,
    student: Student,
    examples: list[Example],
    config: Settings,
    out_dir: Path,
    fits: Mapping[str, Fit],
    on_epoch: OnEpoch | None,
) -> Fit:
    """One method, from its folder or trained, where all that it uses is fitted."""
    used = [fits[name] for name in row.uses]
    if row.data:
        config = rest(config, used)
    inputs, parameters = _origin(row, student, examples, config, used, on_epoch)
    manifest = Manifest(inputs=inputs, parameters=parameters, seed=config.train.seed)
    folder = out_dir / f"{re.sub('[^a-z]+', '-', row.name.lower())}-{manifest.key[:12]}"
    with held(folder):
        found = finished(folder, manifest)
        processes().wait_for_everyone()  # all processes have looked before the main one writes
        if not found:
            _make(row, student, examples, config, used, resumed(folder, manifest), on_epoch)
    return load_fit(folder)


# --- one fit ------------------------------------------------------------------------------------------


def _origin(
    row: Method,
    student: Student,
    examples: list[Example],
    config: Settings,
    used: list[Fit],
    on_epoch: OnEpoch | None,
) -> tuple[dict[str, str], dict[str, object]]:
    """Inputs and parameters that a fit follows from."""
    inputs = {
        **digest_student(student),
        "examples": digest_json([asdict(example) for example in examples]),
        "code": digest_code(__name__),
        **{one.method: RunFolder.open(one.folder).manifest.key for one in used},
        **({"method": digest_method(row)} if ":" in row.name else {}),
    }
    parameters = {
        "method": row.name,
        "on_epoch": None if on_epoch is None else on_epoch.key,
        **asdict(config),
    }
    for name in ("progress", "checkpoint_every"):  # change no result
        del parameters["train"][name]
    return inputs, parameters


def _model(
    row: Method, model: nn.Module, config: Settings, used: list[Fit]
) -> AbstractContextManager[nn.Module]:
    """The model as the row trains it, or as it stands without training."""
    folders = [one.folder / ADAPTER for one in used]
    seed = config.train.seed
    if row.view == "base":
        return nullcontext(model)
    if row.view == "nat":
        return nat_lora(model, config.nat, folders[0] if folders else None, row.start == "noise", seed)
    if row.start == "contrast":
        return nullcontext(contrasted(model, folders[1], folders[0], config.nat.target_modules, CONTRAST))
    if row.start == "merge":
        return merged(model, dict(zip(folders, MERGE.values(), strict=True)))
    r = wide_rank(model, config.nat) if row.name == WIDE else None
    return lora(model, config.nat, r, folders[0] if row.start == "continue" else None, seed)


def _make(
    row: Method,
    student: Student,
    examples: list[Example],
    config: Settings,
    used: list[Fit],
    run: RunFolder,
    on_epoch: OnEpoch | None,
) -> None:
    """Train, then write the folder, fit.json last. With several processes the main one writes."""
    main = processes().is_main_process
    history, prefix, seconds = pd.DataFrame(columns=COLUMNS), row.prefix, 0.0
    count = sum(one.trainable_parameters for one in used)
    cache = teacher_pass(student, examples, config, used, run.folder.parent) if row.beta_mode else None
    teacher = cache and cache.teacher(row.beta_mode, config.mixing, config.train.seed)
    with _model(row, student.model, config, used) as model:
        if row.data:
            count = sum(p.numel() for p in model.parameters() if p.requires_grad)
            follow = follower(on_epoch, student, run) if on_epoch else None
            rows = _rows(row, examples, student, config)
            if row.reference:
                teacher = reference_pass(model, rows, student, config, run.folder.parent)
            seconds = 0.0 if teacher is None else (cache or teacher).seconds
            order, together = ORDER[row.order]
            history = train(
                model,
                student.tokenizer,
                rows,
                config.train,
                objective=row.objective,
                out_dir=run.folder,
                preset=config.preset,
                on_epoch=follow,
                teacher=teacher,
                order=order,
                per=row.per,
                together=together,
                memory=row.memory,
            )
        if row.view == "base":
            prefix = few_shot_prefix(examples, student, config)
        elif main:
            with run.create(ADAPTER) as path:
                _save(row, model, path, config, used)
    if main:
        write_fit(run, row.name, config, used, history, count, prefix, seconds)
    processes().wait_for_everyone()


def _rows(row: Method, examples: list[Example], student: Student, config: Settings) -> list[Encoded]:
    """The examples as tokens; for "mismatched" followed by each prompt with another question's rationale."""
    context = context_length(student.model, student.tokenizer)
    rows = encode(examples, student.tokenizer, context, config.preset)
    return rows + mismatched(rows, config.train.seed, context) if row.order == "mismatched" else rows


def epoch_steps(method: str, student: Student, data: TrainingSet, config: Settings) -> int:
    """Optimiser steps of one epoch of a row's own training, at least 1; errors as in `fit`."""
    row = find_method(method)
    rows = _rows(row, data.examples(row.data, config.preset, row.marks), student, config)
    micro = ORDER[row.order][0](rows, config.train.batch_size, config.train.seed, 0)
    return max(1, ceil(len(micro) / config.train.gradient_accumulation_steps))


def _save(row: Method, model: nn.Module, path: Path, config: Settings, used: list[Fit]) -> None:
    if row.view == "nat":
        save_nat(model, path)
    elif row.view == "contrast":
        wrong, right = (one.folder / ADAPTER for one in used)
        save_contrast(path, right, wrong, config.nat.target_modules, CONTRAST)
    else:
        save_lora(model, path)
