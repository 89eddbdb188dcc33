"""The plan of the claims: every line of it, for every teacher, or refused in words."""

from pathlib import Path

import pytest

from negdistill.bookmaking.claims_plan import Comparison, comparisons, read_plan
from negdistill.stats import MARGIN
from negdistill.training.method_table import METHODS

PLAN = Path(__file__).parents[2] / "book" / "plan.yml"


def test_a_line_is_a_comparison_of_the_columns_that_it_names():
    line = {"chapter": "nce", "one": "NCE", "other": "KD"}
    assert comparisons(line) == (Comparison("NCE − KD", "nce", {}, ("NCE",), ("KD",)),)
    line = {
        "chapter": "methods",
        "teachers": "both",
        "budget": "best point",
        "one": "a",
        "other": "b",
        "sign": -1,
    }
    weak, strong = comparisons(line)
    assert weak.label == "weak: a − b, best point" and weak.sign == strong.sign == -1
    assert strong.where == {"teacher": "strong", "budget": "best point"}
    assert comparisons(line | {"teachers": "strong"}) == (strong,)
    line = {"chapter": "votes", "students": ["x", "y"], "one": "ASC", "other": "SC"}
    (votes,) = comparisons(line)
    assert votes.one == ("x, ASC", "y, ASC") and votes.other == ("x, SC", "y, SC")
    (alone,) = comparisons(line | {"students": ["x"]})
    assert alone.label == "x: ASC − SC"


def test_a_mistake_is_refused_in_words(tmp_path):
    with pytest.raises(ValueError, match="claim 3: chapter must be .*'rivals'.* got 'rival'"):
        comparisons({"chapter": "rival", "one": "a", "other": "b"}, "claim 3")
    with pytest.raises(ValueError, match="key of a comparison must be .* got 'budgets'"):
        comparisons({"chapter": "nce", "budgets": "x", "one": "a", "other": "b"})
    with pytest.raises(ValueError, match="claim 3: teachers must be .*'both'.* got 'week'"):
        comparisons({"chapter": "rivals", "teachers": "week", "one": "a", "other": "b"}, "claim 3")
    text = PLAN.read_text("utf-8").replace("number: 2", "number: 1")
    (tmp_path / "plan.yml").write_text(text, "utf-8")
    with pytest.raises(ValueError, match="plan.yml: claim 1 stands there twice"):
        read_plan(tmp_path / "plan.yml")
    for text, missing in (("claims: [{says: x}]", "'number'"), ("claims: []", "'uses'")):
        (tmp_path / "plan.yml").write_text(text, "utf-8")
        with pytest.raises(ValueError, match=f"plan.yml lacks {missing}"):
            read_plan(tmp_path / "plan.yml")


def test_an_overlap_is_asked_at_equal_accuracy(tmp_path):
    text = PLAN.read_text("utf-8").replace("at: equal accuracy", "at: equal steps")
    (tmp_path / "plan.yml").write_text(text, "utf-8")
    with pytest.raises(
        ValueError, match="at of .*claim 1 must be one of 'equal accuracy'; got 'equal steps'"
    ):
        read_plan(tmp_path / "plan.yml")


def test_the_plan_of_the_book():
    plan = read_plan(PLAN)
    assert [claim.number for claim in plan.claims] == list(range(1, len(plan.claims) + 1))
    assert plan.margin == MARGIN and 0 < plan.half_width <= 0.02 and 0 < plan.floor < 1
    for claim in plan.claims:
        assert claim.overlap or claim.decided_by
        labels = [of.label for of in (*claim.decided_by, *claim.controls)]
        assert len(set(labels)) == len(labels)
    asked = {name for several in plan.elsewhere.values() for of in several for name in (*of.one, *of.other)}
    assert asked <= {*METHODS, "CoT KD, longer"}
    profiles = PLAN.parents[1] / "notebooks" / "profiles"
    assert all(several and (profiles / f"{run}.yml").is_file() for run, several in plan.elsewhere.items())
    assert all({"date", "what", "why"} <= set(change) for change in plan.changes)
