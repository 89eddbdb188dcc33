import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from negdistill.data.records import Problem, Rationale
from negdistill.inference import ranker_fit
from negdistill.inference.ranker import LOSSES, PAIRED, score
from negdistill.inference.ranker_fit import HEAD, fit_ranker, load_ranker, loaded
from negdistill.inference.ranker_report import calibration, judge, report
from negdistill.method.nat_unit import NATConfig
from negdistill.runs.digests import digest_tree
from negdistill.stats import wilson
from negdistill.training.batching import real_text_tokenizer
from negdistill.training.checkpoint import CHECKPOINT
from negdistill.training.dataset import TrainingSet, with_negatives
from negdistill.training.fit import fit
from negdistill.training.loop import TrainConfig
from negdistill.training.settings import Settings
from negdistill.training.students import Student

ROOT = Path(__file__).parents[2]
TOKENIZER = real_text_tokenizer(["Problem:\nSolution:\n0123456789+="] * 4, vocab_size=270)
SIZE = dict(vocab_size=270, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
NAT = NATConfig(r=4, lora_alpha=8, dropout=0.1, unit_dim=8)


def make_student(seed: int = 0, width: int = 16) -> Student:
    torch.manual_seed(seed)
    config = LlamaConfig(**SIZE | dict(hidden_size=width), max_position_embeddings=96, initializer_range=0.2)
    return Student(LlamaForCausalLM(config).eval(), TOKENIZER)


def config(**changes) -> Settings:
    options = dict(max_steps=60, batch_size=8, lr=0.02, progress=False) | changes
    return Settings(nat=NAT, train=TrainConfig(**options))


def make_data(first: int = 0, n: int = 24, prefix: str = "q") -> TrainingSet:
    """Wrong rationales hold a 9."""
    problems = tuple(
        Problem(f"{prefix}{i}", f"{i}+1", str(i % 5), "", "", None, "") for i in range(first, first + n)
    )
    sides = [
        tuple(Rationale(p.id, k, f"{mark}{k}={p.answer}", "t") for p in problems for k in range(2))
        for mark in ("1", "9")
    ]
    return TrainingSet(problems, *sides)


DATA, VALID = make_data(), make_data(50, 8)


pytestmark = pytest.mark.usefixtures("one_thread")


# --- fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns_what_is_there_to_learn(loss, tmp_path):
    student = make_student()
    before = {name: p.clone() for name, p in student.model.named_parameters()}
    made = fit_ranker(student, DATA, VALID, config(), tmp_path, loss)
    table = report(made.valid)
    assert table.value["AUROC"] > 0.95 and table.value["pairwise"] > 0.95
    if loss != "pairwise":  # its zero has no meaning
        assert table.value["accuracy"] > 0.9
    assert made.loss == loss and len(made.history) == 60
    assert made.history.loss.tail(5).mean() < made.history.loss.head(5).mean() / 2
    rows = 48 / (2 if loss in PAIRED else 1)
    assert made.history.epoch.max() == np.ceil(60 / np.ceil(2 * rows / 8))
    assert sorted(made.valid.columns) == ["index", "positive", "problem_id", "score", "teacher"]
    assert made.trainable_parameters == 2 * 2 * 2 * 4 * 16 + 17
    after = dict(student.model.named_parameters())
    assert after.keys() == before.keys() and all(torch.equal(after[name], p) for name, p in before.items())


def test_what_was_saved_scores_as_what_was_trained(tmp_path):
    student = make_student()
    made = fit_ranker(student, DATA, VALID, config(), tmp_path)
    with loaded(student, made) as ranker:
        again = judge(ranker, VALID, progress=False)
        kept = made.valid[again.columns]
        pd.testing.assert_frame_equal(again, kept, check_exact=False, rtol=0, atol=1e-12)
        assert score(ranker, VALID.problems, VALID.positives, progress=False).min() > 0
    files = digest_tree(made.folder)
    assert {"adapter/adapter_model.safetensors", f"adapter/{HEAD}", "history.csv", "valid.jsonl"} <= set(
        files
    )
    assert CHECKPOINT not in files
    assert load_file(made.folder / "adapter" / HEAD)["weight"].shape == (1, 16)
    PeftModel.from_pretrained(student.model, made.folder / "adapter")  # the adapter is one of PEFT


def test_a_finished_ranker_is_not_trained_again(tmp_path):
    student = make_student()
    made = fit_ranker(student, DATA, VALID, config(max_steps=3), tmp_path)
    stamp = (made.folder / "fit.json").stat().st_mtime_ns
    again = fit_ranker(student, DATA, VALID, config(max_steps=3, checkpoint_every=2), tmp_path)
    assert again.folder == made.folder and (made.folder / "fit.json").stat().st_mtime_ns == stamp
    pd.testing.assert_frame_equal(again.valid, made.valid)
    others = [
        fit_ranker(student, DATA, VALID, config(max_steps=3, seed=1), tmp_path),
        fit_ranker(student, DATA, VALID, config(max_steps=3), tmp_path, "bce"),
        fit_ranker(student, DATA.take(20), VALID, config(max_steps=3), tmp_path),
        fit_ranker(student, DATA, VALID.take(7), config(max_steps=3), tmp_path),
        fit_ranker(make_student(1), DATA, VALID, config(max_steps=3), tmp_path),
    ]
    assert len({one.folder for one in (made, *others)}) == 6


def test_training_goes_on_from_a_row_of_the_table(tmp_path):
    student = make_student()
    row = fit("CoT KD", student, DATA, config(max_steps=20), tmp_path)
    fresh = fit_ranker(student, DATA, VALID, config(max_steps=2), tmp_path)
    begun = fit_ranker(student, DATA, VALID, config(max_steps=2), tmp_path, start=row)
    assert begun.folder != fresh.folder
    names = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    sizes = [
        load_file(folder / "adapter" / "adapter_model.safetensors")[names].norm()
        for folder in (row.folder, begun.folder, fresh.folder)
    ]
    assert sizes[2] < sizes[0] / 2 < sizes[1]
    with pytest.raises(ValueError, match="start must be a fit of a plain LoRA row; got one of 'NAT, "):
        unit = fit("NAT, empty branch", student, DATA, config(max_steps=2), tmp_path)
        fit_ranker(student, DATA, VALID, config(max_steps=2), tmp_path, start=unit)


def test_an_encoder_ranks(tmp_path):
    torch.manual_seed(0)
    model = BertModel(BertConfig(**SIZE, max_position_embeddings=96, initializer_range=0.2)).eval()
    settings = replace(config(), nat=replace(NAT, target_modules=("query", "value")))
    made = fit_ranker(Student(model, TOKENIZER), DATA, VALID, settings, tmp_path)
    assert report(made.valid).value["AUROC"] > 0.8


LONG = config(max_steps=120)


def test_killed_run_ends_with_the_same_files(tmp_path):
    command = [sys.executable, __file__, str(tmp_path / "killed")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and child.poll() is None:
        if list((tmp_path / "killed").glob(f"*/{CHECKPOINT}")):
            break
        time.sleep(0.02)
    ended = child.poll()
    child.kill()
    error = child.communicate()[1].decode()
    assert ended is None, error
    (folder,) = (tmp_path / "killed").iterdir()
    assert not (folder / "adapter").exists()

    student = make_student()
    resumed = fit_ranker(student, DATA, VALID, LONG, tmp_path / "killed", "cubic")
    whole = fit_ranker(student, DATA, VALID, LONG, tmp_path / "whole", "cubic")
    assert resumed.folder.name == whole.folder.name == folder.name
    for name in ("adapter/adapter_model.safetensors", f"adapter/{HEAD}", "valid.jsonl", "fit.json"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    steady = [name for name in whole.history if name != "seconds"]
    assert resumed.history[steady].equals(whole.history[steady])


def test_an_adapter_without_its_head_is_refused(tmp_path):
    student = make_student()
    made = fit_ranker(student, DATA, VALID, config(max_steps=2), tmp_path)
    with pytest.raises(ValueError, match="does not fit the student, whose width is 16"):
        head = made.folder / "adapter" / HEAD
        good = load_file(head)
        save_file({"weight": good["weight"][:, :8].contiguous(), "bias": good["bias"]}, head)
        with loaded(student, made):
            pass
    with pytest.raises(ValueError, match="is not as manifest.json recorded it"):
        load_ranker(made.folder)
    (made.folder / "adapter" / HEAD).unlink()
    with pytest.raises(
        ValueError, match="holds an adapter without its head, head.safetensors; train it again"
    ):
        load_ranker(made.folder)
    with pytest.raises(FileNotFoundError, match="no run in"):
        load_ranker(tmp_path / "nothing")
    assert not hasattr(student.model, "peft_config")


def test_bad_sets_are_refused(tmp_path):
    student = make_student()
    with pytest.raises(
        ValueError, match="loss must be one of 'mse', 'bce', 'pairwise', 'cubic'; got 'hinge'"
    ):
        fit_ranker(student, DATA, VALID, config(), tmp_path, "hinge")
    for valid in (make_data(23, 2), make_data(23, 1, "other")):  # the same id, the same text
        with pytest.raises(ValueError, match="valid must hold other questions than data; both hold '.*23'"):
            fit_ranker(student, DATA, valid, config(), tmp_path)
    with pytest.raises(ValueError, match="positives must not be empty"):
        fit_ranker(student, replace(DATA, positives=()), VALID, config(), tmp_path)
    for loss in PAIRED:
        with pytest.raises(ValueError, match=f"loss '{loss}' needs a question with a right and a wrong"):
            fit_ranker(student, with_negatives(DATA, "none"), VALID, config(), tmp_path, loss)
    assert not hasattr(student.model, "peft_config")


def test_rationales_without_a_text_are_left_out(tmp_path):
    empty = replace(DATA, negatives=(*DATA.negatives, Rationale("q0", 9, "", "t")))
    one, other = (
        fit_ranker(make_student(), data, VALID, config(max_steps=2), tmp_path) for data in (DATA, empty)
    )
    assert one.folder == other.folder


def test_validation_may_hold_one_label_only(tmp_path):
    for one in (replace(VALID, positives=()), replace(VALID, negatives=())):
        made = fit_ranker(make_student(), DATA, one, config(max_steps=1), tmp_path)
        assert len(made.valid) == 16 and report(made.valid).value["majority"] == 1


# --- controls -----------------------------------------------------------------------------------------


def test_controls_by_hand():
    assert with_negatives(DATA, "own") is DATA
    assert (
        with_negatives(DATA, "none").negatives == ()
        and with_negatives(DATA, "none").positives == DATA.positives
    )
    found = with_negatives(DATA, "random")
    assert found.positives == DATA.positives
    answers = {problem.id: problem.answer for problem in DATA.problems}
    texts = {one.text: answers[one.problem_id] for one in DATA.positives}
    for old, new in zip(DATA.negatives, found.negatives, strict=True):
        assert (old.problem_id, old.index) == (new.problem_id, new.index)
        assert texts[new.text] != answers[new.problem_id]
    assert len({one.text for one in found.negatives}) > 4
    assert found == with_negatives(DATA, "random") != with_negatives(DATA, "random", seed=1)
    with pytest.raises(ValueError, match="kind must be one of 'own', 'none', 'random'; got 'few'"):
        with_negatives(DATA, "few")
    with pytest.raises(ValueError, match="positives must include one with another answer than that of 'q0'"):
        with_negatives(DATA.take(1), "random")


# --- judge --------------------------------------------------------------------------------------------


def judged(questions: int = 30, seed: int = 0) -> pd.DataFrame:
    """Scores on a coarse grid, so that there are ties; some questions have one side only."""
    random = np.random.default_rng(seed)
    rows = [
        (
            f"q{q}",
            right := bool(random.random() < 0.3 + 0.01 * q),
            round(random.random() * 0.7 + 0.3 * right, 1),
        )
        for q in range(questions)
        for _ in range(1 + q % 4)
    ]
    return pd.DataFrame(rows, columns=["problem_id", "positive", "score"])


def wins(frame: pd.DataFrame) -> float | None:
    right, wrong = (frame[frame.positive == side].score.tolist() for side in (True, False))
    found = [(a > b) + (a == b) / 2 for a in right for b in wrong]
    return sum(found) / len(found) if found else None


def test_report_equals_the_definitions():
    frame = judged()
    table = report(frame)
    within = [value for _, part in frame.groupby("problem_id") if (value := wins(part)) is not None]
    assert table.value.to_dict() == pytest.approx(
        {
            "accuracy": ((frame.score > 0.5) == frame.positive).mean(),
            "majority": max(frame.positive.mean(), 1 - frame.positive.mean()),
            "AUROC": wins(frame),
            "pairwise": sum(within) / len(within),
        }
    )
    assert (table.low < table.value).all() and (table.value < table.high).all()
    pd.testing.assert_frame_equal(
        table, report(frame.sample(frac=1, random_state=0)).loc[table.index], rtol=0.2
    )


def test_report_resamples_whole_questions():
    frame = judged(60)
    doubled = pd.concat([frame] * 8)  # no new question, no narrower interval
    one, many = (report(part) for part in (frame, doubled))
    assert many.loc["accuracy"].tolist() == pytest.approx(one.loc["accuracy"].tolist())
    own = report(doubled.assign(problem_id=[str(i) for i in range(len(doubled))]))
    assert np.ptp(own.loc["AUROC", ["low", "high"]]) < np.ptp(many.loc["AUROC", ["low", "high"]]) / 2


def test_a_constant_score_is_worth_nothing():
    table = report(judged().assign(score=0.9))
    assert table.value["AUROC"] == table.value["pairwise"] == 0.5
    right = report(judged().assign(positive=True))
    assert right.loc["AUROC"].isna().all() and right.loc["pairwise"].isna().all()
    assert right.value["majority"] == 1


def test_calibration_by_hand():
    frame = pd.DataFrame({"problem_id": list("abcdef"), "positive": [0, 1, 1, 1, 0, 1]}).astype(
        {"positive": bool}
    )
    table = calibration(frame.assign(score=[0.0, 0.1, 0.55, 0.5, 0.9, 1.0]), bins=4)
    assert table["bin"].tolist() == [0, 2, 3] and table.rationales.tolist() == [2, 2, 2]
    assert table.score.tolist() == pytest.approx([0.05, 0.525, 0.95])
    assert table.share.tolist() == [0.5, 1, 0.5]
    assert (table.low[1], table.high[1]) == wilson(2, 2)
    with pytest.raises(ValueError, match="bins must be at least 1; got 0"):
        calibration(frame.assign(score=0.5), bins=0)


@pytest.mark.parametrize("call", [report, calibration])
def test_bad_frames_are_refused(call):
    with pytest.raises(
        ValueError, match="judged must be a frame with the columns .*; got 0 rows of problem_id"
    ):
        call(judged().head(0))
    with pytest.raises(ValueError, match="judged must be a frame .*; got 73 rows of problem_id, positive"):
        call(judged().drop(columns="score"))
    for wrong in (float("nan"), 1.5):
        with pytest.raises(ValueError, match=f"score must lie between 0 and 1; got {wrong} for "):
            call(judged().assign(score=wrong))


if __name__ == "__main__":  # what is killed above
    torch.set_num_threads(1)
    often = replace(LONG, train=replace(LONG.train, checkpoint_every=2))
    fit_ranker(make_student(), DATA, VALID, often, sys.argv[1], "cubic")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": "embedded"}, "student must be a Student, .*; got 'embedded', a str"),
        ({"data": []}, r"data must be a TrainingSet; got \[\], a list"),
        ({"valid": []}, r"valid must be a TrainingSet; got \[\], a list"),
        ({"config": NAT}, "config must be Settings, .*; got NATConfig"),
        ({"out_dir": 3}, "out_dir must be a path, .*; got 3, a int"),
        ({"start": 3}, r"start must be a Fit, as fit\(\) returns it; got 3, a int"),
    ],
)
def test_arguments_of_another_kind_are_refused(changes, message, tmp_path):
    sets = {"data": make_data(), "valid": make_data(30, 4, "v")}
    given = sets | {"student": make_student(), "config": config(), "out_dir": tmp_path}
    with pytest.raises(TypeError, match=message):
        fit_ranker(**given | changes)
    with pytest.raises(TypeError, match="fit must be a RankerFit, .*; got 'x', a str"):
        loaded(given["student"], "x").__enter__()


def test_several_processes_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(ranker_fit, "processes", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(ValueError, match="fit_ranker must run in one process; got 2"):
        fit_ranker(None, None, None, None, tmp_path)
