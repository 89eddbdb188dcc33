"""Evaluate: greedy answers of a student, graded.

    problem  --prompt-->  the most probable token, again and again  --grade-->  right | wrong

`evaluate` answers problems, `predictions` for every fitted row and seed, `Follow` along a path of training.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from inspect import unwrap
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from negdistill.checks import check_choice, check_each, check_type, check_whole
from negdistill.data.answers import Rule, grade
from negdistill.data.prompts import PRESETS, first_answer, format_prompt
from negdistill.data.records import PROBLEMS, Problem, Rationale
from negdistill.inference.sample import sample
from negdistill.runs.digests import digest_code, digest_json
from negdistill.runs.files import remove
from negdistill.runs.folder import MANIFEST, Manifest, RunFolder
from negdistill.runs.processes import held, processes, resumed
from negdistill.training.batching import Encoded, encode_prompts, pad_id
from negdistill.training.dataset import TrainingSet
from negdistill.training.fit import adapted, epoch_steps, fit
from negdistill.training.fits import Fit
from negdistill.training.identity import digest_objective, digest_student
from negdistill.training.method_table import find_method, trainings
from negdistill.training.reference import log_probs
from negdistill.training.settings import Settings
from negdistill.training.students import check_student, context_length

if TYPE_CHECKING:
    from negdistill.training.students import Student

ANSWERS, DRAWN = "answers.parquet", "drawn"


def evaluate(
    student: Student,
    problems: Sequence[Problem],
    batch_size: int | None = None,
    max_new_tokens: int = 256,
    view: str | None = None,
    extract: str = "boxed",
    rule: Rule = "exact",
    preset: str = "fixed",
    prefix: str = "",
    out_dir: str | Path | None = None,
) -> pd.DataFrame:
    """Answer each problem greedily and grade it: problem_id, subject, level, text, answer, correct.

    batch_size      rows computed together, by default what the memory holds
    max_new_tokens  longest answer, shorter where the context ends
    view            view of a model with NAT, by default "nat"
    extract, rule   rules of `answers.grade`
    preset          name in `prompts.PRESETS`, the one of training
    prefix          text before every prompt, as `Fit.prefix`
    out_dir         folder that keeps what was answered, as that of `sample`
    Rows are in the order of the problems. An answer ends with the end-of-text token, or where it goes on to a
    next problem. frame.attrs: seconds, tokens (generated), prompt_tokens. TypeError for another type.
    ValueError for no problem, two with one id, a question without room, a view that is absent or untrained.
    """
    check_student(student)
    check_type("prefix", prefix, str, "a text")
    problems = check_asked(problems, extract, rule)
    prompts = {problem.id: prefix + format_prompt(problem.question, preset) for problem in problems}
    start = time.perf_counter()
    options = {"max_new_tokens": max_new_tokens, "view": view, "batch_size": batch_size, "out_dir": out_dir}
    drawn = sample(student, prompts, n=1, temperature=0.0, progress=False, **options)
    seconds = time.perf_counter() - start
    answers = {one.problem_id: one.text for one in drawn}
    texts = [answers[problem.id] for problem in problems]
    texts = [first_answer(text, preset) for text in texts]
    frame = _graded(problems, texts, extract, rule)
    frame.attrs = {
        "seconds": seconds,
        "tokens": sum(one.tokens for one in drawn),
        "prompt_tokens": sum(map(len, encode_prompts(list(prompts.values()), student.tokenizer))),
    }
    return frame


def check_asked(problems: Sequence[Problem], extract: str, rule: Rule) -> tuple[Problem, ...]:
    """The problems; what `grade` would refuse of them and of the rules is refused at once."""
    problems = check_each("problems", problems, *PROBLEMS)
    if not problems:
        raise ValueError("problems must not be empty; there is nothing to answer")
    grade(problems, (), extract, rule)
    return problems


def rationale_log_probs(
    student: Student,
    problems: Sequence[Problem],
    rationales: Sequence[Rationale],
    preset: str = "fixed",
    prefix: str = "",
    batch_size: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """l, the log-probability of each rationale under the student, and its tokens, (n,) each, in their order.

    The end of text counts if the preset has one; what does not fit is cut. ValueError for one of no problem.
    """
    check_choice("preset", preset, PRESETS)
    check_whole("batch_size", batch_size, 1)
    rules, tokenizer = PRESETS[preset], student.tokenizer
    context = context_length(student.model, student.tokenizer)
    asked = {problem.id: prefix + format_prompt(problem.question, preset) for problem in problems}
    if strange := next((one.problem_id for one in rationales if one.problem_id not in asked), None):
        raise ValueError(f"rationales must belong to problems; got problem_id {strange!r}, which none has")
    if not rationales:  # which a tokenizer would refuse
        return np.zeros(0), np.zeros(0, dtype=int)
    prompts = dict(zip(asked, encode_prompts(list(asked.values()), tokenizer), strict=True))
    texts = [rules.completion.format(text=one.text) for one in rationales]
    end = [tokenizer.eos_token_id] if rules.end_of_text else []
    rows = []
    for one, said in zip(rationales, encode_prompts(texts, tokenizer, rules.second_start), strict=True):
        prompt = prompts[one.problem_id]
        ids = np.array([*prompt, *said, *end][:context], dtype=np.int32)
        mask = np.arange(len(ids)) >= max(1, len(prompt))
        rows.append(Encoded(one.problem_id, ids, mask, len(prompt), len(ids), True, 0))
    summed, tokens = log_probs(student.model, rows, pad_id(tokenizer), batch_size)
    return summed.double().numpy(), tokens.long().numpy()


def likelihoods(student: Student, data: TrainingSet, preset: str = "fixed", prefix: str = "") -> pd.DataFrame:
    """Mean log-probability of a token by question: problem_id, log_prob_right, log_prob_wrong, or NaN."""
    columns = {}
    for side, said in (("right", data.positives), ("wrong", data.negatives)):
        summed, tokens = rationale_log_probs(student, data.problems, said, preset, prefix)
        mean = pd.Series(summed / np.maximum(tokens, 1), dtype=float)
        names = pd.Series([one.problem_id for one in said], dtype=object)
        columns[f"log_prob_{side}"] = mean.groupby(names).mean()
    frame = pd.DataFrame(columns).reindex([problem.id for problem in data.problems])
    return frame.rename_axis("problem_id").reset_index()


def predictions(
    student: Student,
    fits: Iterable[Fit],
    problems: Sequence[Problem],
    out_dir: str | Path | None = None,
    **options: object,
) -> pd.DataFrame:
    """`evaluate` each fit, with `Fit.columns()` added: the frame of `tables.method_table` and its neighbours.

    out_dir  folder that keeps the answers, below it one for each fit, set of problems and options
    options  of `evaluate`: batch_size, max_new_tokens, extract, rule
    """
    problems = check_each("problems", problems, *PROBLEMS)
    if not (fits := check_each("fits", fits, Fit, "a list of fits")):
        raise ValueError("fits must not be empty; there is nothing to evaluate")
    answer = _answers if out_dir is None else partial(_kept, out_dir=Path(out_dir))
    frames = [answer(student, one, problems, options).assign(**one.columns()) for one in fits]
    return pd.concat(frames, ignore_index=True)


def _answers(
    student: Student, one: Fit, problems: Sequence[Problem], options: Mapping[str, object]
) -> pd.DataFrame:
    with adapted(student, one) as trained:
        return evaluate(trained, problems, preset=one.preset, prefix=one.prefix, **options)


def _kept(
    student: Student, one: Fit, problems: Sequence[Problem], options: Mapping[str, object], out_dir: Path
) -> pd.DataFrame:
    """The answers of a fit from their folder, or given and kept there."""
    made = RunFolder.open(one.folder).manifest
    inputs = {
        **digest_student(student),
        "fit": digest_json([made.key, dict(made.artifacts)]),  # the weights too: a shared fit rounds them
        "problems": digest_json([asdict(problem) for problem in problems]),
        "code": digest_code(__name__),
    }
    manifest = Manifest(inputs=inputs, parameters={name: _plain(value) for name, value in options.items()})
    folder = out_dir / f"answers-{manifest.key[:12]}"
    with held(folder):
        there = (folder / MANIFEST).is_file() and ANSWERS in RunFolder.open(folder).manifest.artifacts
        processes().wait_for_everyone()  # all have looked before one writes
        if not there:
            run = resumed(folder, manifest)
            frame = _answers(student, one, problems, options | {"out_dir": folder / DRAWN})
            if processes().is_main_process:
                with run.create(ANSWERS) as path:
                    frame.to_parquet(path, index=False)
                remove(folder / DRAWN)
            processes().wait_for_everyone()
    frame = pd.read_parquet(RunFolder.open(folder).path(ANSWERS))
    answers = frame["answer"].astype(object)
    return frame.assign(answer=answers.where(answers.notna(), None))  # as `evaluate` has it


@dataclass(frozen=True, slots=True)
class Follow:
    """An on_epoch for `fit.fit`: evaluate the student along its training.
    sets     problems by the name of their split; `tables.best_point` looks for "valid" and "test"
    every    epochs between evaluations
    options  of `evaluate`
    last     an epoch that is followed whether or not it is a multiple: the last one of the training
    held     rationales that are not trained on: the `likelihoods` of their questions join the frame
    """

    sets: Mapping[str, Sequence[Problem]]
    every: int = 1
    options: Mapping[str, object] = field(default_factory=dict)
    last: int | None = None
    held: TrainingSet | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1; got {self.every}")

    @property
    def key(self) -> str:
        """Digest of all that decides the result."""
        sets = {name: [asdict(problem) for problem in problems] for name, problems in self.sets.items()}
        options = {name: _plain(value) for name, value in self.options.items()}
        held = [] if self.held is None else [asdict(self.held)]
        return digest_json([sets, self.every, self.last, options, *held])

    def __call__(self, student: Student, epoch: int) -> pd.DataFrame | None:
        if epoch % self.every and epoch != self.last:
            return None
        frames = [
            evaluate(student, problems, **self.options).drop(columns="text").assign(split=name)
            for name, problems in self.sets.items()
        ]
        frame = pd.concat(frames, ignore_index=True)
        if self.held is None:
            return frame
        text = {name: self.options[name] for name in ("preset", "prefix") if name in self.options}
        return frame.merge(likelihoods(student, self.held, **text), how="left", on="problem_id")


def fit_followed(
    method: str,
    student: Student,
    data: TrainingSet,
    config: Settings,
    out_dir: str | Path,
    sets: Mapping[str, Sequence[Problem]],
    options: Mapping[str, object],
    points: int = 3,
    held: TrainingSet | None = None,
    start: Fit | None = None,
) -> Fit:
    """`fit` under max_steps, followed at about `points` points of the method's own training and at its end.

    sets, options, held  of `Follow`; the method's prefix and the preset of the config join the options
    start                of `fit`
    A method without a training of its own is fitted and not followed. ValueError where max_steps is not set;
    else as `fit`.
    """
    check_whole("points", points, 1)
    row = find_method(method)
    if not row.data:
        return fit(method, student, data, config, out_dir, start=start)
    if config.train.max_steps is None:
        raise ValueError("config must have max_steps, the budget that is followed; got None")
    given = (start,) if start is not None and start.method in row.uses else ()
    left = config.train.max_steps - sum(one.total_steps for one in given)
    count = trainings(method, [one.method for one in given])
    own = left - left // count * (count - 1)
    epochs = ceil(own / epoch_steps(method, student, data, config))
    asked = {"preset": config.preset, **options, **({"prefix": row.prefix} if row.prefix else {})}
    follow = Follow(sets, max(1, epochs // points), asked, epochs, held)
    return fit(method, student, data, config, out_dir, on_epoch=follow, start=start)


def _plain(value: object) -> object:
    """An option as JSON has it: of a function the digest of its name and source."""
    return digest_objective(unwrap(value)) if callable(value) else value


def _graded(problems: Sequence[Problem], texts: Sequence[str], extract: str, rule: Rule) -> pd.DataFrame:
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
