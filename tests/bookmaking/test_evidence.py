"""Evidence: tables against counts, and files that say what they were made from."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from negdistill.bookmaking.claims import judge
from negdistill.bookmaking.claims_page import cards
from negdistill.bookmaking.claims_plan import read_plan
from negdistill.bookmaking.editions import editions
from negdistill.bookmaking.evidence import (
    conditions,
    digest,
    figures,
    refresh,
    result_tables,
    uses,
)
from negdistill.data.tasks import load_task

PLAN = Path(__file__).parents[2] / "book" / "plan.yml"


def test_uses_compare_with_the_same_student_without_wrong_answers(answered):
    frame = pd.read_parquet(answered / "chapter_methods.parquet").query("budget == 'best point'")
    found = uses(answered, read_plan(PLAN)).set_index(["label", "series"])
    rate = frame.groupby(["teacher", "method"])["correct"].mean()
    for teacher in ("weak", "strong"):
        row = found.loc["as NAT's negative branch (NAT)", f"embedded student, {teacher} teacher"]
        assert row["value"] == pytest.approx(rate[teacher, "NAT"] - rate[teacher, "NAT, empty branch"])
        assert row["low"] <= row["value"] <= row["high"]
    assert found.index.get_level_values(0).unique().tolist() == list(read_plan(PLAN).uses)


def test_conditions_hold_every_budget_level_and_ablation(answered):
    frame = conditions(answered)
    assert frame["kind"].unique().tolist() == ["budget", "level", "ablation"]
    level = {problem.id: problem.level for problem in load_task("arithmetic").questions("test", 35, 0)}
    answers = pd.read_parquet(answered / "chapter_methods.parquet").query(
        "teacher == 'strong' and budget == 'best point'"
    )
    hard = answers[answers["problem_id"].map(level) == 5].groupby("method")["correct"].mean()
    rows = frame.set_index(["condition", "teacher", "against"])["difference"]
    assert rows["level 5", "strong", "CoT KD"] == pytest.approx(hard["NAT"] - hard["CoT KD"])
    branch = "NAT, empty branch"
    assert ("rank 2", "weak", branch) not in rows.index and ("rank 2", "weak", "CoT KD") in rows.index


def test_result_tables_hold_every_method_under_every_condition(answered):
    tables = result_tables(answered)
    for name, table in tables.items():
        frame = pd.read_parquet(answered / f"{name}.parquet")
        keys = [key for key in ("teacher", "variant", "set", "budget", "method") if key in frame]
        accuracy = frame.groupby(keys)["correct"].mean()
        pd.testing.assert_series_equal(
            table.set_index(keys)["accuracy"].sort_index(), accuracy, check_names=False, check_exact=False
        )
        assert (table["difference"].isna() == (table["method"] == table["baseline"])).all()
    assert set(tables["chapter_nce"]["baseline"]) == {"KD"}
    votes = tables["chapter_votes"]
    assert (votes["baseline"] == votes["student"] + ", SC").all()


def test_refresh_writes_a_table_two_figures_and_a_file_for_every_chapter(answered, tmp_path):
    book = tmp_path / "book"
    shutil.copytree(answered, book / "executed")
    (book / "_static").mkdir()
    shutil.copy(PLAN, book)
    page = "# Claims\n\n<!-- claims: begin -->\nold\n<!-- claims: end -->\n\nThe end.\n"
    (book / "claims.md").write_text(page)
    shutil.copytree(PLAN.parent / "ja", book / "ja")
    (book / "ja" / "claims.md").write_text(page)
    written = refresh(tmp_path)
    assert all(path.is_file() for path in written)
    plan = read_plan(PLAN)
    expected = page.replace("old", cards(judge(answered, plan), plan))
    assert (book / "claims.md").read_text("utf-8") == expected
    (_, japanese) = editions(book)
    assert cards(judge(answered, plan), plan, japanese) in (book / "ja" / "claims.md").read_text("utf-8")
    used = uses(answered, plan)
    for name, (frame, _) in figures(used, conditions(answered), plan).items():
        assert f"Description\0{digest(frame)}".encode() in (book / "_static" / name).read_bytes()
    assert digest(used) != digest(used.assign(value=0.5))
    assert (book / "_static" / "claim_02.png").is_file()
    names = sorted(path.name for path in (book / "tables").iterdir())
    kinds = ("ablations", "methods", "nce", "negative", "real", "rivals", "shifted", "votes")
    assert names == [*(f"chapter_{kind}.csv" for kind in kinds), "conditions.csv"]

    (book / "claims.md").write_text("# Claims\n")
    with pytest.raises(ValueError, match="must hold <!-- claims: begin --> and .* once; got 0"):
        refresh(tmp_path)
