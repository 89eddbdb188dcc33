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

from negdistill.adapters import lora, save_lora, stored
from negdistill.answers import normalize
from negdistill.artifacts import Manifest, RunFolder, digest_json, remove
from negdistill.batching import Encoded, Example, batches, encode
from negdistill.checkpoint import CHECKPOINT
from negdistill.fits import ADAPTER, FIT, HISTORY, Fit, digest_code, finished
from negdistill.ranker import LOSSES, PAIRED, Ranker, pairs, score
from negdistill.recipes import Settings, TrainingSet
from negdistill.records import Rationale, check_choice
from negdistill.stats import wilson
from negdistill.students import digest_weights
from negdistill.train import train

if TYPE_CHECKING:
    from negdistill.students import Student

HEAD, VALID = "head.safetensors", "valid.jsonl"
CODE = (
    "adapters",
    "batching",
    "checkpoint",
    "losses",
    "ranker",
    "ranking",
    "train",
)  # the weights follow from these
NEGATIVES = ("own", "none", "random")

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
    """Train a ranker in a folder below `out_dir`; one that is there is returned, one begun is continued.

    data    right and wrong rationales to train on, of a teacher, of the student or of both; the losses by row
            take a set without wrong ones, too. A rationale without text is left out.
    valid   other questions, whose rationales are scored in the end
    config  adapter and optimiser. An epoch of "pairwise" and "cubic" has two rows per question, so losses are
            compared under max_steps or max_tokens.
    start   a plain LoRA row on whose adapter training goes on, in place of a fresh one

    ValueError for an unknown loss, a question in both sets, and a set without a right rationale or, for the
    losses of pairs, without a pair; otherwise as `train`. The student is left as it was.
    """
    check_choice("loss", loss, LOSSES)
    _refuse_overlap(data, valid)
    examples = _examples(data)
    judged = valid.problems, valid.positives, valid.negatives
    inputs = {
        "student": digest_weights(student.model.named_parameters()),
        "tokenizer": digest_json(student.tokenizer.get_vocab()),
        "examples": digest_json([asdict(example) for example in examples]),
        "valid": digest_json([[asdict(one) for one in side] for side in judged]),
        "code": digest_code(CODE),
    }
    if start is not None:
        inputs["start"] = RunFolder.open(start.folder).manifest.key
    parameters = {"loss": loss, "nat": asdict(config.nat), "train": asdict(config.train)}
    for name in ("progress", "checkpoint_every"):  # change no result
        del parameters["train"][name]
    key = digest_json([inputs, parameters])
    folder = Path(out_dir) / f"ranker-{loss}-{key[:12]}"
    if not finished(folder):
        manifest = Manifest(inputs=inputs, parameters=parameters, seed=config.train.seed)
        _make(student, examples, valid, config, loss, start, RunFolder(folder, manifest))
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


@contextmanager
def loaded(student: Student, fit: RankerFit) -> Iterator[Ranker]:
    """Within the block, the trained ranker; afterwards the student is the plain one again."""
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
        history = train(
            *(ranker, student.tokenizer, rows, config.train, LOSSES[loss], run.folder), order=order
        )
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
        path.write_text(json.dumps({"loss": loss, "seed": seed, "trainable_parameters": count}), "utf-8")
    remove(run.folder / CHECKPOINT)


def _refuse_overlap(data: TrainingSet, valid: TrainingSet) -> None:
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


def with_negatives(data: TrainingSet, kind: str, seed: int = 0) -> TrainingSet:
    """The training set of a control: other wrong rationales, the same right ones.

    kind  "own": as it is. "none": no wrong rationale. "random": in place of each, the right rationale of
          another question with another answer, drawn with the seed

    ValueError for an unknown kind, and where no other question has another answer.
    """
    check_choice("kind", kind, NEGATIVES)
    if kind != "random":
        return data if kind == "own" else replace(data, negatives=())
    answers = {problem.id: normalize(problem.answer) for problem in data.problems}
    held = {answers[one.problem_id] for one in data.positives}
    random = np.random.default_rng(seed)
    drawn: list[Rationale] = []
    for one in data.negatives:
        if not held - {answers[one.problem_id]}:
            raise ValueError(
                f"positives must include one with another answer than that of {one.problem_id!r}; "
                "take more questions"
            )
        other = None
        while other is None or answers[other.problem_id] == answers[one.problem_id]:
            other = data.positives[random.integers(len(data.positives))]
        drawn.append(replace(one, text=other.text))
    return replace(data, negatives=tuple(drawn))


# --- judge --------------------------------------------------------------------------------------------


def judge(ranker: Ranker, data: TrainingSet, progress: bool = True) -> pd.DataFrame:
    """Scores of all rationales of a set: teacher, problem_id, index, positive, score."""
    rationales = [*data.positives, *data.negatives]
    return pd.DataFrame(
        {
            "teacher": [one.teacher for one in rationales],
            "problem_id": [one.problem_id for one in rationales],
            "index": [one.index for one in rationales],
            "positive": [place < len(data.positives) for place in range(len(rationales))],
            "score": score(ranker, data.problems, rationales, progress=progress),
        }
    )


def report(judged: pd.DataFrame, level: float = 0.95, resamples: int = 400, seed: int = 0) -> pd.DataFrame:
    """What scores are worth: value, low and high of each measure, the interval from resampled questions.

    judged  one row per rationale: problem_id, positive (bool), score (0 to 1)

    accuracy   share of the rationales whose score is above 1/2 if right, at most 1/2 if wrong
    majority   share of the larger label: the accuracy of a constant
    AUROC      probability that a right rationale scores above a wrong one, ties half
    pairwise   the same among the rationales of one question, averaged over questions that have both
    A measure that nothing defines, as AUROC without wrong rationales, is missing (NaN).

    ValueError for a frame without these columns or without rows.
    """
    _require(judged)
    codes, names = pd.factorize(judged["problem_id"])
    positive, values = judged["positive"].to_numpy(bool), judged["score"].to_numpy(float)
    within = np.full(len(names), np.nan)
    for number, part in judged.groupby(codes):
        here = part["score"].to_numpy(float), part["positive"].to_numpy(bool)
        within[number] = _auroc(*here, np.ones(len(part)))
    random = np.random.default_rng(seed)
    count = max(len(names) - 1, 1)  # one draw fewer than there are, as in `stats`
    drawn = random.multinomial(count, np.full(len(names), 1 / len(names)), size=resamples)
    measures = {name: [] for name in ("accuracy", "majority", "AUROC", "pairwise")}
    for weights in (np.ones(len(names)), *drawn):
        rows = weights[codes]
        right = np.average(positive, weights=rows)
        measures["accuracy"].append(np.average((values > 0.5) == positive, weights=rows))
        measures["majority"].append(max(right, 1 - right))
        measures["AUROC"].append(_auroc(values, positive, rows))
        both = ~np.isnan(within) & (weights > 0)
        mean = np.average(within[both], weights=weights[both]) if both.any() else np.nan
        measures["pairwise"].append(mean)
    ends = [(1 - level) / 2, (1 + level) / 2]
    table = {name: [found[0], *_quantiles(found[1:], ends)] for name, found in measures.items()}
    return pd.DataFrame.from_dict(table, orient="index", columns=["value", "low", "high"])


def _quantiles(values: list[float], ends: list[float]) -> np.ndarray:
    there = np.array(values)[~np.isnan(values)]
    return np.quantile(there, ends) if len(there) else np.full(len(ends), np.nan)


def _auroc(values: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
    """Weighted share of the pairs of a right and a wrong row that the values order rightly, ties half."""
    _, level = np.unique(values, return_inverse=True)
    right = np.bincount(level, weights * positive)
    wrong = np.bincount(level, weights * ~positive)
    total = right.sum() * wrong.sum()
    return float(right @ (wrong.cumsum() - wrong / 2) / total) if total else float("nan")


def calibration(judged: pd.DataFrame, bins: int = 10) -> pd.DataFrame:
    """Share of right rationales against score: a row per bin of equal width that holds one.

    Columns: bin (from 0), rationales (count), score (mean), share (of right ones), and low and high of its
    Wilson interval; rationales of one question are alike, so it is a little narrow.
    """
    _require(judged)
    if bins < 1:
        raise ValueError(f"bins must be at least 1; got {bins}")
    number = (judged["score"] * bins).astype(int).clip(0, bins - 1).rename("bin")
    groups = judged.groupby(number)
    table = pd.DataFrame(
        {"rationales": groups.size(), "score": groups["score"].mean(), "share": groups["positive"].mean()}
    )
    ends = [wilson(share * n, n) for share, n in zip(table["share"], table["rationales"], strict=True)]
    return table.assign(low=[low for low, _ in ends], high=[high for _, high in ends]).reset_index()


def _require(judged: pd.DataFrame) -> None:
    if judged.empty or not {"problem_id", "positive", "score"} <= set(judged):
        raise ValueError(
            "judged must be a frame with the columns problem_id, positive and score and at least one row; "
            f"got {len(judged)} rows of {', '.join(judged) or 'nothing'}"
        )
