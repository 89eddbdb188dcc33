"""Tables against counts by hand, the best point of a path, and the published numbers against themselves."""

import importlib
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from negdistill.bookmaking import tables
from negdistill.bookmaking.tables import (
    accuracy_table,
    best_point,
    best_rates,
    curve,
    end_point,
    method_table,
    percent,
    percents,
    points,
    published_methods,
    published_solved,
    rate_grid,
    solved_table,
)
from negdistill.stats import bootstrap_accuracy, overlap, paired, wilson
from negdistill.training.method_table import METHODS, find_method


def frame_of(method, rows, subjects="aabbb", **columns):
    """Predictions of one method: one string of 0 and 1 per seed."""
    parts = [
        pd.DataFrame(
            {
                "problem_id": [f"q{q}" for q in range(len(row))],
                "subject": list(subjects),
                "correct": [value == "1" for value in row],
                "seed": seed,
            }
        )
        for seed, row in enumerate(rows)
    ]
    return pd.concat(parts).assign(method=method, **columns)


def test_accuracy_table_by_hand():
    frame = pd.concat([frame_of("NAT", ["11100", "10000"]), frame_of("CoT KD", ["00001", "00001"])])
    table = accuracy_table(frame, "subject")
    rows = [
        ("CoT KD", "a", 2, 0.0, *wilson(0, 2)),
        ("CoT KD", "b", 3, 1 / 3, *wilson(1, 3)),
        ("NAT", "a", 2, 0.75, *wilson(1.5, 2)),
        ("NAT", "b", 3, 1 / 6, *wilson(0.5, 3)),
    ]
    columns = ["method", "subject", "questions", "accuracy", "low", "high"]
    pd.testing.assert_frame_equal(table, pd.DataFrame(rows, columns=columns))
    alone = accuracy_table(frame_of("NAT", ["11100"]).drop(columns="method"), "subject")
    assert alone["accuracy"].tolist() == [1.0, 1 / 3]
    with pytest.raises(ValueError, match="by must be one of .*; got 'topic'"):
        accuracy_table(frame, "topic")


def test_groups_without_a_value_are_a_row_of_their_own():
    frame = frame_of("NAT", ["110"], "abb").assign(level=[1.0, None, None])
    assert accuracy_table(frame, "level")["questions"].tolist() == [1, 2]


OWN = """from negdistill.training.method_table import Method

Mine = Method("Mine", "own", "both", "lora", "from outside")
"""


def test_method_table(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    names = ["Mine", "Merge", "CoT KD", "NAT"]
    frames = {
        name: frame_of(
            name,
            ["".join(rng.choice(["0", "1"], 5)) for _ in range(2)],
            steps=place * 10,
            tokens=7,
            trainable_parameters=place,
        ).assign(seconds=lambda f: f["seed"] + 1.0)
        for place, name in enumerate(names)
    }
    table = method_table(pd.concat(frames.values()))
    assert table.index.tolist() == ["CoT KD", "NAT", "Merge", "Mine"]
    assert table["origin"].tolist() == ["paper", "paper", "control", ""]
    for name, row in table.iterrows():
        assert tuple(row[["accuracy", "low", "high"]]) == bootstrap_accuracy(frames[name])
        assert row["seeds"] == 2 and row["seconds"] == 1.5 and row["steps"] == 10 * names.index(name)
        if name != "CoT KD":
            found = tuple(row[["difference", "difference_low", "difference_high", "p"]])
            assert found == paired(frames[name], frames["CoT KD"])
    assert table.loc["CoT KD", ["difference", "difference_low", "difference_high", "p"]].isna().all()
    assert list(table.columns)[-4:] == ["trainable_parameters", "steps", "tokens", "seconds"]
    other = method_table(pd.concat(frames.values()), baseline="NAT")
    assert other["p"].isna().tolist() == [False, True, False, False]
    (tmp_path / "own_table.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    both = pd.concat([frames["CoT KD"], frames["Mine"].assign(method="own_table:Mine")])
    assert method_table(both)["origin"]["own_table:Mine"] == "" and "own_table" not in sys.modules
    importlib.import_module("own_table")  # as fitting it does; a table alone imports nothing
    assert method_table(both)["origin"].to_dict() == {"CoT KD": "paper", "own_table:Mine": "own"}
    with pytest.raises(ValueError, match="baseline must be one of 'NAT'; got 'CoT KD'"):
        method_table(frames["NAT"])


def test_methods_are_compared_on_the_seeds_that_both_have():
    one, other = frame_of("CoT KD", ["11000", "00000"]), frame_of("NAT", ["11110", "00000", "11111"])
    fewer = method_table(pd.concat([one, other]), "CoT KD").loc["NAT"]
    same = method_table(pd.concat([one, other[other["seed"] < 2]]), "CoT KD").loc["NAT"]
    assert fewer["seeds"] == 3 and fewer["difference"] == same["difference"] == 0.2
    assert fewer["accuracy"] == 0.6 and same["accuracy"] == 0.4


def test_solved_table_by_hand():
    one, other = frame_of("CoT KD", ["11100", "11000"]), frame_of("Negative adapter", ["10101", "01000"])
    table = solved_table(pd.concat([one, other]))
    # seed 0: {0, 1, 2} and {0, 2, 4}; seed 1: {0, 1} and {1}
    assert table.index.tolist() == ["a", "b", "all"]
    assert table["CoT KD"].tolist() == [2.0, 0.5, 2.5]
    assert table["Negative adapter"].tolist() == [1.0, 1.0, 2.0]
    assert table["both"].tolist() == pytest.approx([1.0, 0.5, 1.5])
    assert table["iou"].tolist() == pytest.approx([2 / 4, 1 / 2, 3 / 6])
    assert tuple(table.loc["all", ["iou", "low", "high"]]) == overlap(one, other)
    assert table["questions"].tolist() == [2, 3, 5]
    # independent in "all": 2.5 of 5 and 2 of 5 meet in 1
    assert table.loc["all", "chance"] == pytest.approx(1 / 3.5)
    with pytest.raises(ValueError, match="b must be one of 'CoT KD'; got 'Negative adapter'"):
        solved_table(one)
    with pytest.raises(ValueError, match="by must be one of .*; got 'topic'"):
        solved_table(pd.concat([one, other]), by="topic")


def test_chance_is_what_independent_methods_have():
    rng = np.random.default_rng(1)
    n = 3000
    rows = {name: "".join(rng.choice(["0", "1"], n, p=[1 - p, p])) for name, p in (("NAT", 0.3), ("UL", 0.6))}
    frame = pd.concat(frame_of(name, [row], "a" * n) for name, row in rows.items())
    table = solved_table(frame, "NAT", "UL")
    assert table.loc["all", "iou"] == pytest.approx(table.loc["all", "chance"], abs=0.03)


def test_percent_is_value_and_interval():
    assert percent(0.1234, 0.1, 1) == "12.3 [10.0, 100.0]"
    assert percent(-0.0004, -0.051, 0.0) == "0.0 [-5.1, 0.0]"  # not -0.0
    assert percent(float("nan"), float("nan"), float("nan")) == ""
    table = method_table(pd.concat([frame_of("CoT KD", ["11100"]), frame_of("NAT", ["11100"])]))
    shown = percents(table, "difference", "difference_low", "difference_high")
    most = 100 * wilson(0, 5)[1]
    assert shown.to_dict() == {"CoT KD": "", "NAT": f"0.0 [-{most:.1f}, {most:.1f}]"}
    names = table.rename(columns={"accuracy": "iou"}).astype(object)
    assert percents(names, "iou")["NAT"] == percent(*bootstrap_accuracy(frame_of("NAT", ["11100"])))


# --- paths of training --------------------------------------------------------------------------------


def path_of(method, seed, lr, rows):
    """A path from rows (epoch, steps, tokens, right of 4 valid, right of 4 test)."""
    frames = []
    for epoch, steps, tokens, *right in rows:
        for split, count in zip(("valid", "test"), right, strict=True):
            frames.append(
                pd.DataFrame(
                    {
                        "problem_id": [f"{split}{i}" for i in range(4)],
                        "split": split,
                        "correct": [i < count for i in range(4)],
                    }
                ).assign(epoch=epoch, steps=steps, tokens=tokens, seconds=1.0, trainable_parameters=5)
            )
    return pd.concat(frames).assign(method=method, seed=seed, lr=lr)


ROWS = {
    ("CoT KD", 0): [(1, 10, 100, 1, 0), (2, 20, 200, 3, 2), (3, 30, 300, 3, 4)],
    ("CoT KD", 1): [(1, 10, 100, 2, 1), (2, 20, 200, 1, 3), (3, 30, 300, 4, 2)],
    ("NAT", 0): [(1, 15, 260, 0, 1), (2, 25, 360, 4, 3), (3, 35, 460, 2, 2)],
    ("NAT", 1): [(1, 15, 260, 2, 2), (2, 25, 360, 2, 4), (3, 35, 460, 1, 3)],
}
PATH = pd.concat(path_of(*run, 0.1, rows) for run, rows in ROWS.items())


def right(frame):
    return frame.groupby(["method", "seed"])["correct"].sum().to_dict()


def test_points_is_a_row_per_checkpoint():
    table = points(PATH.sample(frac=1, random_state=0))
    found = {
        (row.method, row.seed): [
            (r.epoch, r.steps, r.tokens, int(4 * r.valid), int(4 * r.test)) for r in part.itertuples()
        ]
        for (_, _), part in table.groupby(["method", "seed"])
        for row in part.iloc[:1].itertuples()
    }
    assert found == ROWS


def test_best_point_by_hand():
    found = best_point(PATH.sample(frac=1, random_state=0))
    # best of valid, the earlier where equal
    assert right(found) == dict(zip(ROWS, [2, 2, 3, 2], strict=True))
    assert set(found["split"]) == {"test"} and len(found) == 16
    table = method_table(found)
    assert table.index.tolist() == ["CoT KD", "NAT"] and table["steps"].tolist() == [25, 20]
    assert right(best_point(PATH, valid="test", test="valid"))["CoT KD", 0] == 3


def test_best_learning_rate():
    other = pd.concat(
        [path_of("CoT KD", 0, 0.2, [(1, 10, 100, 4, 0)]), path_of("NAT", 0, 0.2, [(1, 10, 100, 4, 0)])]
    )
    both = pd.concat([PATH, other])
    # CoT KD 0.1: best on valid 3 and 4 of 4, 0.2: 4; NAT 0.1: 4 and 2, 0.2: 4
    assert best_rates(both).to_dict() == {"CoT KD": 0.2, "NAT": 0.2}
    assert best_rates(both, split="test").to_dict() == {"CoT KD": 0.1, "NAT": 0.1}
    assert best_rates(pd.concat([other, other.assign(lr=0.3)])).to_dict() == {"CoT KD": 0.2, "NAT": 0.2}
    with pytest.raises(
        ValueError, match=r"path must hold one learning rate per run; select one with path\[path.lr"
    ):
        best_point(both)
    assert right(best_point(both[both["lr"] == 0.1])) == right(best_point(PATH))


@pytest.mark.parametrize(
    ("name", "tries", "factors"),
    [
        ("MIX", 1, [1]),
        ("MIX", 3, [0.5, 1, 2]),
        ("MIX", 4, [0.5, 1, 2, 4]),
        ("MIX", 7, [0.125, 0.25, 0.5, 1, 2, 4, 8]),
        ("DPO", 2, [0.03, 0.1]),
        ("DPO", 5, [0.01 / 3, 0.01, 0.03, 0.1, 1 / 3]),
    ],
)
def test_a_grid_goes_on_beyond_its_ends_as_its_rates_do(name, tries, factors):
    rates = rate_grid(find_method(name), 0.002, tries)
    assert rates == pytest.approx([0.002 * factor for factor in factors], abs=1e-9)


def test_a_row_with_one_rate_has_a_grid_around_it():
    alone = replace(find_method("MIX"), rates=(3.0,))
    assert rate_grid(alone, 0.002, 1) == [0.006]
    assert rate_grid(alone, 0.002, 4) == pytest.approx([0.003, 0.006, 0.012, 0.024])


def test_a_grid_has_a_whole_number_of_tries_and_one_at_least():
    with pytest.raises(ValueError, match="tries must be at least 1; got 0"):
        rate_grid(find_method("DPO"), 0.002, 0)
    with pytest.raises(TypeError, match="tries must be a whole number; got 2.5"):
        rate_grid(find_method("DPO"), 0.002, 2.5)


def test_the_end_of_a_path_is_its_last_checkpoint_of_every_run():
    found = end_point(PATH)
    last = PATH[PATH["split"] == "test"].groupby(["method", "seed"])["epoch"].max()
    assert found.groupby(["method", "seed"])["epoch"].unique().map(list).to_dict() == {
        key: [epoch] for key, epoch in last.items()
    }
    with pytest.raises(ValueError, match="test must be one of 'valid', 'test'; got 'dev'"):
        end_point(PATH, "dev")


def test_curve_is_accuracy_against_training():
    table = curve(PATH)
    assert table["method"].tolist() == ["CoT KD"] * 3 + ["NAT"] * 3
    assert table["steps"].tolist() == [10, 20, 30, 15, 25, 35]
    assert table["accuracy"].tolist() == pytest.approx([1 / 8, 5 / 8, 6 / 8, 3 / 8, 7 / 8, 5 / 8])
    part = PATH[(PATH["method"] == "NAT") & (PATH["epoch"] == 2) & (PATH["split"] == "test")]
    assert tuple(table.loc[4, ["accuracy", "low", "high"]]) == bootstrap_accuracy(part)


def test_bad_paths_are_refused():
    with pytest.raises(
        ValueError, match=r"path must come from fits with on_epoch=Follow\(...\); .* lack lr, epoch, sp"
    ):
        points(frame_of("NAT", ["11100"]))
    with pytest.raises(ValueError, match="valid must be one of 'valid', 'test'; got 'dev'"):
        best_point(PATH, valid="dev")
    with pytest.raises(ValueError, match="split must be one of 'valid', 'test'; got 'dev'"):
        curve(PATH, "dev")
    with pytest.raises(ValueError, match="split must be one of 'valid', 'test'; got 'dev'"):
        best_rates(PATH, "dev")


# --- published ----------------------------------------------------------------------------------------


def test_published_methods_agree_with_themselves():
    """Subjects weighted by size give the printed average, except in the row that the paper misprints."""
    table = published_methods()
    assert set(table["source"]) == {"published"} and set(table["method"]) <= set(METHODS)
    sizes = pd.Series(tables.SUBJECTS)
    assert sizes.sum() == 5000
    whole = table.dropna(subset=list(sizes.index))
    means = (whole[sizes.index] * sizes).sum(axis=1) / 5000
    off = whole[(means - whole["accuracy"]).abs() > 5e-4]
    assert len(whole) == 15 and off[["teacher", "method"]].to_numpy().tolist() == [["GPT-3.5", "NT"]]
    nat = table[table["method"] == "NAT"].set_index("teacher")
    assert nat["accuracy"].to_dict() == pytest.approx({"GPT-3.5": 0.0681, "GPT-4": 0.0683})
    gain = nat["accuracy"].mean() / table[table["method"] == "Fine-tune"]["accuracy"].iloc[-1] - 1
    assert gain == pytest.approx(0.7575, abs=5e-4)  # as the paper's readers quote it
    assert (table["low"] < table["accuracy"]).all() and (table["accuracy"] < table["high"]).all()


def test_published_overlaps_agree_with_their_counts():
    table = published_solved()
    counts = table[["CoT KD", "Negative adapter", "both"]]
    assert counts.drop(index="all").sum().tolist() == counts.loc["all"].tolist()
    iou = table["both"] / (table["CoT KD"] + table["Negative adapter"] - table["both"])
    off = table.index[(iou - table["iou"]).abs() > 6e-4]
    assert off.tolist() == ["Algebra"] and iou["Algebra"] == pytest.approx(0.092, abs=5e-4)
    assert set(table["source"]) == {"published"}
