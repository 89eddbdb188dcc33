"""The page of the claims: every number in a card, and a figure that shows what decides."""

import re
from pathlib import Path

import matplotlib
import pandas as pd
import pytest

from negdistill.bookmaking.claims import NOT_RUN, SMALL, claim_verdict, is_there, judge
from negdistill.bookmaking.claims_page import (
    cards,
    claim_figures,
    controls_say,
    plan_page,
    published,
    published_difference,
    signed,
)
from negdistill.bookmaking.claims_plan import read_plan
from negdistill.bookmaking.editions import Edition, editions

matplotlib.use("Agg")
ROOT = Path(__file__).parents[2]
PLAN = read_plan(ROOT / "book" / "plan.yml")._replace(waiting={}, floor=0.0)
(_, JAPANESE) = editions(ROOT / "book")

pytestmark = pytest.mark.usefixtures("styled")


@pytest.fixture(scope="module")
def judged(answered):
    return judge(answered, PLAN)


def test_a_card_for_every_claim_with_every_number(judged):
    text = cards(judged, PLAN)
    parts = text.split("(claim-")[1:]
    assert len(parts) == len(PLAN.claims)
    for claim, part in zip(PLAN.claims, parts, strict=True):
        rows = judged[judged["claim"] == claim.number]
        assert f"## {claim.number}. {claim.says}" in part and f"`embedded: {claim_verdict(rows)}`" in part
        assert "`real: " in part and ("`real: not planned`" in part) == (not claim.real)
        for row in rows[rows["role"] != "ours"].itertuples():
            assert row.label in part and signed(row.value, row.low, row.high) in part
    assert "MIX − CoT KD −2.26 (GPT-3.5), −1.10 (GPT-4)" in parts[1]
    assert "overlap 0.074 of the union" in parts[0]


def test_a_card_in_another_language_has_the_same_numbers_and_leads_to_the_table(judged):
    english, other = cards(judged, PLAN), cards(judged, PLAN, JAPANESE)
    pairs = zip(english.split("(claim-")[1:], other.split("(claim-ja-")[1:], strict=True)
    for claim, (one, part) in zip(PLAN.claims, pairs, strict=True):
        assert part.startswith(f"{claim.number})=\n### {claim.number}. {JAPANESE.say(claim.says)}\n")
        assert f"](#claim-{claim.number})" in part and "| --- |" not in part
        said = one.partition(":::{dropdown}")[0]
        for pattern in (r"\[[^]]+%?\]", r"[+−]\d+\.\d+", r"\{bdg-\w+\}", r"claim_\d\d\.png"):
            assert re.findall(pattern, said) == re.findall(pattern, part.partition("[すべて")[0]), part


def test_a_text_without_a_translation_is_refused(judged):
    words = {english: text for english, text in JAPANESE.words.items() if english != PLAN.claims[3].says}
    with pytest.raises(ValueError, match=r"book/ja/words\.yml must hold every .*; it lacks 'NAT beats CoT"):
        cards(judged, PLAN, Edition("ja", words))


def test_what_was_not_run_or_is_small_says_so(judged):
    rows = judged[judged["claim"] == 5].assign(state=NOT_RUN)
    assert "not run yet" in cards(pd.concat([judged[judged["claim"] != 5], rows]), PLAN)
    small = judged.assign(state=SMALL)
    assert "smaller run" in cards(small, PLAN) and "embedded: not run yet" in cards(small, PLAN)
    figures = claim_figures(judged[judged["claim"] != 5], PLAN)
    assert "claim_05.png" not in figures and "claim_04.png" in figures


def test_a_figure_shows_what_decides_and_the_published_number(judged):
    rows, figure = claim_figures(judged, PLAN)["claim_02.png"]
    decides = judged[(judged["claim"] == 2) & judged["role"].isin(["decides", "real"])]
    assert rows["label"].tolist() == decides["label"].tolist()
    assert rows["published"].iloc[0] == pytest.approx(-0.0226)
    (axes,) = figure.axes
    drawn = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert drawn == pytest.approx((100 * rows["value"]).tolist())
    diamonds = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
    assert diamonds == pytest.approx((100 * rows["published"]).tolist())
    assert [text.get_text() for text in axes.texts] == rows["label"].tolist()


def test_the_name_of_every_comparison_fits_into_its_figure(judged):
    for _, figure in claim_figures(judged, PLAN).values():
        figure.draw_without_rendering()
        for name in figure.axes[0].texts:
            assert name.get_window_extent().x1 <= figure.bbox.x1, name.get_text()


def test_what_the_controls_say_in_a_line():
    def rows(*ends, role="control", state=""):
        columns = {"role": role, "state": state, "value": 0.0, "label": "a − b"}
        return pd.DataFrame([{"low": low, "high": high, **columns} for low, high in ends])

    assert controls_say(rows((-0.1, 0.1), (-0.2, 0.1))) == "Of 2 controls, none differs from zero."
    found = controls_say(pd.concat([rows((0.1, 0.2), (-0.2, 0.1)), rows((0, 1), state=NOT_RUN)]))
    assert found == "Of 3 controls, 2 run so far, 1 differs from zero: a − b +0.0 [+10.0, +20.0]."
    assert "no controls" in controls_say(rows((0, 1), role="decides"))
    assert controls_say(rows((0, 1), state=NOT_RUN)) == "None of its 1 controls has been run yet."
    two = controls_say(rows((0.1, 0.2), (-0.2, -0.1)), JAPANESE)
    assert two.startswith("2 件のうち、0 と異なるものは 2 件：a − b +0.0 [+10.0, +20.0]; a − b")
    late = pd.concat([rows((0.1, 0.2)), rows((0, 1), state=NOT_RUN)])
    assert controls_say(late, JAPANESE).startswith("2 件のうち、これまでに 1 件を実行し、0 と異なる")
    assert controls_say(rows((0, 1), state=NOT_RUN), JAPANESE) == "1 件のいずれも、まだ実行していない。"
    assert controls_say(rows((0, 1), role="decides"), JAPANESE) == "この主張に対照はない。"


def test_no_number_of_other_questions_is_shown_as_the_published_one(judged):
    """Claim 7 asks questions of other kinds, for which the paper's table has no row."""
    figures = claim_figures(judged, PLAN)
    silent = [f"claim_{claim.number:02}.png" for claim in PLAN.claims if not claim.differences]
    assert "claim_07.png" in silent and "claim_07.png" in figures
    for name in figures.keys() & set(silent):
        assert figures[name][0]["published"].isna().all(), name


def test_published_numbers():
    assert published_difference("NAT", "CoT KD", "weak") == pytest.approx(0.0152)
    assert published_difference("NAT", "NAT, empty branch", "weak") is None
    by_number = {claim.number: claim for claim in PLAN.claims}
    assert published(by_number[6]) == "not available to us"
    assert published(by_number[4]).endswith("about +75.75 % relative to Fine-tune")
    assert signed(0.0123, -0.003, 0.02745) == "+1.2 [−0.3, +2.7]"
    assert signed(-0.0001, 0, 0).startswith("+0.0 ")


def test_the_plan_in_words():
    text = plan_page(ROOT)
    for claim in PLAN.claims:
        assert f"**{claim.number}. {claim.says}**" in text
    assert "| 10_rivals | 300 | 4 | 1,200 | 4 | 700 | 8 |" in text
    changes = text.partition("## Changes since")[2]
    assert changes.count("\n- ") == len(PLAN.changes)
    assert changes.count("{dropdown}") == len({str(one["date"]) for one in PLAN.changes})
    elsewhere = text.partition("## On another task")[2].partition("## ")[0]
    assert all(of.label in elsewhere for several in PLAN.elsewhere.values() for of in several)
    left = re.findall(r"^- For claim (\d+): (.*)\.$", text.partition("## Still to run")[2], re.MULTILINE)
    for claim in PLAN.claims:
        asked = (*claim.decided_by, *claim.real, *claim.controls)
        lost = [of.label for of in asked if not is_there(ROOT / "book" / "executed", of)]
        assert dict(left).get(str(claim.number), "").split("; ") == (lost or [""])
