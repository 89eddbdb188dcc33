"""Methods: every row of the paper's Table 2 and every control, as one table and one function.

    row          trains on                        forward at test time
    Few-shot     -                                W0, worked examples before the question
    plain rows   solutions, positives or both     W0 + s B A                             (PEFT LoRA)
    NAT rows     positives                        the unit over pos and neg branch       (negdistill.nat)
    Merge        -                                W0 + 1.5 dW(CoT KD) - 0.5 dW(Negative adapter)

    data = training_set(problems, rationales)
    nat = fit("NAT", student, data, settings(epochs=4), "../_runs/fits")
    with adapted(student, nat) as trained:
        ...

A row may use adapters of other rows: NAT needs the negative adapter. Those are fitted on the way, in the same
folder, and their steps, tokens and seconds count in the row's totals.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pandas as pd
from torch import nn

from negdistill.adapters import integrate, lora, merged, projections, save_lora, stored, wide_rank
from negdistill.artifacts import Manifest, RunFolder, digest_file, digest_json
from negdistill.batching import Example
from negdistill.fits import ADAPTER, POINTS, Fit, OnEpoch, finished, follower, load_fit, processes, write_fit
from negdistill.nat import save_nat
from negdistill.recipes import SETTINGS, Settings, TrainingSet, few_shot_prefix, settings, training_set
from negdistill.records import check_choice
from negdistill.train import COLUMNS, train

if TYPE_CHECKING:
    from negdistill.students import Student

__all__ = [
    "METHODS",
    "SETTINGS",
    "Fit",
    "Method",
    "Settings",
    "TrainingSet",
    "adapted",
    "fit",
    "load_fit",
    "settings",
    "training_set",
]

# --- the table ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Method:
    """One row.

    origin       "paper" (Table 1 or 2) or "control"
    data         what its own training reads: "solutions", "positives", "negatives", "both"; "" for none
    view         what computes at test time: "base", "lora" or "nat"
    objective    name in `losses.OBJECTIVES`
    uses         rows whose adapters it needs, in the order they are fitted
    start        what becomes of those: "" there are none, "branch" the negative branch, "noise" a negative
                 branch of noise of their size, "continue" training goes on from there, "merge" their sum
    description  for the tables
    """

    name: str
    origin: str
    data: str
    view: str
    description: str
    objective: str = "likelihood"
    uses: tuple[str, ...] = ()
    start: str = ""

    @property
    def stages(self) -> int:
        """Number of trainings that share its budget."""
        return len(self.uses) + bool(self.data)


NEGATIVE = "Negative adapter"
WIDE = "CoT KD, NAT's size"
MERGE = {NEGATIVE: -0.5, "CoT KD": 1.5}
_NEG = (NEGATIVE,)
_ROWS = (
    Method("Few-shot", "paper", "", "base", "worked examples in the prompt, no training"),
    Method("Fine-tune", "paper", "solutions", "lora", "the data set's own solutions"),
    Method("CoT KD", "paper", "positives", "lora", "right rationales of the teacher"),
    Method("MIX", "paper", "both", "lora", "right and wrong rationales alike"),
    Method("CL", "paper", "both", "lora", "CoT KD, and contrast with wrong rationales", "contrastive"),
    Method("NT", "paper", "both", "lora", "CoT KD, less 0.05 likelihood of wrong ones", "negative"),
    Method("UL", "paper", "both", "lora", "CoT KD, and 0.05 unlikelihood of wrong ones", "unlikelihood"),
    Method("NAT", "paper", "positives", "nat", "the unit over both adapters", uses=_NEG, start="branch"),
    Method(NEGATIVE, "paper", "negatives", "lora", "wrong rationales only"),
    Method(WIDE, "control", "positives", "lora", "CoT KD with as many trainable parameters as NAT"),
    Method("NAT, empty branch", "control", "positives", "nat", "the unit over a zero negative branch"),
    Method(
        "NAT, random branch", "control", "positives", "nat", "the unit over noise", uses=_NEG, start="noise"
    ),
    Method(
        *("NAT, positive branch", "control", "positives", "nat", "the unit over CoT KD as negative branch"),
        uses=("CoT KD",),
        start="branch",
    ),
    Method(
        *(
            "Negatives first",
            "control",
            "positives",
            "lora",
            "one adapter: wrong rationales, then right ones",
        ),
        uses=_NEG,
        start="continue",
    ),
    Method(
        *("Merge", "control", "", "lora", "1.5 CoT KD - 0.5 negative adapter, no training of its own"),
        uses=tuple(MERGE),
        start="merge",
    ),
)
METHODS: Mapping[str, Method] = MappingProxyType({row.name: row for row in _ROWS})

# --- fit ----------------------------------------------------------------------------------------------

# the sources that the weights follow from
CODE = (
    "adapters",
    "batching",
    "fits",
    "losses",
    "methods",
    "nat",
    "nat_files",
    "nat_unit",
    "recipes",
    "train",
)


def fit(
    method: str,
    student: Student,
    data: TrainingSet,
    config: Settings,
    out_dir: str | Path,
    neg: Fit | None = None,
    on_epoch: OnEpoch | None = None,
) -> Fit:
    """Fit one row of METHODS, and the rows that it uses, each in a folder of its own below `out_dir`.

    The folder's name holds a key of row, data, student, settings and code: what is there already is returned
    without training, what was interrupted continues from its checkpoint. The student is left as it was.

    neg       negative adapter to use in place of one fitted with the same settings, so that several rows and
              budgets can share it; rows that use none ignore it
    on_epoch  called after each epoch of the row's own training, with the student as trained so far and the
              number of epochs; the frames it returns (problem_id, split, correct, ...) make `Fit.path`. Its
              attribute `key`, a string, says what it does and is part of the folder's key.

    ValueError for an unknown row, an empty set of rationales, a projection that the model lacks, worked
    examples that do not fit the context, or a budget that the adapters it uses took; otherwise as `train`.
    """
    check_choice("method", method, METHODS)
    row, out_dir = METHODS[method], Path(out_dir)
    if on_epoch is not None and not isinstance(getattr(on_epoch, "key", None), str):
        raise ValueError(
            f"on_epoch must have an attribute key, a string that says what it does; got {on_epoch!r}"
        )
    projections(student.model, config.nat.target_modules)
    examples = data.examples(row.data or "positives", config.preset)
    used, config = _used(row, student, data, config, out_dir, neg)
    inputs, parameters = _origin(row, student, examples, config, used, on_epoch)
    key = digest_json([inputs, parameters])
    folder = out_dir / f"{re.sub('[^a-z]+', '-', method.lower())}-{key[:12]}"
    found = finished(folder)
    processes().wait_for_everyone()  # all processes have looked before the main one writes
    if not found:
        manifest = Manifest(inputs=inputs, parameters=parameters, seed=config.train.seed)
        _make(row, student, examples, config, used, RunFolder(folder, manifest), on_epoch)
    return load_fit(folder)


@contextmanager
def adapted(student: Student, fit: Fit) -> Iterator[Student]:
    """Within the block, the student with the adapter of the fit; afterwards it is the plain student again."""
    view = METHODS[fit.method].view
    block = (
        nullcontext(student.model) if view == "base" else stored(student.model, fit.folder / ADAPTER, view)
    )
    with block as model:
        yield student._replace(model=model)


def _used(
    row: Method, student: Student, data: TrainingSet, config: Settings, out_dir: Path, neg: Fit | None
) -> tuple[list[Fit], Settings]:
    """The fits that a row uses, and the settings with what is left of the budget."""
    fits: list[Fit] = []
    for place, name in enumerate(row.uses):
        if name == NEGATIVE and neg is not None:
            check_choice("neg.method", neg.method, _NEG)
            fits.append(neg)
        else:
            fits.append(fit(name, student, data, _left(config, fits, row.stages - place), out_dir))
    return fits, _left(config, fits, 1) if row.data else config


def _left(config: Settings, spent: list[Fit], parts: int) -> Settings:
    """The settings with one of `parts` equal shares of what is left of max_steps or max_tokens."""
    for limit, total in (("max_steps", "total_steps"), ("max_tokens", "total_tokens")):
        if (budget := getattr(config.train, limit)) is None:
            continue
        taken = sum(getattr(one, total) for one in spent)
        if budget - taken < parts:
            raise ValueError(
                f"{limit} must exceed the {taken} that the adapters took which the row uses; got {budget}; "
                "raise it, or give a neg that was trained for less"
            )
        config = replace(config, train=replace(config.train, **{limit: (budget - taken) // parts}))
    return config


def _origin(
    row: Method,
    student: Student,
    examples: list[Example],
    config: Settings,
    used: list[Fit],
    on_epoch: OnEpoch | None,
) -> tuple[dict[str, str], dict[str, object]]:
    """Inputs and parameters that a fit follows from; tensors of the student count through 64 values each."""
    weights = hashlib.sha256()
    for name, parameter in student.model.named_parameters():
        values = parameter.detach().flatten()
        weights.update(f"{name} {tuple(parameter.shape)} ".encode())
        weights.update(values[:: max(1, len(values) // 64)].double().cpu().numpy().tobytes())
    inputs = {
        "student": weights.hexdigest(),
        "tokenizer": digest_json(student.tokenizer.get_vocab()),
        "examples": digest_json([asdict(example) for example in examples]),
        "code": digest_json([digest_file(Path(__file__).with_name(f"{name}.py")) for name in CODE]),
        **{one.method: RunFolder.open(one.folder).manifest.key for one in used},
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
        return integrate(model, config.nat, folders[0] if folders else None, row.start == "noise", seed)
    if row.start == "merge":
        return merged(model, dict(zip(folders, MERGE.values(), strict=True)))
    r = wide_rank(model, config.nat) if row.name == WIDE else None
    return lora(model, config.nat, r, folders[0] if folders else None, seed)


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
    history, prefix = pd.DataFrame(columns=COLUMNS), ""
    count = sum(one.trainable_parameters for one in used)
    with _model(row, student.model, config, used) as model:
        if row.data:
            count = sum(p.numel() for p in model.parameters() if p.requires_grad)
            follow = follower(on_epoch, student, run.folder / POINTS) if on_epoch else None
            history = train(
                *(model, student.tokenizer, examples, config.train, row.objective, run.folder, config.preset),
                on_epoch=follow,
            )
        if row.view == "base":
            prefix = few_shot_prefix(examples, student, config)
        elif main:
            with run.create(ADAPTER) as path:
                save_nat(model, path) if row.view == "nat" else save_lora(model, path)
    if main:
        write_fit(run, row.name, config, used, history, count, prefix)
    processes().wait_for_everyone()
