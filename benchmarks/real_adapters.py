r"""Where the adapters of a real student sit: CoT KD on all seven projections of a layer, against q and v.

    python benchmarks/real_adapters.py        # some three hours on one core

The student is smollm2-135m, the data are released rationales of MATH; both have to be there. *q and v* is the
committed adapter of chapter 11 (CoT KD, first seed). *all seven* learns from the same rationales for the same
number of steps, at half the rate. Loss is that of a token of right rationales of validation questions. Solved
are the test questions of the chapter, and some of levels 4 and 5. The answers of *q and v* to the former are
those that the chapter shows. There is one seed, so the intervals are over questions.

What is finished is kept in --folder, and a run that was stopped goes on there.
Writes real_adapters.json and real_adapters.md into --out (default: benchmarks/results).
"""

from __future__ import annotations

import random
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from measuring import keep, plain_options, provenance
from real_steps import SEVEN  # which loads students on one thread

from negdistill.bookmaking.predictions import predictions as committed
from negdistill.bookmaking.predictions import select
from negdistill.bookmaking.tables import method_table, percents
from negdistill.data.records import Problem
from negdistill.data.tasks import load_task
from negdistill.inference.evaluate import predictions, rationale_log_probs
from negdistill.inference.side_by_side import BASE
from negdistill.method.low_precision import fast_dtype
from negdistill.runs.digests import digest_json
from negdistill.runs.folder import RunFolder
from negdistill.training.dataset import TrainingSet, training_set
from negdistill.training.fit import adapted, fit
from negdistill.training.fits import Fit, load_fit
from negdistill.training.settings import settings
from negdistill.training.students import Student, load_student

BOOK = Path(__file__).parents[1] / "book"
TWO, ALL = "q and v", "all seven"
LEVELS, TEACHER, SEED = (1, 2, 3), "tdg-gpt-3.5-turbo", 0  # of chapter 11, as all that follows
STEPS, RATE, LONGEST, ANSWER = 240, 0.004, 1200, 256
WORLD = load_task("math")


def pick(split: str, wanted: int, inside: bool = True) -> list[Problem]:
    """So many questions of the levels, or of the others, as the chapter draws them."""
    pool = [problem for problem in WORLD.questions(split) if (problem.level in LEVELS) == inside]
    places = random.Random(SEED).sample(range(len(pool)), min(wanted, len(pool)))
    return [pool[place] for place in sorted(places)]


def lessons(split: str, wanted: int) -> TrainingSet:
    problems = pick(split, wanted)
    said = WORLD.rationales(problems, TEACHER, 4, SEED)
    return training_set(problems, [one for one in said if len(one.text) <= LONGEST], **WORLD.grading)


def fits(student: Student, folder: Path) -> dict[str, Fit]:
    """The committed fit, and that on all projections, from its folder or trained."""
    there = load_fit(BOOK / "artifacts" / "smollm2-135m" / "cot-kd")
    data = lessons("train", 2400)
    read = digest_json([asdict(one) for one in data.examples("positives")])
    if read != RunFolder.open(there.folder).manifest.inputs["examples"]:
        raise AssertionError(f"{there.folder} was trained on other rationales")
    config = settings(
        "paper",
        **{"target_modules": SEVEN, "dropout": 0.0, "lr": RATE / 2, "max_steps": STEPS, "warmup_steps": 20},
        **{"batch_size": 8, "gradient_accumulation_steps": 4, "seed": SEED, "checkpoint_every": 10},
    )
    return {TWO: there, ALL: fit("CoT KD", student, data, config, folder / "fits")}


def loss(student: Student, data: TrainingSet) -> float:
    """Negative log-likelihood of a token of the right rationales."""
    summed, tokens = rationale_log_probs(student, data.problems, data.positives, batch_size=8)
    return float(-summed.sum() / tokens.sum())


def losses(student: Student, made: dict[str, Fit], questions: int) -> dict[str, float]:
    judged = lessons("valid", questions)
    found = {BASE: loss(student, judged)}
    for name, one in made.items():
        with adapted(student, one) as trained:
            found[name] = loss(trained, judged)
    return found


def answers(student: Student, made: dict[str, Fit], chosen: Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """To the questions of the levels and to those of the others."""
    rules = {"out_dir": chosen.folder / "answers", "max_new_tokens": ANSWER, **WORLD.grading}
    known = {"set": "test", "method": "CoT KD", "seed": SEED}
    shown = select(committed(BOOK / "executed", "real"), known).assign(method=TWO)
    test = pick("test", len(shown))
    if set(shown["problem_id"]) != {problem.id for problem in test}:
        raise AssertionError("chapter 11 asked other questions")
    near = [shown, predictions(student, [made[ALL]], test, **rules).assign(method=ALL)]
    rest = pick("test", chosen.other_levels, inside=False)
    far = [predictions(student, [one], rest, **rules).assign(method=name) for name, one in made.items()]
    return pd.concat(near, ignore_index=True), pd.concat(far, ignore_index=True)


def overall(answers: pd.DataFrame) -> pd.Series:
    """Percent of all of MATH, by method: each level counted as the test set has it."""
    counts = Counter(problem.level for problem in WORLD.questions("test"))
    solved = 100 * answers.groupby(["method", "level"])["correct"].mean().unstack()
    weights = pd.Series(counts).reindex(solved.columns)
    return solved.mul(weights).sum(axis=1) / weights.sum()


def report(result: dict[str, object]) -> str:
    lines = [
        f"CoT KD of smollm2-135m on MATH, levels 1 to 3, {STEPS} steps of 32 rationales, one seed. Loss of a "
        "token of right rationales of validation questions; percent solved of the test questions of levels 1 "
        "to 3, of 4 and 5, and of all, and differences to q and v in points, with intervals over questions.",
        "",
        f"| adapters on | rate | parameters | loss | 1 to 3 | - {TWO} | 4 and 5 | - {TWO} | all |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        *("| " + " | ".join(row) + " |" for row in result["rows"]),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = plain_options(__doc__, valid_questions=400, other_levels=640)
    parser.add_argument("--folder", type=Path, default=Path("_runs/benchmarks/real_adapters"))
    chosen = parser.parse_args(arguments)
    student = load_student("smollm2-135m", torch.bfloat16, "cpu")
    made = fits(student, chosen.folder)
    lost, (near, far) = losses(student, made, chosen.valid_questions), answers(student, made, chosen)
    whole, rows = overall(pd.concat([near, far])), [[BASE, "", "", f"{lost[BASE]:.3f}", *[""] * 5]]
    tables = [method_table(part, baseline=TWO) for part in (near, far)]
    for name in (TWO, ALL):
        cells = [f"{lost[name]:.3f}"]
        for table in tables:
            gained = percents(table, "difference", "difference_low", "difference_high")[name]
            cells += [percents(table, "accuracy")[name], "" if name == TWO else gained]
        about = [name, str(made[name].lr), f"{made[name].trainable_parameters:,}"]
        rows.append([*about, *cells, f"{whole[name]:.1f}"])
    about = {"dtype": f"bfloat16 (fast here: {str(fast_dtype()).removeprefix('torch.')})"}
    result = provenance(chosen, "folder") | about | {"losses": lost, "rows": rows}
    keep(result, report(result), chosen.out, "real_adapters")


if __name__ == "__main__":
    main()
