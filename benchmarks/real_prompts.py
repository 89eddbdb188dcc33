r"""What a real student is asked: the plain prompt against its own chat template, before and after training.

    python benchmarks/real_prompts.py

The student is smollm2-135m; the questions are validation questions of MATH, levels 1 to 3. *plain* is the
prompt of the book; *chat* is the student's template around the question; *chat, told* has the task in front
of it, as a teacher is asked. CoT KD trains a little under each form, on the same rationales in one order,
and answers in the same form. The intervals are over questions alone, since there is one seed.

What is finished is kept in --folder, and a run that was stopped goes on there.
Writes real_prompts.json and real_prompts.md into --out (default: benchmarks/results).
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from measuring import keep, plain_options, provenance
from real_steps import easy, lessons  # which loads students on one thread

from negdistill.bookmaking.tables import method_table, percents
from negdistill.data.prompts import PRESETS, Preset, chat_messages
from negdistill.data.records import Problem
from negdistill.data.tasks import load_task
from negdistill.inference.evaluate import evaluate, predictions
from negdistill.method.low_precision import fast_dtype
from negdistill.runs.digests import digest_code, digest_json
from negdistill.training.fit import fit
from negdistill.training.settings import settings
from negdistill.training.students import Student, load_student

PLAIN, MARK = "plain", "QUESTION"
BATCH = 16  # rationales of a step
FORMS = {PLAIN: "fixed", "chat": "chat", "chat, told": "told"}  # and the name of its preset


def chat(student: Student, task: bool) -> Preset:
    """The student's own template as a preset, around a question as `chat_messages` puts it."""
    (turn,) = chat_messages(Problem("", MARK, "", "", "", None, "math"), task=task)
    text = student.tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    before, after = (part.replace("{", "{{").replace("}", "}}") for part in text.split(MARK))
    return Preset(f"{before}{{question}}{after}", "{text}", False, False, True, False)


def measure(chosen: Namespace, student: Student) -> pd.DataFrame:
    """Answers under every form, as it is and trained, one a row."""
    asked, data, found = easy("valid")[: chosen.valid_questions], lessons(chosen.questions), []
    rules = {"max_new_tokens": chosen.max_new_tokens, **load_task("math").grading}
    for form, preset in FORMS.items():
        made_of = [preset, rules, [problem.id for problem in asked], digest_code(evaluate.__module__)]
        kept = chosen.folder / f"before-{digest_json(made_of)[:12]}"
        before = evaluate(student, asked, preset=preset, out_dir=kept, **rules)
        config = settings(
            "paper",
            preset=preset,
            **{"max_steps": chosen.steps, "warmup_steps": chosen.steps // 10},
            **{"batch_size": BATCH, "gradient_accumulation_steps": 1, "lr": 0.004, "dropout": 0.0},
        )
        made = fit("CoT KD", student, data, config, chosen.folder / "fits")
        after = predictions(student, [made], asked, chosen.folder / "answers", **rules)
        found += [before.assign(method=form, state="as it is"), after.assign(method=form, state="CoT KD")]
    return pd.concat(found, ignore_index=True).assign(seed=0)


def report(result: dict[str, object]) -> str:
    p = result["parameters"]
    lines = [
        f"smollm2-135m in {result['dtype']}; {p['valid_questions']} validation questions of MATH, levels "
        f"1 to 3. CoT KD has {p['steps']} steps of {BATCH} rationales, and one seed. Percent solved, and "
        "differences to plain, with intervals over questions.",
        "",
        "| state | prompt | solved | - plain | no answer |",
        "|---|---|---:|---:|---:|",
        *("| " + " | ".join(row) + " |" for row in result["rows"]),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = plain_options(__doc__, valid_questions=300, questions=600, steps=40, max_new_tokens=256)
    parser.add_argument("--folder", type=Path, default=Path("_runs/benchmarks/real_prompts"))
    chosen = parser.parse_args(arguments)
    student = load_student("smollm2-135m", torch.bfloat16, "cpu")
    PRESETS.update(chat=chat(student, task=False), told=chat(student, task=True))
    rows = []
    for state, part in measure(chosen, student).groupby("state", sort=False):
        table = method_table(part, baseline=PLAIN)
        spans = percents(table, "difference", "difference_low", "difference_high")
        missing = part["answer"].isna().groupby(part["method"]).mean()
        for form in FORMS:
            gained = "" if form == PLAIN else spans[form]
            rows.append(
                [state, form, percents(table, "accuracy")[form], gained, f"{100 * missing[form]:.1f}"]
            )
    about = {"dtype": f"bfloat16 (fast here: {str(fast_dtype()).removeprefix('torch.')})"}
    result = provenance(chosen, "folder") | about | {"rows": rows}
    keep(result, report(result), chosen.out, "real_prompts")


if __name__ == "__main__":
    main()
