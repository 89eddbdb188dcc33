"""Claims: every number against a count of its own, and verdicts by hand."""

import shutil

import pandas as pd
import pytest

from negdistill.bookmaking.claims import (
    CLAIMS,
    TEACHERS,
    Comparison,
    claim_verdict,
    claims_table,
    compare,
    judge,
    predictions,
    select,
    signed,
)
from negdistill.bookmaking.tables import percent
from negdistill.stats import VERDICTS, overlap
from negdistill.training.method_table import METHODS


@pytest.fixture(scope="module")
def judged(answered):
    return judge(answered)


def rate(frame, method, **where):
    part = frame[frame["method"] == method]
    for name, value in where.items():
        part = part[part[name] == value]
    assert len(part)
    return part["correct"].mean()


def value_of(judged, claim, label):
    (row,) = judged[(judged["claim"] == claim) & (judged["label"] == label)].itertuples()
    assert row.low <= row.value <= row.high and 0 < row.p <= 1
    return row.value


def test_differences_are_those_of_the_rows_they_name(answered, judged):
    frame = pd.read_parquet(answered / "chapter_methods.parquet")
    at = {"budget": "equal steps", "questions": 70}
    for teacher in TEACHERS:
        found = rate(frame, "MIX", teacher=teacher, **at) - rate(frame, "CoT KD", teacher=teacher, **at)
        assert value_of(judged, 2, f"{teacher}: MIX − CoT KD") == pytest.approx(found)
        found = rate(frame, "NAT", teacher=teacher, budget="best point") - rate(
            frame, "CoT KD", teacher=teacher, budget="best point"
        )
        assert value_of(judged, 4, f"{teacher}: NAT − CoT KD, best point") == pytest.approx(found)
    frame = pd.read_parquet(answered / "chapter_nce.parquet")
    assert value_of(judged, 5, "NCE − KD") == pytest.approx(rate(frame, "NCE") - rate(frame, "KD"))


def test_rules_are_compared_for_all_students_together(answered, judged):
    frame = pd.read_parquet(answered / "chapter_votes.parquet")
    ends = frame["method"].str.split(", ").str[1]
    found = frame[ends == "ASC"]["correct"].mean() - frame[ends == "SC"]["correct"].mean()
    assert value_of(judged, 6, "ASC − SC") == pytest.approx(found)


def test_shifted_sets_count_together_and_the_test_set_does_not(answered, judged):
    frame = pd.read_parquet(answered / "chapter_shifted.parquet")
    frame = frame[frame["set"] != "test"]
    assert value_of(judged, 7, "NAT − CoT KD") == pytest.approx(rate(frame, "NAT") - rate(frame, "CoT KD"))
    part = select(predictions(answered, "shifted"), {"set": "shifted"})
    assert part["problem_id"].nunique() == 2 * 35
    row = judged[judged["label"] == "as in the paper: NAT − CoT KD"].iloc[0]
    frame = pd.read_parquet(answered / "chapter_shifted.parquet")
    here = rate(frame, "NAT", set="test") - rate(frame, "CoT KD", set="test")
    assert row["value"] == pytest.approx(here)


def test_the_overlap_is_measured_against_two_students_of_positives(answered, judged):
    frame = pd.read_parquet(answered / "chapter_methods.parquet")
    part = frame[
        (frame["teacher"] == "weak") & (frame["budget"] == "equal steps") & (frame["questions"] == 70)
    ]
    right, wrong = (part[part["method"] == name] for name in ("CoT KD", "Negative adapter"))
    solved = {s: set(one[one["correct"]]["problem_id"]) for s, one in right.groupby("seed")}
    pairs = [(solved[a], solved[b]) for a, b in ((0, 2), (1, 0), (2, 1))]
    again = sum(len(a & b) for a, b in pairs) / sum(len(a | b) for a, b in pairs)
    rows = judged[judged["claim"] == 1].set_index("label")
    assert rows.loc["weak: overlap", "value"] == pytest.approx(overlap(right, wrong).value)
    assert pd.isna(rows.loc["weak: overlap", "p"]) and rows.loc["weak: overlap", "role"] == "ours"
    found = rows.loc["weak: overlap − that of two students of positives", "value"]
    assert found == pytest.approx(overlap(right, wrong).value - again)


def rows_with(*ends, sign=1, role="decides"):
    return pd.DataFrame([{"role": role, "low": low, "high": high, "sign": sign} for low, high in ends])


def test_verdicts_by_hand():
    holds, opposite, no_difference, undecided = VERDICTS
    assert claim_verdict(rows_with((0.01, 0.2), (0.1, 0.3))) == holds
    assert claim_verdict(rows_with((0.01, 0.2), (-0.1, 0.3))) == undecided
    assert claim_verdict(rows_with((0.01, 0.2), (-0.3, -0.1))) == opposite
    assert claim_verdict(rows_with((-0.3, -0.1), sign=-1)) == holds
    assert claim_verdict(rows_with((-0.01, 0.02), (-0.015, 0.0))) == no_difference
    assert claim_verdict(rows_with((-0.01, 0.02), (0.01, 0.2))) == undecided
    control = rows_with((-0.3, -0.1), role="control")
    assert claim_verdict(pd.concat([rows_with((0.01, 0.2)), control])) == holds
    assert signed(0.0123, -0.003, 0.02745) == "+1.2 [−0.3, +2.7]" and signed(-0.0001, 0, 0).startswith(
        "+0.0 "
    )


def test_the_table_has_a_row_for_every_claim_and_every_number(judged):
    lines = claims_table(judged).splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == [f"| {claim.number}" for claim in CLAIMS]
    for claim, line in zip(CLAIMS, lines, strict=True):
        rows = judged[judged["claim"] == claim.number]
        assert claim.says in line and f"**{claim_verdict(rows)}**" in line
        for row in rows.itertuples():
            numbers = row.value, row.low, row.high
            assert f"{row.label} {percent(*numbers) if row.role == 'ours' else signed(*numbers)}" in line
    assert "MIX − CoT KD −2.26 (GPT-3.5)" in lines[1]


def test_every_method_of_a_claim_is_a_row_of_the_table_of_methods():
    for claim in CLAIMS:
        for of in (*claim.decided_by, *claim.controls):
            for method in (*of.one, *of.other):
                name, _, rule = method.rpartition(", ")
                known = method in METHODS or rule in ("SC", "WS", "WS per token", "ASC", "longer")
                assert known and (method in METHODS or name in METHODS), method


def test_a_changed_file_is_refused(answered, tmp_path):
    for path in answered.iterdir():
        shutil.copy(path, tmp_path)
    path = tmp_path / "chapter_nce.parquet"
    frame = pd.read_parquet(path)
    frame.loc[0, "correct"] = not frame.loc[0, "correct"]
    frame.to_parquet(path, index=False)
    with pytest.raises(ValueError, match="chapter_nce.parquet is not what its notebook left: the digests"):
        predictions(tmp_path, "nce")
    shutil.copy(answered / "chapter_nce.ipynb", tmp_path / "chapter_other.ipynb")
    with pytest.raises(ValueError, match="declares predictions 'nce', as chapter_nce does"):
        predictions(tmp_path, "votes")


def test_what_is_missing_is_said(answered, tmp_path):
    with pytest.raises(
        FileNotFoundError, match="no predictions 'methods' in .* they are written with the executed notebook"
    ):
        judge(tmp_path)
    of = Comparison("", "nce", {}, ("NCE",), ("GKD",))
    with pytest.raises(ValueError, match="predictions must hold 'GKD'; they hold"):
        compare(answered, of)
