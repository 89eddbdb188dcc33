"""Greedy answers against a loop without cache or batches, and tables against counts by hand.

Covers evaluate and tables.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from negdistill import arithmetic, tables
from negdistill import evaluate as evaluate_module
from negdistill.batching import Example, format_prompt
from negdistill.evaluate import Follow, evaluate, predictions
from negdistill.methods import METHODS, fit, settings, training_set
from negdistill.nat import NATConfig, attach, detach, view
from negdistill.records import Problem
from negdistill.stats import bootstrap_accuracy, overlap, paired, wilson
from negdistill.tables import (
    accuracy_table,
    best_lr,
    blocks,
    curve,
    method_table,
    points,
    published_methods,
    published_solved,
    solved_table,
)
from negdistill.train import TrainConfig, train

TOKENIZER = arithmetic.tokenizer()
CONTEXT = 128


class Tiny(NamedTuple):
    model: torch.nn.Module
    tokenizer: object


def llama(seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
    )
    return Tiny(LlamaForCausalLM(config).double().eval(), TOKENIZER)


PROBLEMS = [
    replace(problem, level=place % 3) for place, problem in enumerate(arithmetic.generate("test", 8, 0))
]
ANSWERS = [
    *(f"That makes \\boxed{{{problem.answer}}}." for problem in PROBLEMS[:4]),
    "The answer is \\boxed{777}.",  # wrong
    f"The answer is {PROBLEMS[5].answer}.",  # right for the lenient rule only
    f"\\boxed{{{PROBLEMS[6].answer}}}\n\nProblem:\nThat makes \\boxed{{5}}",  # goes on to a next problem
    "There are 3 and 4",  # no answer at all
]


@pytest.fixture(scope="module")
def student():
    """A model that knows one answer to each problem by heart."""
    made = llama()
    examples = [
        Example(p.id, format_prompt(p.question), text) for p, text in zip(PROBLEMS, ANSWERS, strict=True)
    ]
    train(made.model, TOKENIZER, examples, TrainConfig(max_steps=120, lr=1e-2, batch_size=8, progress=False))
    return made


@torch.no_grad()
def loop(student, prompt, limit):
    """One prompt, one token at a time, the whole text again for each."""
    ids = TOKENIZER(prompt)["input_ids"]
    found = []
    while len(found) < limit and len(ids) + len(found) < CONTEXT:
        found.append(int(student.model(torch.tensor([ids + found])).logits[0, -1].argmax()))
        if found[-1] == TOKENIZER.eos_token_id:
            break
    return found


def text_of(ids):
    return TOKENIZER.decode(ids, skip_special_tokens=True)


# --- answers ------------------------------------------------------------------------------------------


def test_known_answers_are_given_and_graded(student):
    frame = evaluate(student, PROBLEMS)
    assert list(frame.columns) == ["problem_id", "subject", "level", "text", "answer", "correct"]
    assert frame["problem_id"].tolist() == [p.id for p in PROBLEMS]
    assert frame["subject"].tolist() == [p.subject for p in PROBLEMS]
    assert frame["level"].tolist() == [p.level for p in PROBLEMS]
    wanted = [text.partition("\n\n")[0] for text in ANSWERS]
    assert frame["text"].tolist() == wanted
    assert frame["correct"].tolist() == [True] * 4 + [False, False, True, False]
    assert frame["answer"].tolist() == [
        *(p.answer for p in PROBLEMS[:4]),
        *("777", None, PROBLEMS[6].answer, None),
    ]


def test_rules_are_those_of_grade(student):
    frame = evaluate(student, PROBLEMS, extract="lenient")
    assert frame["correct"].tolist() == [True] * 4 + [False, True, True, False]
    assert frame["answer"].tolist()[7] == "4"
    with pytest.raises(ValueError, match="extract must be one of boxed, lenient; got 'box'"):
        evaluate(student, PROBLEMS, extract="box")


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_equal_the_loop(batch_size, monkeypatch):
    """An untrained model, whose answers are long and never the same."""
    student = llama(seed=1)
    for parameter in student.model.parameters():
        parameter.data *= 10 if parameter.ndim > 1 else 1
    monkeypatch.setattr(evaluate_module, "FIRST_ROUND", 3)  # several rounds
    frame = evaluate(student, PROBLEMS, batch_size=batch_size, max_new_tokens=20)
    expected = [loop(student, format_prompt(p.question), 20) for p in PROBLEMS]
    assert frame["text"].tolist() == [text_of(ids).rstrip() for ids in expected]
    assert len({tuple(ids) for ids in expected}) == len(PROBLEMS)
    assert frame.attrs["tokens"] == sum(map(len, expected))
    assert frame.attrs["prompt_tokens"] == sum(
        len(TOKENIZER(format_prompt(p.question))["input_ids"]) for p in PROBLEMS
    )
    assert frame.attrs["seconds"] > 0


def test_rows_end_at_their_own_end_of_text(student, monkeypatch):
    frame = evaluate(student, PROBLEMS, max_new_tokens=60)
    expected = [loop(student, format_prompt(p.question), 60) for p in PROBLEMS]
    assert all(ids[-1] == TOKENIZER.eos_token_id for ids in expected)
    assert len(set(map(len, expected))) > 2
    assert frame.attrs["tokens"] == sum(map(len, expected))
    monkeypatch.setattr(evaluate_module, "FIRST_ROUND", 2)
    pd.testing.assert_frame_equal(evaluate(student, PROBLEMS, max_new_tokens=60), frame)


def test_the_order_of_problems_is_kept(student):
    order = [5, 2, 7, 0, 6, 1, 4, 3]
    frame = evaluate(student, PROBLEMS).iloc[order].reset_index(drop=True)
    shuffled = evaluate(student, [PROBLEMS[i] for i in order], batch_size=3)
    pd.testing.assert_frame_equal(frame, shuffled)


def test_an_answer_may_be_cut_by_its_limit_and_by_the_context(student):
    frame = evaluate(student, PROBLEMS, max_new_tokens=2)
    assert frame.attrs["tokens"] == 2 * len(PROBLEMS) and not frame["correct"].any()
    rest = len(TOKENIZER(format_prompt(""))["input_ids"])
    long = replace(PROBLEMS[0], question="3" * (CONTEXT - 3 - rest))
    length = len(TOKENIZER(format_prompt(long.question))["input_ids"])
    assert length == CONTEXT - 3
    alone = evaluate(student, [long])
    assert 0 < alone.attrs["tokens"] <= 3
    both = evaluate(student, [PROBLEMS[4], long])  # a long neighbour shortens no answer
    assert both["text"].tolist() == [ANSWERS[4], alone["text"].item()]


def test_the_models_own_sampling_habits_are_ignored_and_kept(student):
    plain = evaluate(student, PROBLEMS)
    own = student.model.generation_config
    own.do_sample, own.temperature, own.repetition_penalty = True, 5.0, 9.0
    try:
        pd.testing.assert_frame_equal(evaluate(student, PROBLEMS), plain)
        assert student.model.generation_config is own and own.temperature == 5.0
    finally:
        own.do_sample, own.temperature, own.repetition_penalty = False, 1.0, 1.0


def test_the_mode_of_the_model_is_kept(student):
    student.model.train()
    evaluate(student, PROBLEMS[:1], max_new_tokens=1)
    assert student.model.training
    student.model.eval()
    evaluate(student, PROBLEMS[:1], max_new_tokens=1)
    assert not student.model.training


def test_a_prefix_stands_before_every_prompt(student):
    prefix = "Problem:\n3 + 4\nSolution:\n7\n\n"
    frame = evaluate(student, PROBLEMS[:3], prefix=prefix, max_new_tokens=9)
    texts = [text_of(loop(student, prefix + format_prompt(p.question), 9)) for p in PROBLEMS[:3]]
    assert frame["text"].tolist() == [text.partition("\nProblem:")[0].rstrip() for text in texts]


def test_views_of_nat(student):
    plain = evaluate(student, PROBLEMS)
    attach(student.model, NATConfig(unit_dim=4))
    try:
        with pytest.raises(ValueError, match="the view 'nat' was never trained"):
            evaluate(student, PROBLEMS)
        with pytest.raises(ValueError, match="the view 'pos' was never trained"):
            evaluate(student, PROBLEMS, view="pos")
        with pytest.raises(ValueError, match="view must be one of base, pos, neg, nat; got 'net'"):
            evaluate(student, PROBLEMS, view="net")
        pd.testing.assert_frame_equal(evaluate(student, PROBLEMS, view="base"), plain)
        for layer in student.model.modules():
            if hasattr(layer, "value_out"):
                torch.nn.init.normal_(layer.value_out.weight)
        with view(student.model, "base"):  # the argument decides, not the view that holds
            changed = evaluate(student, PROBLEMS, max_new_tokens=9)
        assert changed["text"].tolist() != [text[:9] for text in plain["text"]]
        texts = [text_of(loop(student, format_prompt(p.question), 9)) for p in PROBLEMS]
        assert changed["text"].tolist() == [text.partition("\nProblem:")[0].rstrip() for text in texts]
    finally:
        detach(student.model)
    with pytest.raises(ValueError, match="the model carries no NAT"):
        evaluate(student, PROBLEMS, view="nat")


def test_bad_calls_are_refused(student):
    with pytest.raises(ValueError, match="problems must not be empty"):
        evaluate(student, [])
    for name in ("batch_size", "max_new_tokens"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
            evaluate(student, PROBLEMS, **{name: 0})
    long = replace(PROBLEMS[0], id="long", question="3" * 200)
    with pytest.raises(
        ValueError, match=r"problem 'long': the question takes \d+ tokens .* the context holds 128"
    ):
        evaluate(student, [PROBLEMS[1], long])
    with pytest.raises(ValueError, match="preset must be one of fixed, faithful; got 'x'"):
        evaluate(student, PROBLEMS, preset="x")


# --- fits ---------------------------------------------------------------------------------------------

DATA_PROBLEMS = arithmetic.generate("train", 6, seed=0)
CONFIG = settings(epochs=2, batch_size=8, progress=False, shots=1, unit_dim=4)


@pytest.fixture(scope="module")
def data():
    return training_set(DATA_PROBLEMS, arithmetic.teach(DATA_PROBLEMS, n=4))


def test_predictions_of_fits_and_along_a_path(student, data, tmp_path):
    follow = Follow({"valid": PROBLEMS[:3], "test": PROBLEMS}, options={"max_new_tokens": 6})
    fits = [
        fit(name, student, data, CONFIG, tmp_path, on_epoch=follow) for name in ("CoT KD", "NAT", "Few-shot")
    ]
    frame = predictions(student, fits, PROBLEMS, max_new_tokens=6)
    assert frame.groupby("method", sort=False).size().to_dict() == {"CoT KD": 8, "NAT": 8, "Few-shot": 8}
    for one in fits:
        part = frame[frame["method"] == one.method]
        for name, value in one.columns().items():
            assert set(part[name]) == {value}
        if one.method == "Few-shot":
            expected = evaluate(student, PROBLEMS, max_new_tokens=6, prefix=one.prefix)
            assert part["text"].tolist() == expected["text"].tolist()
            assert one.path is None
            continue
        assert one.path.groupby(["epoch", "split"]).size().to_dict() == {
            (1, "test"): 8,
            (1, "valid"): 3,
            (2, "test"): 8,
            (2, "valid"): 3,
        }
        last = one.path[(one.path["epoch"] == 2) & (one.path["split"] == "test")]
        assert last["correct"].tolist() == part["correct"].tolist()
        assert last["level"].tolist() == part["level"].tolist()
        assert set(last["steps"]) == {one.total_steps}


def test_follow_waits_and_has_a_key(student):
    follow = Follow({"valid": PROBLEMS[:2]}, every=3, options={"max_new_tokens": 1})
    assert [follow(student, epoch) is None for epoch in (1, 2, 3, 4, 6)] == [True, True, False, True, False]
    assert list(follow(student, 3).columns) == ["problem_id", "subject", "level", "correct", "split"]
    same = Follow({"valid": list(PROBLEMS[:2])}, every=3, options={"max_new_tokens": 1})
    others = [replace(same, every=2), replace(same, options={}), replace(same, sets={"valid": PROBLEMS[:1]})]
    assert follow.key == same.key and len({follow.key, *(other.key for other in others)}) == 4
    with pytest.raises(ValueError, match="every must be at least 1; got 0"):
        Follow({}, every=0)


# --- tables -------------------------------------------------------------------------------------------


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


def test_method_table():
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
    with pytest.raises(ValueError, match="baseline must be one of NAT; got 'CoT KD'"):
        method_table(frames["NAT"])


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
    with pytest.raises(ValueError, match="b must be one of CoT KD; got 'Negative adapter'"):
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


# --- fair budgets -------------------------------------------------------------------------------------


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


def test_blocks_by_hand():
    made = blocks(PATH, steps=20, tokens=300)
    assert list(made) == ["equal steps", "equal tokens", "best point"]
    runs = list(ROWS)
    # steps 20: CoT KD has it, NAT is as near with 15 as with 25 and takes the earlier
    assert right(made["equal steps"]) == dict(zip(runs, [2, 3, 1, 2], strict=True))
    # tokens 300: CoT KD has it in epoch 3, NAT is nearest with 260
    assert right(made["equal tokens"]) == dict(zip(runs, [4, 2, 1, 2], strict=True))
    # best of valid, the earlier where equal
    assert right(made["best point"]) == dict(zip(runs, [2, 2, 3, 2], strict=True))
    for frame in made.values():
        assert set(frame["split"]) == {"test"} and len(frame) == 16
        table = method_table(frame)
        assert table.index.tolist() == ["CoT KD", "NAT"]
    assert method_table(made["equal steps"])["steps"].tolist() == [20, 15]
    assert method_table(made["best point"])["steps"].tolist() == [25, 20]


def test_best_learning_rate():
    other = pd.concat(
        [path_of("CoT KD", 0, 0.2, [(1, 10, 100, 4, 0)]), path_of("NAT", 0, 0.2, [(1, 10, 100, 4, 0)])]
    )
    both = pd.concat([PATH, other])
    # 0.1: best on valid 3, 4, 4, 2 of 4; 0.2: 4, 4
    assert best_lr(both) == 0.2 and best_lr(both, split="test") == 0.1
    with pytest.raises(
        ValueError, match=r"path must hold one learning rate per run; select one with path\[path.lr"
    ):
        blocks(both, 10, 100)
    assert blocks(both[both["lr"] == 0.1], 10, 100).keys() == blocks(PATH, 10, 100).keys()


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
    with pytest.raises(ValueError, match="valid must be one of valid, test; got 'dev'"):
        blocks(PATH, 1, 1, valid="dev")
    with pytest.raises(ValueError, match="split must be one of valid, test; got 'dev'"):
        curve(PATH, "dev")
    with pytest.raises(ValueError, match="split must be one of valid, test; got 'dev'"):
        best_lr(PATH, "dev")


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


def test_problems_may_lack_subject_and_level(student):
    bare = [Problem("1", "3 + 4", "7", "7", "", None, "svamp")]
    frame = evaluate(student, bare, max_new_tokens=2)
    assert frame["level"].isna().all() and accuracy_table(frame, "level")["questions"].tolist() == [1]
