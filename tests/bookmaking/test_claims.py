"""Claims: every number against a count of its own, and verdicts by hand."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from negdistill.bookmaking.claims import (
    MIXED,
    NOT_ASKED,
    NOT_PLANNED,
    NOT_RUN,
    SMALL,
    claim_verdict,
    compare,
    judge,
    too_wide,
)
from negdistill.bookmaking.claims_plan import TEACHERS, Comparison, read_plan
from negdistill.bookmaking.predictions import predictions, select
from negdistill.stats import VERDICTS, holm, overlap
from negdistill.training.method_table import METHODS

PLAN = read_plan(Path(__file__).parents[2] / "book" / "plan.yml")._replace(waiting={}, floor=0.0)


@pytest.fixture(scope="module")
def judged(answered):
    return judge(answered, PLAN)


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


def test_everything_that_the_plan_asks_for_is_judged(judged):
    for claim in PLAN.claims:
        rows = judged[judged["claim"] == claim.number]
        for role, several in (("decides", claim.decided_by), ("control", claim.controls)):
            labels = [of.label for of in several]
            overlap_too = bool(claim.overlap) and role == "decides"
            assert rows[rows["role"] == role]["label"].tolist()[overlap_too:] == labels
    assert (judged["state"] == "").all()


def test_differences_are_those_of_the_rows_they_name(answered, judged):
    frame = pd.read_parquet(answered / "chapter_methods.parquet")
    for teacher in TEACHERS:
        for budget in ("equal steps", "best point"):
            at = {"budget": budget, "teacher": teacher}
            found = rate(frame, "MIX", **at) - rate(frame, "CoT KD", **at)
            assert value_of(judged, 2, f"{teacher}: MIX − CoT KD, {budget}") == pytest.approx(found)
    frame = pd.read_parquet(answered / "chapter_nce.parquet")
    assert value_of(judged, 5, "NCE − KD") == pytest.approx(rate(frame, "NCE") - rate(frame, "KD"))
    frame = pd.read_parquet(answered / "chapter_rivals.parquet")
    at = {"budget": "best point", "teacher": "weak"}
    found = rate(frame, "KTO", **at) - rate(frame, "CoT KD, continued", **at)
    assert value_of(judged, 10, "weak: KTO − CoT KD, continued, best point") == pytest.approx(found)


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


def test_the_overlap_is_measured_against_two_students_of_positives(answered, judged):
    frame = pd.read_parquet(answered / "chapter_negative.parquet")
    right, wrong, again = (
        frame[frame["method"] == name] for name in ("CoT KD", "Negative adapter", "CoT KD, again")
    )
    rows = judged[judged["claim"] == 1].set_index("label")
    assert rows.loc["positives and negatives: overlap", "value"] == overlap(right, wrong).value
    assert pd.isna(rows.loc["positives and negatives: overlap", "p"])

    def kappa(one, other):
        a, b = (part.sort_values(["seed", "problem_id"])["correct"].to_numpy(bool) for part in (one, other))
        by_chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
        return ((a == b).mean() - by_chance) / (1 - by_chance)

    found = rows[rows["role"] == "decides"]["value"].item()
    assert found == pytest.approx(kappa(right, wrong) - kappa(right, again))
    solved = {
        name: {(r.seed, r.problem_id) for r in part[part["correct"]].itertuples()}
        for name, part in (("right", right), ("wrong", wrong))
    }
    alone = len(solved["wrong"] - solved["right"]) / len(right)
    assert rows.loc["solved by the negative student alone", "value"] == pytest.approx(alone)


def test_a_row_with_fewer_seeds_is_compared_on_those(answered, tmp_path):
    of = Comparison("", "nce", {}, ("NCE",), ("KD",))
    folder = Path(shutil.copytree(answered, tmp_path / "few"))
    frame = pd.read_parquet(folder / "chapter_nce.parquet")
    few = frame[(frame["method"] != "NCE") | (frame["seed"] < 2)]
    both = few[few["seed"] < 2]
    rewrite(folder, "nce", few)
    assert compare(folder, of).value == pytest.approx(rate(both, "NCE") - rate(both, "KD"))


def rewrite(folder, kind, frame):
    """Other predictions of a chapter, as if its notebook had left them."""
    import json

    from negdistill.runs.digests import digest_file

    path = folder / f"chapter_{kind}.parquet"
    frame.to_parquet(path, index=False)
    notebook = json.loads(path.with_suffix(".ipynb").read_text())
    notebook["metadata"]["negdistill"]["manifest"]["artifacts"]["predictions.parquet"] = digest_file(path)
    path.with_suffix(".ipynb").write_text(json.dumps(notebook))


def rows_with(*ends, sign=1, role="decides", state=""):
    columns = {"role": role, "sign": sign, "state": state}
    return pd.DataFrame([{"low": low, "high": high, **columns} for low, high in ends])


def test_verdicts_by_hand():
    holds, opposite, no_difference, undecided = VERDICTS
    assert claim_verdict(rows_with((0.01, 0.2), (0.1, 0.3))) == holds
    assert claim_verdict(rows_with((0.01, 0.2), (-0.1, 0.3))) == undecided
    assert claim_verdict(rows_with((0.01, 0.2), (-0.3, -0.1))) == opposite
    assert claim_verdict(rows_with((-0.3, -0.1), sign=-1)) == holds
    assert claim_verdict(rows_with((-0.01, 0.02), (-0.015, 0.0))) == no_difference
    assert claim_verdict(rows_with((-0.01, 0.02), (0.01, 0.2))) == MIXED
    assert claim_verdict(rows_with((-0.01, 0.02), (0.01, 0.2), (-0.1, 0.3))) == undecided
    control = rows_with((-0.3, -0.1), role="control")
    assert claim_verdict(pd.concat([rows_with((0.01, 0.2)), control])) == holds
    for state in (NOT_RUN, SMALL):
        found = pd.concat([rows_with((0.01, 0.2)), rows_with((0.01, 0.2), state=state)])
        assert claim_verdict(found) == NOT_RUN
    asked, unasked = rows_with((0.01, 0.2)), rows_with((-0.2, -0.1), state=NOT_ASKED)
    assert claim_verdict(unasked) == NOT_ASKED and claim_verdict(pd.concat([asked, unasked])) == holds
    assert claim_verdict(asked, "real") == NOT_PLANNED


def test_only_what_decides_and_was_asked_is_corrected(judged):
    corrected = judged["holm"].notna()
    assert (corrected == judged["role"].isin(["decides", "real"])).all()
    assert (judged["holm"] >= judged["p"])[corrected].all()
    for role in ("decides", "real"):  # each student for itself
        part = judged[judged["role"] == role]
        assert part["holm"].tolist() == holm(part["p"].astype(float)).tolist()


def test_a_baseline_at_the_floor_is_not_asked(answered):
    found, real = judge(answered, PLAN._replace(floor=0.99)), judge(answered, PLAN._replace(real_floor=0.99))
    for frame, role in ((found, "decides"), (real, "real")):
        part = frame[(frame["claim"] == 5) & (frame["role"] == role)]
        assert set(part["state"]) == {NOT_ASKED}
        others = frame[(frame["claim"] == 5) & (frame["role"] != role) & (frame["role"] != "control")]
        assert set(others["state"]) == {""}
    assert found[found["role"] == "decides"]["holm"].notna().sum() == 1  # the overlap, which has no baseline
    small = judge(answered, PLAN._replace(waiting={"nce": "few seeds"}))
    small = small[small["role"] != "real"]
    assert set(small[small["claim"] == 5]["state"]) == {SMALL}
    assert claim_verdict(small[small["claim"] == 5]) == NOT_RUN


def test_what_is_missing_stays_and_says_so(answered, tmp_path):
    for path in answered.glob("chapter_methods.*"):
        shutil.copy(path, tmp_path)
    found = judge(tmp_path, PLAN)
    assert (found[found["claim"] == 5]["state"] == NOT_RUN).all()
    of = found[found["claim"] == 4]
    assert ((of["state"] == NOT_RUN) == (of["role"] == "real")).all()
    with pytest.raises(FileNotFoundError, match="no predictions 'nce' in .* written with the executed"):
        predictions(tmp_path, "nce")
    of = Comparison("", "methods", {}, ("NCE",), ("GKD",))
    with pytest.raises(ValueError, match="predictions must hold 'NCE'; they hold"):
        compare(tmp_path, of)


def test_a_wide_interval_needs_a_reason(judged):
    wide = too_wide(judged, PLAN)
    half = (judged["high"] - judged["low"]) / 2
    limits = judged["role"].map({"decides": PLAN.half_width, "real": PLAN.real_half_width})
    expected = judged[(half > limits) & (judged["wider"] == "")]
    assert set(wide["label"]) == set(expected["label"]) and set(expected["role"]) == {"decides", "real"}
    assert too_wide(judged.assign(wider="few seeds"), PLAN).empty
    overlap_alone = too_wide(judged.assign(wider=""), PLAN._replace(half_width=1e-6))
    assert (overlap_alone["claim"] == 1).any(), "what has no baseline has a width too"
    assert too_wide(judged, PLAN._replace(half_width=1, real_half_width=1)).empty


def test_every_method_of_a_claim_is_a_row_of_the_table_of_methods():
    rules = ("SC", "WS", "WS per token", "ASC", "longer", "likelihood ratio")
    sums = [f"Sum over {branch}" for branch in ("wrong answers", "right answers", "noise")]  # of chapter 09
    for claim in PLAN.claims:
        for of in (*claim.decided_by, *claim.controls, *claim.real):
            for method in (*of.one, *of.other):
                name, _, rule = method.rpartition(", ")
                assert method in (*METHODS, *sums) or (rule in rules and name in METHODS), method
