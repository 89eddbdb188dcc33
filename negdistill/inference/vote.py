"""Step 3 as code: a student's samples, a ranker's scores, the weights of every rule, and what each elects.

    problems --sample--> n answers each --score--> weights --vote--> one answer a rule

    SC                w = 1                            self-consistency
    WS                w = probability of the text      weighted self-consistency
    WS per token      w = the same, geometric mean a token
    ASC               w = score of the ranker          adaptive self-consistency, eq-asc of book/method.md
    likelihood ratio  w = p+ / p-, geometric mean a token; two adapters, of right and of wrong rationales

`vote_all` is all of it in one call. What is drawn lies in a folder, and a run that was killed goes on there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from negdistill.checks import check_path
from negdistill.data.answers import Rule
from negdistill.data.prompts import first_answer, format_prompt
from negdistill.data.records import Problem, Sample
from negdistill.inference.evaluate import check_asked, rationale_log_probs
from negdistill.inference.panel import Panel, sampled
from negdistill.inference.ranker import score
from negdistill.inference.ranker_fit import RankerFit, check_ranker, loaded
from negdistill.inference.sample import sample
from negdistill.method.asc import ratio_weights, sequence_weights
from negdistill.runs.digests import digest_code, digest_json
from negdistill.runs.folder import RunFolder
from negdistill.training.fit import adapted
from negdistill.training.fits import Fit, check_fit
from negdistill.training.method_table import find_method
from negdistill.training.students import check_student

if TYPE_CHECKING:
    from negdistill.training.students import Student

COLUMNS = ("problem_id", "rule", "answer", "correct")


@dataclass(frozen=True, slots=True, eq=False)
class Ballot:
    """What a student answered to some problems, and how much each answer counts.

    samples  n of each problem, together and in the order of the problems; `teacher` names the method
    panel    the same as arrays, problems by n
    weights  by rule, (problems, n); None for 1 each
    """

    problems: tuple[Problem, ...]
    samples: tuple[Sample, ...]
    panel: Panel
    weights: Mapping[str, np.ndarray | None]

    def ranked(self, student: Student, ranker: RankerFit) -> Ballot:
        """The ballot with the rule ASC: every sample weighs what the ranker makes of it."""
        with loaded(student, ranker) as judge:
            scores = score(judge, self.problems, self.samples, progress=False)
        return replace(self, weights={**self.weights, "ASC": scores.reshape(self.panel.group.shape)})

    def compared(self, student: Student, right: Fit, wrong: Fit) -> Ballot:
        """The ballot with the rule "likelihood ratio": every sample weighs how much likelier `right` finds
        it, token by token, than `wrong` does. In the book these are CoT KD and the negative adapter.

        ValueError where `wrong` was not trained on wrong rationales alone, or `right` was.
        """
        _check_sides(right, wrong)
        means = []
        for one in (right, wrong):
            with adapted(student, one) as trained:
                told = rationale_log_probs(trained, self.problems, self.samples, one.preset, one.prefix)
            means.append((told[0] / np.maximum(told[1], 1)).reshape(self.panel.group.shape))
        return replace(self, weights={**self.weights, "likelihood ratio": ratio_weights(*means)})

    def votes(self) -> pd.DataFrame:
        """What each rule elects, a row per rule and problem, in COLUMNS; an answer is None without any."""
        parts = [self.panel.votes(weights).assign(rule=rule) for rule, weights in self.weights.items()]
        return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _check_sides(right: Fit, wrong: Fit) -> None:
    read = [find_method(one.method).data == "negatives" for one in (right, wrong)]
    if read != [False, True]:
        raise ValueError(
            "right must be a fit on right rationales and wrong one on wrong ones; got "
            f"{right.method!r} and {wrong.method!r}"
        )


def draw_ballot(
    student: Student,
    fit: Fit,
    problems: Sequence[Problem],
    n: int = 16,
    temperature: float = 1.0,
    seed: int = 0,
    out_dir: str | Path | None = None,
    max_new_tokens: int = 256,
    batch_size: int | None = None,
    extract: str = "boxed",
    rule: Rule = "math",
    progress: bool = True,
) -> Ballot:
    """n samples of each problem by the student with the adapter of the fit, and the rules without a ranker.

    out_dir   folder that keeps what is drawn, below it a folder for each fit, set of problems and setting
    extract, rule   of `grade`, for what is right

    The other arguments are those of `sample`, also for what is refused.
    """
    check_student(student)
    check_fit("fit", fit)
    problems = check_asked(problems, extract, rule)
    prompts = {one.id: fit.prefix + format_prompt(one.question, fit.preset) for one in problems}
    settings = {"n": n, "temperature": temperature, "max_new_tokens": max_new_tokens, "seed": seed}
    if out_dir is not None:
        check_path("out_dir", out_dir)
        code = digest_code(sample.__module__)
        made = RunFolder.open(fit.folder).manifest
        drawn_by = [made.key, dict(made.artifacts)]  # the weights too: a shared fit rounds them
        name = digest_json([code, drawn_by, list(prompts.items()), *settings.items()])[:12]
        out_dir = Path(out_dir) / f"samples-{name}"
    with adapted(student, fit) as trained:
        options = {**settings, "batch_size": batch_size, "out_dir": out_dir, "progress": progress}
        drawn = [
            replace(one, teacher=fit.method, text=first_answer(one.text, fit.preset))
            for one in sample(trained, prompts, **options)
        ]
    panel = sampled(problems, drawn, extract, rule)
    shape = panel.group.shape
    logs = np.reshape([one.log_prob for one in drawn], shape)
    counts = np.reshape([one.tokens for one in drawn], shape)
    weights = {"SC": None, "WS": sequence_weights(logs), "WS per token": sequence_weights(logs, counts)}
    return Ballot(tuple(problems), tuple(drawn), panel, weights)


def vote_all(
    student: Student,
    fit: Fit,
    ranker: RankerFit,
    problems: Sequence[Problem],
    n: int = 16,
    temperature: float = 1.0,
    seed: int = 0,
    out_dir: str | Path | None = None,
    max_new_tokens: int = 256,
    batch_size: int | None = None,
    extract: str = "boxed",
    rule: Rule = "math",
    progress: bool = True,
    right: Fit | None = None,
    wrong: Fit | None = None,
) -> pd.DataFrame:
    """Sample, score, weigh and vote: a row per rule and problem with problem_id, rule, answer and correct.

    fit, ranker    what `fit` and `fit_ranker` returned on this student
    n              answers to each problem, weighed by SC, WS, WS per token and ASC: eq-asc of book/method.md
    out_dir        folder that keeps what is drawn, below it one for each fit, set of problems and setting
    extract, rule  of `grade`, for what is right; the votes themselves join answers under rule "math"
    right, wrong   what `fit` returned for "CoT KD" and "Negative adapter", to let likelihood ratio vote, too

    The other arguments are those of `sample`, also for what is refused. An answer is None where no candidate
    has one. ValueError for no problem, two with one id, an unknown rule, one of right and wrong without the
    other or of another method, and a fit or ranker of another student; TypeError for an argument of another
    type.
    """
    check_ranker("ranker", ranker)
    sides = {name: one for name, one in (("right", right), ("wrong", wrong)) if one is not None}
    for name, one in sides.items():
        check_fit(name, one)
    if len(sides) == 1:
        raise ValueError(f"right and wrong must both be given, or neither; got {next(iter(sides))} alone")
    if sides:
        _check_sides(right, wrong)
    sampling = {"n": n, "temperature": temperature, "seed": seed, "max_new_tokens": max_new_tokens}
    sampling |= {"out_dir": out_dir, "batch_size": batch_size, "progress": progress}
    drawn = draw_ballot(student, fit, problems, extract=extract, rule=rule, **sampling)
    ballot = drawn.ranked(student, ranker)
    return (ballot.compared(student, **sides) if sides else ballot).votes()
