"""Tables: rows of the paper's Tables 1 and 2 from predictions, and the best point of a path of training.

    predictions --accuracy_table, method_table, solved_table--> numbers with intervals, as fractions
    path of training --best_point--> predictions at the best point on validation
    numbers with intervals --percent, percents--> "12.3 [10.1, 14.8]"
    published_methods(), published_solved(): what the paper prints, marked as published

Predictions are one frame, a row per method, seed and question: problem_id, subject, level, correct, method,
seed, lr, trainable_parameters, steps, tokens, seconds, as `evaluate.predictions` gives it. A path is the same
with split and epoch, `pd.concat(fit.trajectory for fit in fits)`.
"""

from __future__ import annotations

import sys

import pandas as pd

from negdistill.checks import check_choice, check_whole
from negdistill.stats import bootstrap_accuracy, overlap, paired, wilson
from negdistill.training.method_table import METHODS, NEGATIVE, Method, find_method

RUN = ["method", "seed"]
COSTS = ["trainable_parameters", "steps", "tokens", "seconds"]

# --- tables -------------------------------------------------------------------------------------------


def accuracy_table(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Accuracy per group: method (where the frame has it), `by`, questions, accuracy, low, high.

    by  a column such as "subject" or "level"

    The intervals are Wilson's. They count a question once, however many seeds answered it, so with several
    seeds they are on the wide side.
    """
    check_choice("by", by, frame.columns)
    keys = [key for key in ("method", by) if key in frame]
    rows = []
    for group, part in frame.groupby(keys, dropna=False):
        questions, accuracy = part["problem_id"].nunique(), float(part["correct"].mean())
        low, high = wilson(accuracy * questions, questions)
        numbers = {"questions": questions, "accuracy": accuracy, "low": low, "high": high}
        rows.append(dict(zip(keys, group, strict=True)) | numbers)
    rows.sort(key=lambda row: _place(row.get("method", "")))
    return pd.DataFrame(rows)


def with_shifted(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of each set by its name, and as "shifted" those of all but "test" together, questions apart."""
    elsewhere = frame[frame["set"] != "test"]
    pooled = elsewhere.assign(problem_id=elsewhere["set"] + ":" + elsewhere["problem_id"], set="shifted")
    return dict(list(frame.groupby("set", sort=False))) | {"shifted": pooled}


def method_table(frame: pd.DataFrame, baseline: str = "CoT KD") -> pd.DataFrame:
    """One row per method, in the order of METHODS.

    Columns: origin, seeds; accuracy, low, high; difference in accuracy to the baseline, difference_low,
    difference_high, p (missing for the baseline); trainable_parameters, steps, tokens, seconds (means over
    seeds). Intervals and p are clustered by question and seed, see `stats.bootstrap_accuracy` and
    `stats.paired`, also for what they raise. A method with other seeds is compared on those that both have. p
    is not corrected for the number of rows.
    """
    check_choice("baseline", baseline, frame["method"].unique())
    other = frame[frame["method"] == baseline]
    rows = {}
    for method in sorted(frame["method"].unique(), key=_place):
        part = frame[frame["method"] == method]
        estimate = bootstrap_accuracy(part)
        row = {"origin": _origin(method)}
        row["seeds"] = part["seed"].nunique()
        row |= dict(zip(("accuracy", "low", "high"), estimate, strict=True))
        same = other[other["seed"].isin(part["seed"])]
        shared = part[part["seed"].isin(same["seed"])]
        difference = (None,) * 4 if method == baseline else paired(shared, same)
        names = ("difference", "difference_low", "difference_high", "p")
        row |= dict(zip(names, difference, strict=True))
        runs = part.drop_duplicates("seed")
        rows[method] = row | {cost: float(runs[cost].mean()) for cost in COSTS if cost in runs}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
    return table.astype({name: float for name in names})


def solved_table(
    frame: pd.DataFrame, a: str = "CoT KD", b: str = NEGATIVE, by: str = "subject"
) -> pd.DataFrame:
    """What two methods solve, per group and in all: a, b, both, iou, low, high, chance, questions.

    a, b    methods; their columns hold the number of questions solved, as `both` does, means over seeds
    iou     both over either, over all seeds, with its interval (`stats.overlap`)
    chance  the iou of two methods that solve as many questions each, independently of one another
    """
    for name, method in (("a", a), ("b", b)):
        check_choice(name, method, frame["method"].unique())
    check_choice("by", by, frame.columns)
    groups = [*frame.groupby(by, dropna=False), ("all", frame)]
    return pd.DataFrame({group: _solved(part, a, b) for group, part in groups}).T.rename_axis(by)


def _solved(frame: pd.DataFrame, a: str, b: str) -> dict[str, float]:
    one, other = frame[frame["method"] == a], frame[frame["method"] == b]
    estimate = overlap(one, other)
    questions, seeds = frame["problem_id"].nunique(), one["seed"].nunique()
    n_a, n_b = one["correct"].sum() / seeds, other["correct"].sum() / seeds
    expected = n_a * n_b / questions
    return {
        a: n_a,
        b: n_b,
        "both": (n_a + n_b) * estimate.value / (1 + estimate.value),  # since iou = both / (a + b - both)
        **dict(zip(("iou", "low", "high"), estimate, strict=True)),
        "chance": expected / (n_a + n_b - expected) if n_a + n_b else 0.0,
        "questions": questions,
    }


def percent(value: float, low: float, high: float) -> str:
    """As "12.3 [10.1, 14.8]", from fractions, in percent with one decimal; "" where there is no value."""
    if pd.isna(value):
        return ""
    value, low, high = (f"{round(100 * number, 1) + 0.0:.1f}" for number in (value, low, high))  # no -0.0
    return f"{value} [{low}, {high}]"


def percents(table: pd.DataFrame, value: str, low: str = "low", high: str = "high") -> pd.Series:
    """`percent` of every row, from three columns that these names name."""
    return pd.Series([percent(*row) for row in table[[value, low, high]].to_numpy()], table.index, dtype=str)


def _origin(method: str) -> str:
    """That of a row of METHODS, and of one of your own whose module is loaded; "" of a vote.

    A name in a table imports nothing: it may come from a file.
    """
    loaded = method in METHODS or method.partition(":")[0] in sys.modules
    try:
        return find_method(method).origin if loaded else ""
    except ValueError:
        return ""


def _place(method: str) -> int:
    names = list(METHODS)
    return names.index(method) if method in METHODS else len(names)


# --- paths of training --------------------------------------------------------------------------------


def points(path: pd.DataFrame) -> pd.DataFrame:
    """One row per checkpoint of a path: method, seed, lr, epoch, steps, tokens, accuracy on each split."""
    if missing := [name for name in (*RUN, "lr", "epoch", "split", "correct") if name not in path]:
        raise ValueError(
            f"path must come from fits with on_epoch=Follow(...); its columns lack {', '.join(missing)}"
        )
    keys = [*RUN, "lr", "epoch", "steps", "tokens"]
    return path.pivot_table("correct", keys, "split", aggfunc="mean").reset_index().rename_axis(columns=None)


def curve(path: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Accuracy against training: method, lr, epoch, steps, tokens (means over seeds), accuracy, low, high."""
    check_choice("split", split, path["split"].unique())
    rows = []
    for (method, lr, epoch), part in path[path["split"] == split].groupby(["method", "lr", "epoch"]):
        at = {"method": method, "lr": lr, "epoch": epoch, **part[["steps", "tokens"]].mean()}
        rows.append(at | dict(zip(("accuracy", "low", "high"), bootstrap_accuracy(part), strict=True)))
    rows.sort(key=lambda row: _place(row["method"]))
    return pd.DataFrame(rows)


def best_rates(path: pd.DataFrame, split: str = "valid") -> pd.Series:
    """The learning rate of each method whose best checkpoint is best on a split, in the mean over seeds.

    Of equal ones the smallest.
    """
    table = points(path)
    check_choice("split", split, path["split"].unique())
    best = table.groupby([*RUN, "lr"])[split].max().groupby(["method", "lr"]).mean().reset_index()
    best = best.sort_values([split, "lr"], ascending=[False, True]).drop_duplicates("method")
    return best.set_index("method")["lr"].reindex(table["method"].unique())


def rate_grid(row: Method, rate: float, tries: int) -> list[float]:
    """Learning rates that a row tries: the first `tries` of its own factors times `rate`, smallest first.

    Beyond the factors that it has, a rate below and one above them by turns, as far from the next as the two
    rates at that end are from each other, half and twice the one of a row that has no other.
    """
    check_whole("tries", tries, 1)
    factors = sorted(row.rates[:tries])
    down, up = (factors[1] / factors[0], factors[-1] / factors[-2]) if len(factors) > 1 else (2.0, 2.0)
    while len(factors) < tries:
        below = (tries - len(factors)) % 2 == 0
        factors = [factors[0] / down, *factors] if below else [*factors, factors[-1] * up]
    return [round(rate * factor, 10) for factor in factors]


def end_point(path: pd.DataFrame, test: str = "test") -> pd.DataFrame:
    """Predictions on `test` at the last checkpoint of every method and seed, ready for `method_table`."""
    check_choice("test", test, path["split"].unique())
    last = path.groupby(RUN)["steps"].transform("max") == path["steps"]
    return path[last & (path["split"] == test)]


def best_point(path: pd.DataFrame, valid: str = "valid", test: str = "test") -> pd.DataFrame:
    """Predictions on `test` at the best checkpoint of every method and seed, ready for `method_table`.

    The best checkpoint is the one with the highest accuracy on `valid`, the earliest where several have it.
    ValueError for a path with several learning rates of one run.
    """
    table = points(path)
    for name, split in (("valid", valid), ("test", test)):
        check_choice(name, split, path["split"].unique())
    if table.groupby(RUN)["lr"].nunique().max() > 1:
        raise ValueError("path must hold one learning rate per run; select one with path[path.lr == ...]")
    best = table.loc[table.sort_values("steps").groupby(RUN)[valid].idxmax(), [*RUN, "epoch"]]
    return path[path["split"] == test].merge(best, on=[*RUN, "epoch"])


# --- published numbers --------------------------------------------------------------------------------

SUBJECTS = {  # of MATH, with their number of test questions, in the order of the paper's Table 2
    "Counting & Probability": 474,
    "Intermediate Algebra": 903,
    "Number Theory": 540,
    "Precalculus": 546,
    "Prealgebra": 871,
    "Geometry": 479,
    "Algebra": 1187,
}
# Greedy accuracy on MATH test in percent: teacher, student, method, one number per subject, average. As
# printed; the average of NT with GPT-3.5 does not follow from its subjects, weighted by size they give 4.79.
TABLE_2 = (
    ("", "PaLM 62B", "Few-shot", (), 4.4),
    ("", "PaLM 540B", "Few-shot", (), 8.8),
    ("", "GPT3 175B", "Few-shot", (4.7, 4.4, 4.4, 4.0, 7.7, 3.1, 6.0), 5.2),
    ("", "GPT3 13B", "Fine-tune", (4.1, 4.7, 5.5, 5.8, 6.8, 7.1, 5.3), 5.6),
    ("", "LLaMA 7B", "Fine-tune", (2.96, 3.58, 2.96, 3.85, 4.61, 3.46, 4.56), 3.88),
    ("GPT-3.5", "LLaMA 7B", "CoT KD", (4.15, 4.17, 5.37, 4.58, 8.82, 4.54, 4.61), 5.29),
    ("GPT-3.5", "LLaMA 7B", "MIX", (3.49, 1.43, 1.67, 1.46, 5.27, 2.59, 4.05), 3.03),
    ("GPT-3.5", "LLaMA 7B", "CL", (4.64, 3.93, 5.74, 4.03, 7.39, 2.51, 5.98), 5.16),
    ("GPT-3.5", "LLaMA 7B", "NT", (3.93, 3.93, 6.30, 2.20, 6.69, 4.10, 5.17), 4.48),
    ("GPT-3.5", "LLaMA 7B", "UL", (4.98, 3.86, 5.37, 3.85, 6.70, 4.10, 5.27), 4.96),
    ("GPT-3.5", "LLaMA 7B", "NAT", (5.70, 5.24, 6.67, 3.85, 9.99, 5.64, 7.94), 6.81),
    ("GPT-4", "LLaMA 7B", "CoT KD", (3.71, 4.88, 6.30, 3.30, 6.56, 3.67, 7.73), 5.59),
    ("GPT-4", "LLaMA 7B", "MIX", (3.28, 2.86, 2.96, 4.21, 5.45, 3.55, 6.66), 4.49),
    ("GPT-4", "LLaMA 7B", "CL", (4.15, 3.67, 5.00, 3.11, 7.90, 5.43, 5.98), 5.24),
    ("GPT-4", "LLaMA 7B", "NT", (3.28, 2.46, 4.07, 3.85, 8.92, 6.05, 5.97), 5.14),
    ("GPT-4", "LLaMA 7B", "UL", (4.15, 3.46, 6.67, 3.11, 8.67, 5.18, 8.25), 6.03),
    ("GPT-4", "LLaMA 7B", "NAT", (6.11, 4.65, 5.56, 4.58, 8.50, 4.92, 9.78), 6.83),
)
# MATH test questions solved after training on positives, on negatives, by both, and the overlap. As printed;
# the overlap of Algebra does not follow from its counts, which give 0.092.
TABLE_1 = (
    ("Intermediate Algebra", 35, 21, 4, 0.077),
    ("Prealgebra", 72, 43, 9, 0.085),
    ("Geometry", 21, 10, 1, 0.033),
    ("Number Theory", 29, 17, 1, 0.022),
    ("Precalculus", 25, 16, 2, 0.051),
    ("Probability", 19, 16, 4, 0.129),
    ("Algebra", 52, 43, 8, 0.062),
    ("all", 253, 166, 29, 0.074),
)


def published_methods() -> pd.DataFrame:
    """Table 2 of the paper as fractions: teacher, student, method, subjects, accuracy, low, high, source.

    The paper gives no intervals: low and high are Wilson's for one run on the 5,000 test questions of MATH.
    """
    n = sum(SUBJECTS.values())
    rows = []
    for teacher, student, method, subjects, average in TABLE_2:
        numbers = dict(zip(SUBJECTS, subjects or (None,) * len(SUBJECTS), strict=True))
        low, high = wilson(average / 100 * n, n)
        row = {name: None if value is None else value / 100 for name, value in numbers.items()}
        row |= {"accuracy": average / 100, "low": low, "high": high, "source": "published"}
        rows.append({"teacher": teacher, "student": student, "method": method} | row)
    return pd.DataFrame(rows)


def published_solved() -> pd.DataFrame:
    """Table 1 of the paper, in columns of `solved_table`, and source; the intervals are ours, Wilson's."""
    rows = {}
    for subject, a, b, both, printed in TABLE_1:
        low, high = wilson(both, a + b - both)
        counts = {"CoT KD": a, NEGATIVE: b, "both": both, "iou": printed, "low": low, "high": high}
        rows[subject] = counts | {"source": "published"}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("subject")
