"""Ranking: rankers trained, kept on disk, and judged on questions that they have not seen.

folder/adapter/       a PEFT folder, and head.safetensors beside its weights
folder/history.csv    one row per step
folder/valid.jsonl    validation rationales with their scores
folder/fit.json       loss, seed and counts, written last
folder/manifest.json  what it was made from, and the sha256 of all of these

    fit = fit_ranker(student, data, valid, settings(max_steps=300), "../_runs/rankers", loss="bce")
    report(fit.valid)
    with loaded(student, fit) as ranker:
        weights = score(ranker, problems, samples)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from safetensors.torch import load_file, save_file

from negdistill.checks import check_choice, check_type, json_number
from negdistill.inference.ranker import LOSSES, PAIRED, Ranker
from negdistill.inference.ranker_report import judge
from negdistill.method.projections import check_plain
from negdistill.runs.digests import digest_code, digest_json
from negdistill.runs.files import remove
from negdistill.runs.folder import Manifest, RunFolder
from negdistill.runs.processes import held, processes
from negdistill.training.adapters import lora, save_lora, stored
from negdistill.training.batching import Encoded, Example, batches, encode, pairs
from negdistill.training.checkpoint import CHECKPOINT
from negdistill.training.dataset import TrainingSet
from negdistill.training.fits import ADAPTER, FIT, HISTORY, Fit, check_inputs, finished
from negdistill.training.identity import digest_student
from negdistill.training.loop import train
from negdistill.training.method_table import find_method
from negdistill.training.settings import Settings
from negdistill.training.students import check_student

if TYPE_CHECKING:
    from negdistill.training.students import Student

HEAD, VALID = "head.safetensors", "valid.jsonl"
# --- fit ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankerFit:
    """A trained ranker, as it lies in `folder`.

    history  as `train` returns it
    valid    candidates of questions that it was not trained on: teacher, problem_id, index, positive, score
    """

    loss: str
    seed: int
    folder: Path
    history: pd.DataFrame
    valid: pd.DataFrame
    trainable_parameters: int


def fit_ranker(
    student: Student,
    data: TrainingSet,
    valid: TrainingSet,
    config: Settings,
    out_dir: str | Path,
    loss: str = "mse",
    start: Fit | None = None,
) -> RankerFit:
    """Train a ranker, whose scores in [0, 1] weigh the votes of `asc.vote`, in a folder below `out_dir`; one
    that is there is returned, one begun is continued.

    data    right and wrong rationales to train on, of a teacher, of the student or of both; the losses by row
            take a set without wrong ones, too. A rationale without text is left out.
    valid   other questions, whose rationales are scored in the end
    config  adapter and optimiser. An epoch of "pairwise" and "cubic" has two rows per question, so losses are
            compared under max_steps or max_tokens.
    start   a plain LoRA row on whose adapter training goes on, in place of a fresh one

    ValueError for an unknown loss, a question in both sets, and a set without a right rationale or, for the
    losses of pairs, without a pair; otherwise as `train`. TypeError for an argument of another type. The
    student is left as it was.
    """
    check_choice("loss", loss, LOSSES)
    if (count := processes().num_processes) > 1:
        raise ValueError(f"fit_ranker must run in one process; got {count}: start it by itself")
    check_inputs(student, {"data": data, "valid": valid}, config, out_dir, {"start": start})
    check_plain(student.model)
    _refuse(data, valid, start)
    examples = _examples(data)
    judged = valid.problems, valid.positives, valid.negatives
    inputs = {
        **digest_student(student),
        "examples": digest_json([asdict(example) for example in examples]),
        "valid": digest_json([[asdict(one) for one in side] for side in judged]),
        "code": digest_code(__name__),
    }
    if start is not None:
        inputs["start"] = RunFolder.open(start.folder).manifest.key
    parameters = {"loss": loss, "nat": asdict(config.nat), "train": asdict(config.train)}
    for name in ("progress", "checkpoint_every"):  # change no result
        del parameters["train"][name]
    key = digest_json([inputs, parameters])
    folder = Path(out_dir) / f"ranker-{loss}-{key[:12]}"
    manifest = Manifest(inputs=inputs, parameters=parameters, seed=config.train.seed)
    with held(folder):
        if not finished(folder, manifest):
            _make(student, examples, valid, config, loss, start, RunFolder.resume(folder, manifest))
    return load_ranker(folder)


def load_ranker(folder: str | Path) -> RankerFit:
    """A finished ranker from its folder. FileNotFoundError where there is none.

    ValueError where it is damaged, and for an adapter without its head.
    """
    run = RunFolder.open(folder)
    if not (run.folder / ADAPTER / HEAD).is_file():
        raise ValueError(f"{run.folder / ADAPTER} holds an adapter without its head, {HEAD}; train it again")
    run.path(ADAPTER)
    row = json.loads(run.path(FIT).read_text(encoding="utf-8"))
    valid = pd.read_json(
        run.path(VALID), orient="records", lines=True, dtype={"problem_id": str}, precise_float=True
    )
    return RankerFit(folder=run.folder, history=pd.read_csv(run.path(HISTORY)), valid=valid, **row)


def check_ranker(parameter: str, one: object) -> None:
    """TypeError unless it is a RankerFit."""
    check_type(parameter, one, RankerFit, "a RankerFit, as fit_ranker() returns it")


@contextmanager
def loaded(student: Student, fit: RankerFit) -> Iterator[Ranker]:
    """Within the block, the trained ranker; afterwards the student is the plain one again.

    TypeError for what is no Student or no RankerFit; ValueError for a ranker of another student.
    """
    check_student(student)
    check_ranker("fit", fit)
    tensors = load_file(fit.folder / ADAPTER / HEAD)
    with stored(student.model, fit.folder / ADAPTER, "lora"):
        ranker = Ranker(student)
        expected = {name: tensor.shape for name, tensor in ranker.head.state_dict().items()}
        if expected != {name: tensor.shape for name, tensor in tensors.items()}:
            raise ValueError(
                f"{fit.folder / ADAPTER / HEAD} does not fit the student, whose width is "
                f"{ranker.head.in_features}; load the student that it was trained on"
            )
        ranker.head.load_state_dict(tensors)
        yield ranker.eval()


def _make(
    student: Student,
    examples: list[Example],
    valid: TrainingSet,
    config: Settings,
    loss: str,
    start: Fit | None,
    run: RunFolder,
) -> None:
    seed, begun = config.train.seed, None if start is None else start.folder / ADAPTER
    with lora(student.model, config.nat, start=begun, seed=seed) as wrapped:
        ranker = Ranker(student)
        rows = _tokens(examples, ranker)
        order = batches
        if loss in PAIRED:
            order = pairs
            if not pairs(rows, 2, 0, 0):
                raise ValueError(
                    f"loss {loss!r} needs a question with a right and a wrong rationale; none has"
                )
        count = sum(p.numel() for p in ranker.parameters() if p.requires_grad)
        history = train(ranker, student.tokenizer, rows, config.train, LOSSES[loss], run.folder, order=order)
        with run.create(ADAPTER) as path:
            save_lora(wrapped, path)
            head = {name: tensor.contiguous() for name, tensor in ranker.head.state_dict().items()}
            save_file(head, path / HEAD)
        judged = judge(ranker, valid, progress=config.train.progress)
    with run.create(HISTORY) as path:
        history.to_csv(path, index=False)
    with run.create(VALID) as path:
        judged.to_json(path, orient="records", lines=True, double_precision=15)
    with run.create(FIT) as path:
        row = {"loss": loss, "seed": seed, "trainable_parameters": count}
        path.write_text(json.dumps(row, default=json_number), "utf-8")
    remove(run.folder / CHECKPOINT)


def _refuse(data: TrainingSet, valid: TrainingSet, start: Fit | None) -> None:
    if start is not None and find_method(start.method).view != "lora":
        raise ValueError(f"start must be a fit of a plain LoRA row; got one of {start.method!r}")
    ids = {problem.id for problem in data.problems}
    questions = {problem.question for problem in data.problems}
    for problem in valid.problems:
        if problem.id in ids or problem.question in questions:
            raise ValueError(
                f"valid must hold other questions than data; both hold {problem.id!r} or its text; "
                "split the problems first"
            )


def _examples(data: TrainingSet) -> list[Example]:
    """The rationales with a text, right and wrong."""
    kinds = ["positives", "negatives"] if data.negatives else ["positives"]
    return [example for kind in kinds for example in data.examples(kind)]


def _tokens(examples: list[Example], ranker: Ranker) -> list[Encoded]:
    """Rows with one target each, their last token: what `train` divides a loss by is then rows."""
    rows = encode(examples, ranker.tokenizer, ranker.context)
    return [replace(row, loss_mask=np.arange(row.length) == row.length - 1) for row in rows]
