"""Claims: what is said about wrong answers, judged from the committed predictions.

    book/executed/*.parquet        --Comparison-->  a difference, its interval over questions and seeds, p
    CLAIMS, `judge`                one row per comparison of every claim, and of what its controls compare
    `claim_verdict`, `claims_table`   what that says, and the table of book/claims.md

No number comes from anywhere but those files; published ones come from `tables`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pyarrow import parquet

from negdistill.bookmaking.tables import percent, published_methods, published_solved, with_shifted
from negdistill.runs.digests import digest_file
from negdistill.stats import VERDICTS, Difference, overlap, overlap_difference, paired, verdict
from negdistill.training.method_table import NEGATIVE, WIDE

BASELINES, NCE, ASC, SHIFTED, ABLATIONS = "methods", "nce", "votes", "shifted", "ablations"
TEACHERS = {"weak": "GPT-3.5", "strong": "GPT-4"}  # of the embedded benchmark, and whose level they have
STEPS, TOKENS, BEST = "equal steps", "equal tokens", "best point"
EMPTY, FIRST, LONGER = "NAT, empty branch", "Negatives first", "CoT KD, longer"
STUDENTS = ("CoT KD", "NAT", "NCE")  # that vote in chapter 07
NO_NUMBER = "not available to us"
PREDICTIONS = "predictions.parquet"

# --- comparisons --------------------------------------------------------------------------------------


class Comparison(NamedTuple):
    """Rows `one` minus rows `other`, in a chapter's predictions.

    where    values of its columns; set "shifted" takes all sets but "test" together
    one, other  methods; of several, place by place, questions of each pair count apart
    sign     of the difference that a claim expects
    """

    label: str
    chapter: str
    where: Mapping[str, object]
    one: tuple[str, ...]
    other: tuple[str, ...]
    sign: int = 1


class Claim(NamedTuple):
    """A numbered claim: its words, what was published, what decides it, and what its controls compare."""

    number: int
    says: str
    published: str
    decided_by: tuple[Comparison, ...]
    controls: tuple[Comparison, ...] = ()


def against(
    chapter: str, one: str, other: str, where: Mapping[str, object], sign: int = 1, label: str = ""
) -> Comparison:
    """One method minus another, called so where no label is given."""
    return Comparison(label or f"{one} − {other}", chapter, where, (one,), (other,), sign)


def by_teacher(one: str, other: str, budget: str = STEPS, sign: int = 1) -> tuple[Comparison, ...]:
    """In chapter 05 with all its questions, once for each teacher."""
    return tuple(
        against(
            BASELINES,
            one,
            other,
            {"teacher": teacher, "budget": budget, "questions": "all"},
            sign,
            f"{teacher}: {one} − {other}" + (f", {budget}" if budget != STEPS else ""),
        )
        for teacher in TEACHERS
    )


def as_published(one: str, other: str, sign: int = 1) -> Comparison:
    """As the paper compares: every training has the same steps, and NAT's negative stage costs nothing."""
    return against(SHIFTED, one, other, {"set": "test"}, sign, f"as in the paper: {one} − {other}")


def rules(one: str, other: str) -> Comparison:
    """Two rules of voting, for all students that vote."""
    pairs = (tuple(f"{student}, {rule}" for student in STUDENTS) for rule in (one, other))
    return Comparison(f"{one} − {other}", ASC, {}, *pairs)


def _published(one: str, other: str) -> str:
    """A difference in the paper's Table 2, in points, for both teachers."""
    table = published_methods()
    table = table[table["student"] == "LLaMA 7B"]
    found = []
    for teacher in TEACHERS.values():
        accuracy = table[table["teacher"].isin(["", teacher])].set_index("method")["accuracy"]
        gain = f"{100 * (accuracy[one] - accuracy[other]):+.2f}".replace("-", "−")
        found.append(f"{one} − {other} {gain} ({teacher})")
    return "; ".join(found)


CLAIMS = (
    Claim(
        1,
        "A student of positives and one of negatives solve sets of questions that overlap little",
        f"overlap {published_solved().loc['all', 'iou']:.3f} of their union",
        (),  # an overlap is no difference: see `_overlaps`
    ),
    Claim(
        2,
        "Mixing wrong rationales with right ones hurts (MIX)",
        _published("MIX", "CoT KD"),
        (as_published("MIX", "CoT KD", -1), *by_teacher("MIX", "CoT KD", sign=-1)),
        by_teacher(FIRST, "CoT KD", BEST),
    ),
    Claim(
        3,
        "Contrast, negative likelihood and unlikelihood help less than NAT (CL, NT, UL)",
        "; ".join(_published("NAT", other) for other in ("CL", "NT", "UL")),
        (
            *(as_published("NAT", other) for other in ("CL", "NT", "UL")),
            *by_teacher("NAT", "UL", BEST),
        ),
        (
            *(as_published(other, "CoT KD") for other in ("CL", "NT", "UL")),
            *(one for other in ("CL", "NT", "UL") for one in by_teacher("NAT", other)),
        ),
    ),
    Claim(
        4,
        "NAT beats CoT KD, and Fine-tune by far",
        f"{_published('NAT', 'CoT KD')}; about +75.75 % relative to Fine-tune",
        (
            *by_teacher("NAT", "CoT KD", BEST),
            as_published("NAT", "CoT KD"),
            as_published("NAT", "Fine-tune"),
        ),
        (
            *by_teacher("NAT", EMPTY, BEST),
            *by_teacher("NAT", "CoT KD", TOKENS),
            *by_teacher("NAT", "Fine-tune"),
        ),
    ),
    Claim(
        5,
        "NCE beats KD and NAT",
        "+10 % (0.66 points) over KD; +6.5 % over NAT",
        (against(NCE, "NCE", "KD", {}), against(NCE, "NCE", "NAT", {})),
        (
            *(against(NCE, "NCE", f"NCE, {kind} beta", {}) for kind in ("mean", "shuffled", "inverse")),
            against(NCE, "KD", "CoT KD", {}),
        ),
    ),
    Claim(
        6,
        "Adaptive self-consistency beats counting and weighing by probability (ASC, SC, WS)",
        NO_NUMBER,
        (rules("ASC", "SC"), rules("ASC", "WS")),
        (rules("WS", "SC"), rules("WS per token", "SC")),
    ),
    Claim(
        7,
        "The gains carry over to questions of another kind",
        NO_NUMBER,
        (
            *(against(SHIFTED, one, "CoT KD", {"set": "shifted"}) for one in ("NAT", "NCE")),
            *(against(SHIFTED, f"{one}, ASC", f"{one}, SC", {"set": "shifted"}) for one in ("CoT KD", "NCE")),
        ),
        tuple(against(SHIFTED, one, LONGER, {"set": "shifted"}) for one in ("NAT", "NCE")),
    ),
    Claim(
        8,
        "NAT's gain is not just its larger number of parameters, nor its extra steps (ours)",
        NO_NUMBER,
        (*by_teacher("NAT", "CoT KD"), *by_teacher("NAT", WIDE), *by_teacher("NAT", EMPTY, BEST)),
        (
            *by_teacher(EMPTY, "CoT KD"),
            *by_teacher("NAT", "NAT, positive branch"),
            *by_teacher("NAT", "NAT, random branch"),
            as_published("NAT", LONGER),
        ),
    ),
)

# --- predictions --------------------------------------------------------------------------------------


def chapters(folder: str | Path) -> dict[str, Path]:
    """Files of predictions by what their notebooks declare them to be: {"negdistill": {"predictions": name}}.

    folder  of executed notebooks. ValueError where two declare the same.
    """
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).resolve().glob("*.ipynb")):
        kept = _declared(path, path.stat().st_mtime_ns)[0]
        if kept in found:
            raise ValueError(f"{path} declares predictions {kept!r}, as {found[kept].stem} does; rename one")
        if kept:
            found[kept] = path.with_suffix(".parquet")
    return found


@lru_cache(maxsize=64)
def _declared(path: Path, changed: int) -> tuple[str, str]:
    """What a notebook declares its predictions to be, and the digest of them in its provenance."""
    declared = json.loads(path.read_text("utf-8"))["metadata"].get("negdistill", {})
    made = declared.get("manifest", {}).get("artifacts", {})
    return declared.get("predictions", ""), made.get(PREDICTIONS, "")


@lru_cache(maxsize=16)
def _predictions(path: Path, digest: str) -> pd.DataFrame:
    if digest_file(path) != digest:
        raise ValueError(
            f"{path} is not what its notebook left: the digests differ; restore it, or run the notebook again"
        )
    return parquet.read_table(path).to_pandas()


def predictions(folder: str | Path, chapter: str) -> pd.DataFrame:
    """What a chapter's methods answered: method, seed, problem_id, level, answer, correct, and more columns.

    chapter  what its notebook declares its predictions to be

    FileNotFoundError where no chapter left them in the folder, ValueError where the file was changed since.
    """
    path = chapters(folder).get(chapter)
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"no predictions {chapter!r} in {folder}: they are written with the executed notebook that "
            "declares them; run `python -m negdistill run --profile book`"
        )
    notebook = path.with_suffix(".ipynb")
    return _predictions(path, _declared(notebook, notebook.stat().st_mtime_ns)[1])


def select(frame: pd.DataFrame, where: Mapping[str, object]) -> pd.DataFrame:
    """The rows with these values: "all" is the largest, set "shifted" all but "test", questions apart."""
    for column, value in where.items():
        if (column, value) == ("set", "shifted"):
            frame = with_shifted(frame)["shifted"]
        else:
            frame = frame[frame[column] == (frame[column].max() if value == "all" else value)]
    return frame


def rows_of(frame: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """The rows of the methods, questions numbered apart, as of one method."""
    parts = [frame[frame["method"] == method] for method in methods]
    if missing := [method for method, part in zip(methods, parts, strict=True) if part.empty]:
        raise ValueError(
            f"predictions must hold {missing[0]!r}; they hold {sorted(frame['method'].unique())}"
        )
    if len(parts) > 1:
        parts = [part.assign(problem_id=f"{n}:" + part["problem_id"]) for n, part in enumerate(parts)]
    return pd.concat(parts).assign(method="")


def compare(folder: str | Path, of: Comparison) -> Difference:
    """The paired difference of a comparison. ValueError where a method is missing; else as `predictions`."""
    frame = select(predictions(folder, of.chapter), of.where)
    return paired(rows_of(frame, of.one), rows_of(frame, of.other))


# --- claims -------------------------------------------------------------------------------------------


def _overlaps(folder: str | Path) -> Iterator[dict[str, object]]:
    """Rows of claim 1: the overlap, and what it is less than that of two students of positives."""
    frame = predictions(folder, BASELINES)
    for teacher in TEACHERS:
        part = select(frame, {"teacher": teacher, "budget": STEPS, "questions": "all"})
        right, wrong = (part[part["method"] == method] for method in ("CoT KD", NEGATIVE))
        following = dict(zip(seeds := sorted(right["seed"].unique()), seeds[1:] + seeds[:1], strict=True))
        again = right.assign(seed=right["seed"].map(following))
        found = dict(zip(("value", "low", "high"), overlap(right, wrong), strict=True))
        yield {"role": "ours", "label": f"{teacher}: overlap", "p": None, "sign": 0} | found
        found = overlap_difference(right, wrong, again)._asdict()
        label = f"{teacher}: overlap − that of two students of positives"
        yield {"role": "decides", "label": label, "sign": -1} | found


def judge(folder: str | Path) -> pd.DataFrame:
    """All numbers of all claims, a row each: claim, role, label, value, low, high, p, sign.

    role   "decides", "control", or "ours" for a number that is only shown
    value  a fraction, with its interval; sign says on which side of zero the claim expects it
    """
    rows = []
    for claim in CLAIMS:
        if claim.number == 1:
            rows += [{"claim": 1, **row} for row in _overlaps(folder)]
        for role, comparisons in (("decides", claim.decided_by), ("control", claim.controls)):
            for of in comparisons:
                row = {"claim": claim.number, "role": role, "label": of.label, "sign": of.sign}
                rows.append(row | compare(folder, of)._asdict())
    return pd.DataFrame(rows)[["claim", "role", "label", "value", "low", "high", "p", "sign"]]


def claim_verdict(rows: pd.DataFrame) -> str:
    """One of stats.VERDICTS: opposite where anything that decides a claim is, else what all of it is."""
    decides = rows[rows["role"] == "decides"].itertuples()
    found = {verdict(row, row.sign) for row in decides}
    if VERDICTS[1] in found:
        return VERDICTS[1]
    return found.pop() if len(found) == 1 else VERDICTS[3]


def signed(value: float, low: float, high: float) -> str:
    """Fractions as points, with signs: "+1.2 [−0.3, +2.7]"."""
    ends = (f"{round(100 * number, 1) + 0.0:+.1f}".replace("-", "−") for number in (value, low, high))
    return "{} [{}, {}]".format(*ends)


def _line(row: NamedTuple) -> str:
    """A number of a claim in words; what is only shown is no difference, and has no sign."""
    numbers = row.value, row.low, row.high
    return f"{row.label} {percent(*numbers) if row.role == 'ours' else signed(*numbers)}"


def claims_table(judged: pd.DataFrame) -> str:
    """The table of book/claims.md, in Markdown, from the rows of `judge`."""
    header = ["number", "claim", "verdict", "published", "ours, in points", "p", "what the controls say"]
    lines = [header, ["---"] * len(header)]
    for claim in CLAIMS:
        rows = judged[judged["claim"] == claim.number]
        ours, controls = rows[rows["role"] != "control"], rows[rows["role"] == "control"]
        values, said = (list(map(_line, part.itertuples())) for part in (ours, controls))
        ps = ["" if pd.isna(p) else f"{p:.4f}" for p in ours["p"]]
        published = claim.published.split("; ")
        cells = map("<br>".join, (published, values, ps, said))
        lines.append([f"{claim.number}", claim.says, f"**{claim_verdict(rows)}**", *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
