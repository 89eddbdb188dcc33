"""Recipes: what every row of the methods table is given, so that rows differ in nothing else.

TrainingSet   questions, right rationales, wrong rationales   -->  examples of one kind
augmented     the same with the right ones of a student's own samples among the positives
taught        a task, a teacher                               -->  TrainingSet
fewer_negatives, mislabelled   a part of its wrong rationales; some labels exchanged
Settings      adapters, optimiser, budget, seed               the embedded student's, the paper's, faithful to
                                                              the released code
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from negdistill.checks import check_choice, check_each
from negdistill.data.answers import Rule, grade, normalize, split
from negdistill.data.prompts import format_prompt
from negdistill.data.records import PROBLEMS, Problem, Rationale
from negdistill.data.tasks import Task
from negdistill.training.batching import Example


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Training questions with their graded rationales. ValueError for a rationale of no question."""

    problems: tuple[Problem, ...]
    positives: tuple[Rationale, ...]
    negatives: tuple[Rationale, ...]

    def __post_init__(self) -> None:
        known = {problem.id for problem in self.problems}
        for rationale in (*self.positives, *self.negatives):
            if rationale.problem_id not in known:
                raise ValueError(
                    f"rationales must belong to problems; got problem_id {rationale.problem_id!r}, which no "
                    "problem has; pass the problem set they were written for"
                )

    def take(self, n: int) -> TrainingSet:
        """The first n questions with their rationales."""
        if not 1 <= n <= len(self.problems):
            raise ValueError(
                f"n must lie between 1 and {len(self.problems)}, the number of questions; got {n}"
            )
        kept = {problem.id for problem in self.problems[:n]}
        sides = (tuple(r for r in side if r.problem_id in kept) for side in (self.positives, self.negatives))
        return TrainingSet(self.problems[:n], *sides)

    def examples(self, kind: str, preset: str = "fixed", marks: Sequence[str] = ("", "")) -> list[Example]:
        """Texts to train on: kind "solutions", "positives", "negatives", "both" or "answers" (the reference
        answers alone, each in a box). ValueError where empty.

        marks  text before the prompt of right and of wrong rationales

        What has no text, as the answer of a teacher that said nothing, is left out.
        """
        check_choice("kind", kind, ("solutions", "positives", "negatives", "both", "answers"))
        prompts = {problem.id: format_prompt(problem.question, preset) for problem in self.problems}
        if kind in ("solutions", "answers"):
            texts = {p.id: p.solution if kind == "solutions" else p.answer for p in self.problems}
            solved = {name: text for name, text in texts.items() if text.strip()}
            if not solved:
                row = "Fine-tune" if kind == "solutions" else "Answers only"
                raise ValueError(f"{kind} must not be empty: no question has one; leave {row} out")
            box = "{}" if kind == "solutions" else r"\boxed{{{}}}"
            return [
                Example(name, prompts[name], box.format(text), question=name) for name, text in solved.items()
            ]
        said, unsaid = ([r for r in side if r.text.strip()] for side in (self.positives, self.negatives))
        sides = {"positives": ((True, said),), "negatives": ((False, unsaid),)}
        sides["both"] = sides["positives"] + sides["negatives"]
        for positive, side in sides[kind]:
            if not side:
                name, label = ("positives", "right") if positive else ("negatives", "wrong")
                raise ValueError(
                    f"{name} must not be empty: no rationale was graded {label}; take more questions, "
                    'another teacher, or rules that find more answers (extract="lenient", rule="math")'
                )
        return [
            Example(f"{r.problem_id}#{r.index}", mark + prompts[r.problem_id], r.text, positive, r.problem_id)
            for positive, side in sides[kind]
            for mark in ((marks or ("", ""))[not positive],)
            for r in side
        ]


def training_set(
    problems: Iterable[Problem], rationales: Iterable[Rationale], extract: str = "boxed", rule: Rule = "exact"
) -> TrainingSet:
    """Grade the rationales and split them: the positives are those graded right, the negatives all others.

    problems, rationales  in any order, which each side keeps; D+ and D- of book/method.md
    extract, rule         of `answers.grade`

    TypeError for what is no Problem or no Rationale; ValueError for an unknown rule, two problems with one
    id, and a rationale of no problem.
    """
    problems = check_each("problems", problems, *PROBLEMS)
    positives, negatives = split(grade(problems, rationales, extract, rule))
    return TrainingSet(problems, tuple(positives), tuple(negatives))


def taught(task: Task, teacher: str, questions: int, samples: int, seed: int = 0) -> TrainingSet:
    """The training set of a task: questions of its training split, and what the teacher said to them, graded.

    questions, samples  how many, and how many rationales of each; seed draws both. Errors as those of `Task`.
    """
    problems = task.questions("train", questions, seed)
    return training_set(problems, task.rationales(problems, teacher, samples, seed), **task.grading)


def augmented(
    data: TrainingSet, samples: Iterable[Rationale], extract: str = "boxed", rule: Rule = "exact"
) -> TrainingSet:
    """The training set with further positives: the samples that are graded right and say something new.

    samples  rationales for questions of the set, by whoever `Rationale.teacher` names; the NAT model in
             book/method.md, step 2

    A text that a positive of the same question has already, up to white space around it, is left out.
    Indices count on from the question's largest, so that problem_id and index still name one rationale; the
    negatives stay as they are. Rules as in `answers.grade`, also for what it raises.
    """
    right, _ = split(grade(data.problems, samples, extract, rule))
    seen = {(r.problem_id, r.text.strip()) for r in data.positives}
    largest = Counter({problem.id: -1 for problem in data.problems})
    for one in (*data.positives, *data.negatives):
        largest[one.problem_id] = max(largest[one.problem_id], one.index)
    new = []
    for one in right:
        if (key := (one.problem_id, one.text.strip())) not in seen:
            seen.add(key)
            largest[one.problem_id] += 1
            new.append(Rationale(one.problem_id, largest[one.problem_id], one.text, one.teacher))
    return replace(data, positives=(*data.positives, *new))


def fewer_negatives(data: TrainingSet, share: float, seed: int = 0) -> TrainingSet:
    """The training set with a share of its wrong rationales, in [0, 1], drawn with the seed; none for 0."""
    return replace(data, negatives=tuple(data.negatives[at] for at in _drawn(data.negatives, share, seed)))


def mislabelled(data: TrainingSet, share: float, seed: int = 0) -> TrainingSet:
    """The training set with a share of all labels exchanged, right for wrong and wrong for right.

    share  in [0, 1], of all rationales together; drawn with the seed
    """
    both = (*data.positives, *data.negatives)
    changed = set(_drawn(both, share, seed))
    right = [(at < len(data.positives)) != (at in changed) for at in range(len(both))]
    sides = (
        tuple(one for one, label in zip(both, right, strict=True) if label is side) for side in (True, False)
    )
    return TrainingSet(data.problems, *sides)


def _drawn(rationales: Sequence[Rationale], share: float, seed: int) -> list[int]:
    """Places of a share of the rationales, in order."""
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie between 0 and 1; got {share}")
    order = np.random.default_rng(seed).permutation(len(rationales))
    return sorted(order[: round(share * len(rationales))].tolist())


def gains(before: TrainingSet, after: TrainingSet, by: str = "subject") -> pd.DataFrame:
    """What augmentation added, per group of questions and in all.

    by  "subject" or "level"

    Columns: questions; positives (before); new (positives); without (questions that had no positive); and
    reached (how many of those have one now). ValueError for sets of other questions.
    """
    check_choice("by", by, ("subject", "level"))
    if before.problems != after.problems:
        raise ValueError("after must hold the questions of before: give what augmented(before, ...) returned")
    old, all_ = (Counter(r.problem_id for r in one.positives) for one in (before, after))
    rows = [
        {
            by: getattr(problem, by),
            "questions": 1,
            "positives": old[problem.id],
            "new": all_[problem.id] - old[problem.id],
            "without": int(not old[problem.id]),
            "reached": int(not old[problem.id] and all_[problem.id] > 0),
        }
        for problem in before.problems
    ]
    table = pd.DataFrame(rows).groupby(by, dropna=False).sum()
    table.index = table.index.astype(object)
    table.loc["all"] = table.sum()
    return table


NEGATIVES = ("own", "none", "random")


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
