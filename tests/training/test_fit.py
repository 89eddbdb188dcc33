"""Every row on a tiny random student: what it trains, what it leaves, what it costs, and how it is resumed.

Covers rows, methods, recipes, adapters and fits.
"""

import json
import os
import re
import shutil
import sys
import threading
import time
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from launching import ACCELERATE, in_two_processes
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny import llama
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from negdistill.data import arithmetic, arithmetic_text
from negdistill.data.prompts import format_prompt
from negdistill.data.records import Problem, Rationale
from negdistill.data.tasks import load_task
from negdistill.method.nat import view
from negdistill.method.nat_unit import NATConfig
from negdistill.method.nce import BETA_MODES
from negdistill.method.objectives import NEEDS_REFERENCE, NEEDS_TEACHER, OBJECTIVES
from negdistill.runs import processes as processes_module
from negdistill.training import fit as methods
from negdistill.training.adapters import wide_rank
from negdistill.training.dataset import (
    TrainingSet,
    augmented,
    fewer_negatives,
    gains,
    mislabelled,
    taught,
    training_set,
)
from negdistill.training.fit import adapted, fit
from negdistill.training.fits import load_fit
from negdistill.training.loop import train
from negdistill.training.method_table import METHODS
from negdistill.training.settings import SETTINGS, settings
from negdistill.training.students import Student

TOKENIZER = arithmetic_text.tokenizer()
EPOCHS, BATCH = 2, 8
CONFIG = settings(epochs=EPOCHS, batch_size=BATCH, progress=False, shots=2, unit_dim=4, seed=3)
TRAINED = [name for name, row in METHODS.items() if row.data]


def make_data(n=6):
    problems = arithmetic.generate("train", n, seed=0)
    return training_set(problems, arithmetic.teach(problems, n=4))


@pytest.fixture(scope="module")
def data():
    return make_data()


@pytest.fixture(scope="module")
def student():
    return llama()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("fits")


@pytest.fixture(scope="module")
def fits(student, data, root):
    return {name: fit(name, student, data, CONFIG, root) for name in METHODS}


@torch.no_grad()
def logits(model):
    ids = torch.arange(3, 43).view(2, 20)
    return model(ids, attention_mask=torch.ones_like(ids)).logits


def weights(one):
    return load_file(one.folder / "adapter/adapter_model.safetensors")


def deltas(one):
    """s B A of each module of a PEFT folder, from its files alone."""
    config = json.loads((one.folder / "adapter/adapter_config.json").read_text())
    tensors = weights(one)
    names = {key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")}
    scale = config["lora_alpha"] / config["r"]
    return {n: scale * tensors[f"{n}.lora_B.weight"] @ tensors[f"{n}.lora_A.weight"] for n in sorted(names)}


# --- the table ----------------------------------------------------------------------------------------


def test_the_table_has_the_papers_rows_and_the_controls():
    origins = {name: row.origin for name, row in METHODS.items()}
    paper = ["Few-shot", "Fine-tune", "CoT KD", "MIX", "CL", "NT", "UL", "NAT", "Negative adapter"]
    paper += ["KD", "NCE"]
    controls = ["CoT KD, NAT's size", "NAT, empty branch", "NAT, random branch", "NAT, positive branch"]
    controls += ["Negatives first", "Merge", "NCE, mean beta", "NCE, shuffled beta", "NCE, inverse beta"]
    controls += ["CoT KD, continued"]
    rivals = ["Answers only", "Label prefix", "Label prefix, swapped", "Label prefix, letters"]
    rivals += ["DPO", "DPO, small beta", "DPO + NLL", "KTO", "KTO, no z0", "REDI", "REDI, alpha 0"]
    rivals += ["REDI, alpha 1", "W-REINFORCE", "NSR", "TOPR", "GLOW", "UL, whole rationales"]
    rivals += ["Contrastive decoding"]
    kinds = {"paper": paper, "control": controls, "rival": rivals}
    assert origins == {name: kind for kind, names in kinds.items() for name in names}
    for name, row in METHODS.items():
        assert row.name == name and row.objective in OBJECTIVES and row.description
        assert set(row.uses) <= set(METHODS) and bool(row.uses) == bool(row.start)
        assert row.reference == (row.objective in NEEDS_REFERENCE)
        assert (row.objective in NEEDS_TEACHER) == (row.start == "teacher") == (row.beta_mode in BETA_MODES)
    assert {name: METHODS[name].objective for name in ("MIX", "CL", "NT", "UL")} == {
        "MIX": "likelihood",
        "CL": "contrastive",
        "NT": "negative",
        "UL": "unlikelihood",
    }


def test_the_table_is_frozen():
    with pytest.raises(TypeError):
        METHODS["NAT"] = METHODS["MIX"]
    with pytest.raises(FrozenInstanceError):
        METHODS["NAT"].data = "both"


# --- data and settings --------------------------------------------------------------------------------

PROBLEMS = tuple(Problem(f"p{i}", f"{i} + 1?", f"{i + 1}", f"It is {i + 1}.", "s", 1, "x") for i in range(3))
RIGHT = [Rationale("p0", 0, r"so \boxed{1}", "t"), Rationale("p2", 1, r"so \boxed{3}", "t")]
WRONG = [Rationale("p0", 1, r"so \boxed{7}", "t"), Rationale("p1", 0, "no idea", "t")]


def test_training_set_splits_by_answer():
    made = training_set(PROBLEMS, [RIGHT[0], WRONG[0], WRONG[1], RIGHT[1]])
    assert made == TrainingSet(PROBLEMS, tuple(RIGHT), tuple(WRONG))


def test_examples_of_each_kind():
    made = TrainingSet(PROBLEMS, tuple(RIGHT), tuple(WRONG))
    assert [e.completion for e in made.examples("solutions")] == ["It is 1.", "It is 2.", "It is 3."]
    both = made.examples("both")
    assert both == made.examples("positives") + made.examples("negatives")
    assert [(e.id, e.completion, e.positive, e.question) for e in both] == [
        ("p0#0", r"so \boxed{1}", True, "p0"),
        ("p2#1", r"so \boxed{3}", True, "p2"),
        ("p0#1", r"so \boxed{7}", False, "p0"),
        ("p1#0", "no idea", False, "p1"),
    ]
    assert both[0].prompt == format_prompt("0 + 1?")
    assert made.examples("positives", "faithful")[0].prompt == format_prompt("0 + 1?", "faithful")


def test_take_keeps_the_rationales_of_the_first_questions():
    taken = TrainingSet(PROBLEMS, tuple(RIGHT), tuple(WRONG)).take(1)
    assert taken == TrainingSet(PROBLEMS[:1], (RIGHT[0],), (WRONG[0],))
    for n in (0, 4):
        with pytest.raises(ValueError, match=f"n must lie between 1 and 3, the number of questions; got {n}"):
            TrainingSet(PROBLEMS, (), ()).take(n)


def test_augmented_keeps_what_is_right_and_new():
    """Of six samples one is wrong, one the teacher's, one said twice; p1 had no positive."""
    made = TrainingSet(PROBLEMS, tuple(RIGHT), tuple(WRONG))
    texts = [
        ("p0", r"so \boxed{1}"),
        ("p1", r"1 + 1 is \boxed{2}"),
        ("p1", r"\boxed{3}"),
        ("p2", r"2 + 1 is \boxed{3}"),
        ("p1", r"1 + 1 is \boxed{2} "),
        ("p1", r"two: \boxed{2}"),
    ]
    samples = [Rationale(problem, i, text, "NAT") for i, (problem, text) in enumerate(texts)]
    more = augmented(made, iter(samples))
    assert more.problems == made.problems and more.negatives == made.negatives
    assert more.positives[:2] == made.positives
    assert more.positives[2:] == (
        Rationale("p1", 1, r"1 + 1 is \boxed{2}", "NAT"),
        Rationale("p2", 2, r"2 + 1 is \boxed{3}", "NAT"),
        Rationale("p1", 2, r"two: \boxed{2}", "NAT"),
    )
    ids = [example.id for example in more.examples("both")]
    assert len(set(ids)) == len(ids)
    assert augmented(more, samples) == more
    with pytest.raises(ValueError, match="rationales must belong to problems; got problem_id 'p9'"):
        augmented(made, [Rationale("p9", 0, "x", "NAT")])


def test_fewer_negatives_and_exchanged_labels():
    problems = arithmetic.generate("train", 20, 0)
    data = training_set(problems, arithmetic.teach(problems, "weak", n=4))
    both = {*data.positives, *data.negatives}
    fewer = fewer_negatives(data, 0.25, seed=1)
    assert len(fewer.negatives) == round(0.25 * len(data.negatives)) and fewer.positives == data.positives
    assert list(fewer.negatives) == [one for one in data.negatives if one in fewer.negatives]
    assert fewer.negatives != fewer_negatives(data, 0.25, seed=2).negatives
    assert fewer_negatives(data, 1) == data and not fewer_negatives(data, 0).negatives
    noisy = mislabelled(data, 0.1, seed=1)
    assert {*noisy.positives, *noisy.negatives} == both and noisy.problems == data.problems
    assert len(set(noisy.positives) ^ set(data.positives)) == round(0.1 * len(both))
    assert set(noisy.positives) - set(data.positives) and set(data.positives) - set(noisy.positives)
    assert mislabelled(data, 0) == data
    swapped = mislabelled(data, 1)
    assert (swapped.positives, swapped.negatives) == (data.negatives, data.positives)
    for change in (fewer_negatives, mislabelled):
        with pytest.raises(ValueError, match="share must lie between 0 and 1; got 1.5"):
            change(data, 1.5)


def test_gains_by_hand():
    problems = (*PROBLEMS[:2], replace(PROBLEMS[2], subject="t", level=None))
    made = TrainingSet(problems, tuple(RIGHT), ())
    new = [Rationale("p1", i, rf"{i} gives \boxed{{2}}", "NAT") for i in range(2)]
    new.append(Rationale("p2", 0, r"3 is \boxed{3}", "NAT"))
    more = augmented(made, new)
    columns = ["questions", "positives", "new", "without", "reached"]
    by_subject = gains(made, more)
    assert by_subject.columns.tolist() == columns and by_subject.index.tolist() == ["s", "t", "all"]
    assert by_subject.to_numpy().tolist() == [[2, 1, 2, 1, 1], [1, 1, 1, 0, 0], [3, 2, 3, 1, 1]]
    by_level = gains(made, more, "level")
    assert by_level.loc[1].tolist() == [2, 1, 2, 1, 1] and by_level.loc["all"].tolist() == [3, 2, 3, 1, 1]
    with pytest.raises(ValueError, match="by must be one of 'subject', 'level'; got 'source'"):
        gains(made, more, "source")
    with pytest.raises(ValueError, match="after must hold the questions of before"):
        gains(made, more.take(2))


def test_bad_sets_are_refused(tmp_path, student):
    with pytest.raises(ValueError, match="rationales must belong to problems; got problem_id 'p2'"):
        TrainingSet(PROBLEMS[:2], tuple(RIGHT), ())
    with pytest.raises(
        ValueError,
        match="kind must be one of 'solutions', 'positives', 'negatives', 'both', 'answers'; got 'all'",
    ):
        TrainingSet(PROBLEMS, (), ()).examples("all")
    empty = TrainingSet(PROBLEMS, (), tuple(WRONG))
    for name in ("CoT KD", "NAT", "Few-shot", "Merge"):
        with pytest.raises(
            ValueError, match=r"positives must not be empty: no rationale was graded right; take mor"
        ):
            fit(name, student, empty, CONFIG, tmp_path)
    with pytest.raises(ValueError, match="negatives must not be empty: no rationale was graded wrong"):
        fit("NAT", student, TrainingSet(PROBLEMS, tuple(RIGHT), ()), CONFIG, tmp_path)
    assert not list(tmp_path.iterdir())  # refused before anything is trained


def test_what_has_no_text_is_left_out(data):
    silent = tuple(replace(r, index=r.index + 100, text=" ") for r in data.negatives[:2])
    more = TrainingSet(data.problems, data.positives, data.negatives + silent)
    for kind in ("negatives", "both", "positives"):
        assert more.examples(kind) == data.examples(kind)
    unsolved = replace(
        data, problems=tuple(replace(p, solution="") for p in data.problems[:-1]) + data.problems[-1:]
    )
    assert [example.id for example in unsolved.examples("solutions")] == [data.problems[-1].id]
    none = replace(data, problems=tuple(replace(p, solution="") for p in data.problems))
    with pytest.raises(ValueError, match="no question has one; leave Fine-tune out"):
        none.examples("solutions")


def test_settings_of_the_paper():
    paper = SETTINGS["paper"]
    assert asdict(paper.nat) == {
        "r": 8,
        "lora_alpha": 16,
        "dropout": 0.05,
        "target_modules": ("q_proj", "v_proj"),
        "unit_dim": 128,
        "shift": 0.5,
        "train_neg": False,
        "mix": "unit",
    }
    one = paper.train
    assert (one.lr, one.epochs, one.warmup_steps) == (3e-4, 20, 200)
    assert one.batch_size * one.gradient_accumulation_steps == 128
    assert SETTINGS["faithful"] == replace(paper, preset="faithful") and paper.preset == "fixed"
    embedded = SETTINGS["embedded"]
    assert (embedded.nat.unit_dim, len(embedded.nat.target_modules), embedded.train.lr) == (32, 7, 3e-3)


def test_settings_change_fields_where_they_belong():
    made = settings("paper", r=4, lr=0.1, shots=1, max_steps=300)
    assert (made.nat.r, made.train.lr, made.shots) == (4, 0.1, 1)
    assert (made.train.epochs, made.train.max_steps) == (None, 300)
    assert settings(seed=2) == replace(
        SETTINGS["embedded"], train=replace(SETTINGS["embedded"].train, seed=2)
    )
    with pytest.raises(ValueError, match="setting must be one of 'epochs', .*, 'shots'; got 'rank'"):
        settings(rank=4)
    with pytest.raises(ValueError, match="name must be one of 'embedded', 'paper', 'faithful'; got 'gpt'"):
        settings("gpt")
    with pytest.raises(ValueError, match="shots must be at least 1; got 0"):
        settings(shots=0)
    with pytest.raises(ValueError, match="preset must be one of 'fixed', 'faithful'; got 'x'"):
        settings(preset="x")
    with pytest.raises(ValueError, match="top_k must be at least 1; got 0"):
        settings(top_k=0)
    with pytest.raises(ValueError, match="temperature must be greater than 0; got 0"):
        settings(temperature=0)
    with pytest.raises(ValueError, match="mixing must lie between 0 and 1; got 1.5"):
        settings(mixing=1.5)


# --- what a fit is ------------------------------------------------------------------------------------


def test_the_student_is_left_as_it_was(tmp_path, data):
    student = llama()
    before = {name: value.clone() for name, value in student.model.state_dict().items()}
    modules = dict(student.model.named_modules())
    random = torch.get_rng_state()
    for name in ("CoT KD", "NAT", "Negatives first", "Merge", "NCE"):
        with adapted(student, fit(name, student, data, CONFIG, tmp_path)) as trained:
            assert not torch.equal(logits(trained.model), logits(llama().model))
    after = student.model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert dict(student.model.named_modules()) == modules
    assert all(parameter.requires_grad for parameter in student.model.parameters())
    assert not hasattr(student.model, "peft_config")
    assert torch.equal(torch.get_rng_state(), random)


def test_trainable_parameters(fits, student):
    """By hand: hidden 16, key and value 8, MLP 24, two layers; rank 8, unit 4."""
    shapes = [(16, 16), (16, 8), (16, 8), (16, 16), (16, 24), (16, 24), (24, 16)]
    plain = 2 * sum(8 * (d_in + d_out) for d_in, d_out in shapes)
    unit = 2 * sum(4 * (d_in + 3 * d_out) for d_in, d_out in shapes)
    for name, one in fits.items():
        views = {"base": 0, "lora": plain, "nat": plain + unit, "contrast": 2 * plain}
        count = views[METHODS[name].view]
        if name == "Merge":
            count = 2 * plain
        if name == "CoT KD, NAT's size":
            assert abs(one.trainable_parameters - (plain + unit)) <= plain / 8 / 2
            r = json.loads((one.folder / "adapter/adapter_config.json").read_text())
            assert r["r"] == wide_rank(student.model, CONFIG.nat) > 8
            assert r["lora_alpha"] / r["r"] == 2
            continue
        assert one.trainable_parameters == count, name


def test_the_rank_of_the_papers_student():
    """LLaMA-7B, q_proj and v_proj: NAT trains 138.4 M parameters, LoRA of rank 8 4.2 M, so rank 264."""
    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, vocab_size=8)
        )
    assert wide_rank(model, NATConfig()) == 264
    assert 264 * 32 * 2 * (4096 + 4096) == 138_412_032


def test_steps_tokens_and_totals(fits, data):
    def length(text_prompt, text):
        return len(TOKENIZER(text_prompt)["input_ids"]) + len(TOKENIZER(text)["input_ids"]) + 1

    questions = {p.id: format_prompt(p.question) for p in data.problems}
    positives = [length(questions[r.problem_id], r.text) for r in data.positives]
    negatives = [length(questions[r.problem_id], r.text) for r in data.negatives]
    seen = {
        "positives": positives,
        "negatives": negatives,
        "both": positives + negatives,
        "solutions": [length(questions[p.id], p.solution) for p in data.problems],
        "answers": [length(questions[p.id], rf"\boxed{{{p.answer}}}") for p in data.problems],
        "": [],
    }
    for name, one in fits.items():
        row = METHODS[name]
        rows = seen[row.data]
        right, wrong = ({r.problem_id for r in side} for side in (data.positives, data.negatives))
        count = 2 * len(right & wrong) if row.order == "pairs" else len(rows)
        marks = [len(TOKENIZER(mark)["input_ids"]) for mark in row.marks]
        extra = sum(n * len(side) for n, side in zip(marks, (positives, negatives), strict=False))
        own = (EPOCHS * -(-count // BATCH), EPOCHS * (sum(rows) + extra))
        if row.order != "single":  # pairs are drawn, and other questions' rationales are read as well
            own = (own[0], one.tokens)
            assert (one.tokens > EPOCHS * sum(rows)) == (row.order == "mismatched")
        assert (one.steps, one.tokens) == own, name
        below = [used for use in row.uses for used in (*METHODS[use].uses, use)]
        used = [seen[METHODS[used].data] for used in below]
        assert one.total_steps == own[0] + sum(EPOCHS * -(-len(r) // BATCH) for r in used)
        assert one.total_tokens == own[1] + sum(EPOCHS * sum(r) for r in used)
        known = one.seconds + sum(fits[used].total_seconds for used in row.uses)
        if row.beta_mode:  # the pass of the teachers counts as well, and is shared
            assert known < one.total_seconds
            assert one.total_seconds - known == pytest.approx(
                fits["KD"].total_seconds - fits["KD"].seconds - fits["NAT"].total_seconds
            )
        elif not row.reference:  # whose pass counts as well
            assert one.total_seconds == pytest.approx(known)
        assert len(one.history) == one.steps and one.seed == 3 and one.lr == 3e-3
        assert one.columns() == {
            "method": name,
            "seed": 3,
            "lr": 3e-3,
            "trainable_parameters": one.trainable_parameters,
            "steps": one.total_steps,
            "tokens": one.total_tokens,
            "seconds": one.total_seconds,
        }


def test_plain_rows_are_peft_and_the_loop(fits, student, data):
    """CoT KD and UL again, from get_peft_model, train and the seed."""
    for name, kind, objective in (("CoT KD", "positives", "likelihood"), ("UL", "both", "unlikelihood")):
        lora = LoraConfig(
            r=8,
            lora_alpha=16,
            lora_dropout=0.05,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            task_type="CAUSAL_LM",
        )
        plain = llama().model
        torch.manual_seed(3)
        model = get_peft_model(plain, lora)
        train(model, TOKENIZER, data.examples(kind), replace(CONFIG.train, checkpoint_every=None), objective)
        with adapted(student, fits[name]) as trained:
            assert torch.equal(logits(trained.model), logits(model))


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.view == "lora"])
def test_stock_peft_loads_plain_rows(fits, student, name):
    with adapted(student, fits[name]) as trained:
        ours = logits(trained.model)
    stock = PeftModel.from_pretrained(llama().model, fits[name].folder / "adapter")
    assert torch.equal(ours, logits(stock))
    assert not torch.allclose(ours, logits(student.model))
    merged = stock.merge_and_unload()
    assert isinstance(merged, LlamaForCausalLM)
    assert torch.allclose(logits(merged), ours, atol=1e-4)


def test_merge_is_exact(fits, student):
    positive, negative, merged = (deltas(fits[name]) for name in ("CoT KD", "Negative adapter", "Merge"))
    assert merged.keys() == positive.keys() and len(merged) == 14
    plain = llama().model
    for name, delta in merged.items():
        wanted = 1.5 * positive[name] - 0.5 * negative[name]
        assert torch.allclose(delta, wanted, atol=1e-6) and wanted.abs().max() > 1e-4
        plain.get_submodule(name.removeprefix("base_model.model.")).weight.data += wanted
    with adapted(student, fits["Merge"]) as trained:
        assert torch.allclose(logits(trained.model), logits(plain), atol=1e-4)


def test_negatives_first_goes_on_from_the_negative_adapter(fits, student, data, tmp_path):
    """Trained with hardly any learning rate it still is the negative adapter, one adapter of rank 8."""
    neg = fits["Negative adapter"]
    still = replace(CONFIG, train=replace(CONFIG.train, lr=1e-12))
    one = fit("Negatives first", student, data, still, tmp_path, neg=neg)
    for key, tensor in weights(neg).items():
        assert torch.allclose(weights(one)[key], tensor, atol=1e-9)
        assert weights(fits["Negatives first"])[key].shape == tensor.shape
    moved = [
        not torch.allclose(weights(fits["Negatives first"])[key], weights(neg)[key]) for key in weights(neg)
    ]
    assert all(moved)


def test_the_negative_branch_of_each_nat_row(fits, student):
    def branch(name):
        return load_file(fits[name].folder / "adapter/neg/adapter_model.safetensors")

    for name, source in (("NAT", "Negative adapter"), ("NAT, positive branch", "CoT KD")):
        wanted = weights(fits[source])
        assert branch(name).keys() == wanted.keys()
        assert all(torch.equal(branch(name)[key], wanted[key]) for key in wanted), name
    assert not any(tensor.any() for tensor in branch("NAT, empty branch").values())
    noise, real = branch("NAT, random branch"), weights(fits["Negative adapter"])
    for key in real:
        if "lora_A" in key:
            assert noise[key].norm() == pytest.approx(real[key].norm().item(), rel=1e-4)
            assert abs(torch.cosine_similarity(noise[key].flatten(), real[key].flatten(), 0)) < 0.5


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.view == "nat"])
def test_views_of_nat_rows_are_peft_folders(fits, student, name):
    folder = fits[name].folder / "adapter"
    plain = logits(llama().model)
    with adapted(student, fits[name]) as trained:
        for part in ("pos", "neg"):
            with view(trained.model, part):
                ours = logits(trained.model)
            stock = PeftModel.from_pretrained(llama().model, folder / part)
            assert torch.allclose(ours, logits(stock), atol=1e-5)
        assert not torch.allclose(logits(trained.model), plain)
        with view(trained.model, "base"):
            assert torch.equal(logits(trained.model), plain)


def test_other_architectures(tmp_path, data):
    """GPT-2 keeps its weights transposed (Conv1D)."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(TOKENIZER), n_embd=16, n_layer=1, n_head=2, n_positions=256)
    student = Student(GPT2LMHeadModel(config).eval(), TOKENIZER)
    plain = logits(student.model)
    short = replace(CONFIG, nat=NATConfig(target_modules=("c_attn", "mlp.c_proj"), unit_dim=4))
    for name in ("NAT", "CoT KD, NAT's size", "Merge"):
        with adapted(student, fit(name, student, data, short, tmp_path)) as trained:
            assert not torch.allclose(logits(trained.model), plain)
        assert torch.equal(logits(student.model), plain)


@pytest.mark.parametrize("second", ["CoT KD", "NAT", "Few-shot", "Contrastive decoding", "Merge"])
@pytest.mark.parametrize("first", ["CoT KD", "NAT", "Few-shot", "Contrastive decoding"])
def test_one_adapter_at_a_time(fits, student, data, tmp_path, first, second):
    """Two on one model would compute what neither does, and leave the first without its weights."""
    plain = logits(student.model)
    with adapted(student, fits[first]) as trained:
        alone = logits(trained.model)
        for other in (student, trained):
            with pytest.raises(ValueError, match="already carries adapters: leave the block"):
                with adapted(other, fits[second]):
                    pass
            with pytest.raises(ValueError, match="already carries adapters: leave the block"):
                fit(second, other, data, CONFIG, tmp_path)
        assert torch.equal(logits(trained.model), alone)
    assert torch.equal(logits(student.model), plain) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        ({"split": "test"}, TypeError, "what on_epoch returns must be a DataFrame, or None; got {"),
        (pd.DataFrame({"problem_id": ["a"], "correct": [True]}), ValueError, "must have .*; it lacks split"),
    ],
)
def test_what_follows_a_training_returns_a_frame(student, data, tmp_path, returned, error, message):
    def look(student, epoch):
        return returned

    look.key = "look"
    with pytest.raises(error, match=message):
        fit("CoT KD", student, data, CONFIG, tmp_path, on_epoch=look)


def test_numbers_of_numpy_make_the_same_fit(student, data, tmp_path):
    """A sweep over np.arange is a common one."""
    small = {"batch_size": BATCH, "progress": False, "unit_dim": 4}
    plain = fit("NAT", student, data, settings(max_steps=2, seed=1, lr=0.25, **small), tmp_path)
    given = settings(max_steps=np.int64(2), seed=np.arange(2)[1], lr=np.float32(0.25), **small)
    assert fit("NAT", student, data, given, tmp_path).folder == plain.folder
    made = fit("NAT", student, data, given, tmp_path / "numpy")
    assert load_fit(made.folder).seed == 1
    assert made.history["loss"].tolist() == plain.history["loss"].tolist()


# --- NCE ----------------------------------------------------------------------------------------------


def test_rows_that_learn_from_nat_differ_in_their_weights_alone(fits, root):
    names = [name for name, row in METHODS.items() if row.beta_mode]
    assert len(list(root.glob("teacher-*"))) == 1  # one pass serves all of them
    losses = {name: fits[name].history["loss"].tolist() for name in names}
    assert len({tuple(values) for values in losses.values()}) == len(names) == 5
    assert len({fits[name].tokens for name in names}) == 1
    assert {fits[name].trainable_parameters for name in names} == {fits["CoT KD"].trainable_parameters}


def test_without_distillation_nce_is_cot_kd(fits, student, data, tmp_path):
    """With mixing 0 only the likelihood of the text is left."""
    one = fit("NCE", student, data, replace(CONFIG, mixing=0.0), tmp_path, nat=fits["NAT"])
    assert one.history["loss"].tolist() == pytest.approx(fits["CoT KD"].history["loss"].tolist(), rel=1e-5)


def test_an_interrupted_nce_continues_to_the_same_weights(fits, student, data, tmp_path):
    config = replace(CONFIG, train=replace(CONFIG.train, checkpoint_every=1))
    with pytest.raises(KeyboardInterrupt):
        fit("NCE", student, data, config, tmp_path / "cut", nat=fits["NAT"], on_epoch=Watch(fail=2))
    resumed = fit("NCE", student, data, config, tmp_path / "cut", nat=fits["NAT"], on_epoch=Watch())
    whole = fit("NCE", student, data, config, tmp_path / "whole", nat=fits["NAT"], on_epoch=Watch())
    assert resumed.folder.name == whole.folder.name
    assert all(torch.equal(weights(resumed)[key], weights(whole)[key]) for key in weights(whole))


# --- few-shot -----------------------------------------------------------------------------------------


def test_few_shot_prefix(fits, student, data):
    one = fits["Few-shot"]
    texts = {
        format_prompt(p.question) + r.text
        for r in data.positives
        for p in data.problems
        if p.id == r.problem_id
    }
    shots = one.prefix.split("\n\n")
    assert len(shots) == 3 and shots.pop() == ""
    assert set(shots) <= texts and len({shot.partition("\nSolution")[0] for shot in shots}) == 2
    assert len(TOKENIZER(one.prefix)["input_ids"]) <= 128
    with adapted(student, one) as trained:
        assert trained.model is student.model
    assert not (one.folder / "adapter").exists()


def test_few_shot_depends_on_the_seed_and_must_fit(student, data, tmp_path, fits):
    other = fit("Few-shot", student, data, settings(shots=2, seed=4), tmp_path)
    assert other.prefix != fits["Few-shot"].prefix
    with pytest.raises(
        ValueError, match=r"shots must leave half of the context free, and 30 equal shares of 128 tok"
    ):
        fit("Few-shot", student, data, settings(shots=30), tmp_path)


# --- resume, keys and budgets -------------------------------------------------------------------------


class Watch:
    """An on_epoch that counts its calls and may fail in one epoch."""

    key = "watch"

    def __init__(self, fail=None):
        self.calls, self.fail = [], fail

    def __call__(self, student, epoch):
        self.calls.append(epoch)
        if epoch == self.fail:
            raise KeyboardInterrupt
        if epoch % 2:
            return None
        norm = float(logits(student.model).norm())
        return pd.DataFrame(
            {"problem_id": ["1", "2"], "split": ["valid", "test"], "correct": [True, False], "norm": norm}
        )


def test_a_path_keeps_the_rate_as_it_was_given(student, data, tmp_path):
    config = replace(CONFIG, train=replace(CONFIG.train, lr=0.0003))  # reading floats fast would change it
    path = fit("CoT KD", student, data, config, tmp_path, on_epoch=Watch()).trajectory
    assert (path["lr"] == 0.0003).all()


def test_a_finished_fit_is_not_trained_again(fits, student, root, data, monkeypatch):
    monkeypatch.setattr(methods, "train", lambda *_, **__: pytest.fail("trained again"))
    changed = replace(CONFIG, train=replace(CONFIG.train, checkpoint_every=5, progress=True))
    for name, one in fits.items():
        again = fit(name, student, make_data(), changed, root)
        assert again.folder == one.folder
        pd.testing.assert_frame_equal(again.history, one.history)
        assert load_fit(one.folder).columns() == one.columns()


@pytest.mark.parametrize("name", ["CoT KD", "NAT"])
def test_an_interrupted_fit_continues_to_the_same_weights(tmp_path, student, data, name):
    config = settings(epochs=4, batch_size=BATCH, progress=False, unit_dim=4, checkpoint_every=1)
    whole = fit(name, student, data, config, tmp_path / "whole", on_epoch=Watch())
    with pytest.raises(KeyboardInterrupt):
        fit(name, student, data, config, tmp_path / "cut", on_epoch=Watch(fail=3))
    assert not hasattr(student.model, "peft_config")
    watch = Watch()
    resumed = fit(name, student, data, config, tmp_path / "cut", on_epoch=watch)
    assert watch.calls == [3, 4]
    assert resumed.folder.name == whole.folder.name
    with adapted(student, whole) as trained:
        expected = logits(trained.model)
    with adapted(student, resumed) as trained:
        assert torch.equal(logits(trained.model), expected)
    drop = ["seconds"]
    pd.testing.assert_frame_equal(resumed.trajectory.drop(columns=drop), whole.trajectory.drop(columns=drop))
    assert {path.name for path in resumed.folder.iterdir() if path.name != ".lock"} == {
        *("adapter", "fit.json", "history.csv", "manifest.json", "trajectory.jsonl"),
    }


def test_path_has_the_costs_of_each_epoch(tmp_path, student, data, fits):
    neg = fits["Negative adapter"]
    config = replace(CONFIG, train=replace(CONFIG.train, epochs=4))
    one = fit("NAT", student, data, config, tmp_path, neg=neg, on_epoch=Watch())
    per_epoch = -(-len(data.positives) // BATCH)
    assert one.trajectory["epoch"].tolist() == [2, 2, 4, 4]
    assert one.trajectory["steps"].tolist() == [neg.steps + k * per_epoch for k in (2, 2, 4, 4)]
    half = one.history[one.history["epoch"] == 2]["tokens"].iloc[-1]
    assert one.trajectory["tokens"].tolist() == [neg.tokens + half] * 2 + [neg.tokens + one.tokens] * 2
    assert one.trajectory["problem_id"].tolist() == ["1", "2", "1", "2"]
    assert one.trajectory["correct"].tolist() == [True, False] * 2
    assert one.trajectory["seconds"].iloc[-1] == pytest.approx(one.total_seconds)
    assert set(one.trajectory["method"]) == {"NAT"} and set(one.trajectory["lr"]) == {3e-3}
    with adapted(student, one) as trained:
        assert one.trajectory["norm"].iloc[-1] == pytest.approx(float(logits(trained.model).norm()), rel=1e-5)
        assert one.trajectory["norm"].iloc[0] != one.trajectory["norm"].iloc[-1]
    ends = one.history.dropna(subset="accuracy_valid")
    assert ends["epoch"].tolist() == [2, 4] and ends["accuracy_test"].tolist() == [0.0, 0.0]


def test_folders_differ_where_results_do(fits, student, data, root, tmp_path):
    first = fits["CoT KD"].folder.name
    changes = [
        (student, data, replace(CONFIG, train=replace(CONFIG.train, seed=5)), None),
        (student, data.take(5), CONFIG, None),
        (llama(seed=1), data, CONFIG, None),
        (student, data, CONFIG, Watch()),
        (student, data, replace(CONFIG, preset="faithful"), None),
    ]
    names = {fit("CoT KD", s, d, c, tmp_path, on_epoch=watch).folder.name for s, d, c, watch in changes}
    assert len(names | {first}) == len(changes) + 1
    assert all(name.startswith("cot-kd-") for name in names)


def test_a_damaged_fit_is_refused(tmp_path, student, data):
    one = fit("CoT KD", student, data, CONFIG, tmp_path)
    path = one.folder / "adapter/adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(
        ValueError,
        match=r"adapter_model.safetensors is not as manifest.json recorded it; remove",
    ):
        fit("CoT KD", student, data, CONFIG, tmp_path)
    with pytest.raises(FileNotFoundError, match="no run in"):
        load_fit(tmp_path / "nothing")


def test_what_a_message_says_to_remove_is_what_helps(tmp_path, student, data):
    """Kind: a way out that leads out. The folder that is named goes, and the same call ends well."""
    one = fit("CoT KD", student, data, CONFIG, tmp_path)
    before = weights(one)
    path = one.folder / "history.csv"
    path.write_bytes(path.read_bytes()[:-1] + b"7")
    with pytest.raises(ValueError, match="history.csv is not as manifest.json recorded it") as caught:
        fit("CoT KD", student, data, CONFIG, tmp_path)
    named = re.search(r"remove (.*?),? and run again what made it", str(caught.value))[1]
    assert named == str(one.folder)
    shutil.rmtree(named)
    after = weights(fit("CoT KD", student, data, CONFIG, tmp_path))
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_flipped_bit_of_what_was_followed_is_refused(tmp_path, student, data):
    """Kind: a bit that flips on disk in what a fit is resumed from, beside its checkpoint; as in
    pytorch/torchtitan#4011.
    """
    config = settings(epochs=4, batch_size=BATCH, progress=False, unit_dim=4, checkpoint_every=1)
    with pytest.raises(KeyboardInterrupt):
        fit("CoT KD", student, data, config, tmp_path, on_epoch=Watch(fail=3))
    (point,) = tmp_path.glob("*/points/*.jsonl")
    whole = point.read_bytes()
    for place in range(0, len(whole), 40):
        point.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=f"points/{point.name} is not as manifest.json recorded it"):
            fit("CoT KD", student, data, config, tmp_path, on_epoch=Watch())
    point.write_bytes(whole)
    assert fit("CoT KD", student, data, config, tmp_path, on_epoch=Watch()).trajectory is not None


def test_a_fit_under_the_name_of_another_is_refused(tmp_path, student, data):
    """Kind: a folder that was copied or renamed. Its manifest, not its name, says what it holds."""
    other = replace(CONFIG, train=replace(CONFIG.train, seed=5))
    one = fit("CoT KD", student, data, CONFIG, tmp_path / "one").folder
    two = fit("CoT KD", student, data, other, tmp_path / "two").folder
    shutil.copytree(one, tmp_path / "mixed" / two.name)
    with pytest.raises(ValueError, match=f"{two.name} belongs to another run: other train; choose"):
        fit("CoT KD", student, data, other, tmp_path / "mixed")


def test_a_folder_without_a_finished_fit_is_made_anew(tmp_path, student, data):
    one = fit("CoT KD", student, data, CONFIG, tmp_path)
    before = weights(one)
    manifest = json.loads((one.folder / "manifest.json").read_text())
    del manifest["artifacts"]["fit.json"]
    (one.folder / "manifest.json").write_text(json.dumps(manifest))
    after = weights(fit("CoT KD", student, data, CONFIG, tmp_path))
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_max_steps_is_the_budget_of_all_stages(fits, student, data, tmp_path):
    config = settings(max_steps=7, batch_size=BATCH, progress=False, unit_dim=4)
    for name, used in (("CoT KD", 0), ("NAT", 3), ("NAT, positive branch", 3), ("Negatives first", 3)):
        one = fit(name, student, data, config, tmp_path)
        assert (one.total_steps, one.steps) == (7, 7 - used)
    merge = fit("Merge", student, data, config, tmp_path)
    assert (merge.total_steps, merge.steps) == (7, 0)
    nce = fit("NCE", student, data, config, tmp_path)  # 2 for the negative adapter, 2 for NAT
    assert (nce.total_steps, nce.steps) == (7, 3)
    neg = fits["Negative adapter"]
    more = settings(max_steps=neg.steps + 2, batch_size=BATCH, progress=False, unit_dim=4)
    shared = fit("NAT", student, data, more, tmp_path, neg=neg)
    assert (shared.total_steps, shared.steps) == (neg.steps + 2, 2)
    assert fit("CoT KD", student, data, more, tmp_path, neg=neg).steps == neg.steps + 2
    both = fit("KD", student, data, more, tmp_path, neg=neg)  # one for NAT, one of its own
    assert (both.total_steps, both.steps) == (neg.steps + 2, 1)
    given = settings(max_steps=shared.total_steps + 1, batch_size=BATCH, progress=False, unit_dim=4)
    last = fit("KD", student, data, given, tmp_path, nat=shared)
    assert (last.total_steps, last.steps) == (shared.total_steps + 1, 1)
    with pytest.raises(
        ValueError, match=rf"max_steps must exceed the {neg.steps} that the adapters took .*; got 2"
    ):
        fit("NAT", student, data, settings(max_steps=2), tmp_path, neg=neg)


def test_a_budget_that_the_first_training_takes_is_named(student, data, tmp_path):
    with pytest.raises(
        ValueError, match="max_steps must exceed the 0 that .* a batch for each of 2 trainings"
    ):
        fit("NAT", student, data, settings(max_steps=1), tmp_path)
    few = settings(max_tokens=10, batch_size=BATCH, progress=False)
    with pytest.raises(ValueError, match=r"max_tokens must exceed the \d+ that the trainings took .* got 10"):
        fit("NAT", student, data, few, tmp_path)


def test_numbers_of_numpy_are_settings_of_an_adapter(student, data, tmp_path):
    given = {"max_steps": 1, "batch_size": BATCH, "progress": False}
    numbers = {"r": np.int64(2), "lora_alpha": np.float64(4.0), "dropout": np.float64(0.0)}
    one = fit("CoT KD", student, data, settings(**given, **numbers), tmp_path)
    assert (
        one.folder
        == fit("CoT KD", student, data, settings(**given, r=2, lora_alpha=4.0, dropout=0.0), tmp_path).folder
    )


def test_max_tokens_is_the_budget_of_all_stages(student, data, tmp_path):
    budget = 3000
    one = fit("NAT", student, data, settings(max_tokens=budget, batch_size=BATCH, progress=False), tmp_path)
    longest = one.history["tokens"].diff().max()
    assert budget <= one.total_tokens < budget + longest
    assert abs(one.tokens - budget / 2) < 2 * longest


def test_bad_calls_are_refused(student, data, tmp_path, fits):
    with pytest.raises(
        ValueError, match="method must be one of 'Few-shot', .*, 'Contrastive decoding'; got 'X'"
    ):
        fit("X", student, data, CONFIG, tmp_path)
    with pytest.raises(ValueError, match="nat.method must be one of 'NAT'; got 'NAT, empty branch'"):
        fit("NCE", student, data, CONFIG, tmp_path, nat=fits["NAT, empty branch"])
    with pytest.raises(ValueError, match="neg.method must be one of 'Negative adapter'; got 'CoT KD'"):
        fit("NAT", student, data, CONFIG, tmp_path, neg=fits["CoT KD"])
    with pytest.raises(ValueError, match="on_epoch must have an attribute key, a string"):
        fit("NAT", student, data, CONFIG, tmp_path, on_epoch=lambda *_: None)
    unknown = replace(CONFIG, nat=NATConfig(target_modules=("q_proj", "c_attn")))
    for name in ("CoT KD", "NAT"):
        with pytest.raises(ValueError, match="no projection is named 'c_attn'; candidates are down_proj, "):
            fit(name, student, data, unknown, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_task_and_its_teacher_make_a_training_set():
    data = taught(load_task(), "strong", questions=5, samples=3, seed=2)
    problems = tuple(arithmetic.generate("train", 5, 2))
    assert data == training_set(problems, arithmetic.teach(problems, "strong", n=3, seed=2))


# --- several processes --------------------------------------------------------------------------------


def distributed(folder):
    """Fit two rows and what they use, in whatever processes there are; losses as every process reads them."""
    torch.set_num_threads(1)
    config = settings(epochs=1, batch_size=BATCH, progress=False, dropout=0.0, unit_dim=4)
    made = [fit(name, llama(), make_data(), config, folder) for name in ("NCE", "Merge")]
    assert [one.trainable_parameters > 0 for one in made] == [True, True]
    return {"folders": [one.folder.name for one in made], "loss": made[0].history["loss"].tolist()}


def test_a_second_run_waits_for_the_first_and_takes_what_it_made(data, tmp_path, monkeypatch):
    """Two runs in one folder ended in raw errors.

    Kind: two runs in one folder; as in broadinstitute/CellBender#241.
    """
    monkeypatch.setattr(processes_module, "SILENT", 0.05)
    begun, make, made = threading.Event(), methods._make, []

    def slowly(*given):
        begun.set()
        time.sleep(0.4)
        made.append(make(*given))

    monkeypatch.setattr(methods, "_make", slowly)
    found = []
    first = threading.Thread(target=lambda: found.append(fit("CoT KD", llama(), data, CONFIG, tmp_path)))
    first.start()
    begun.wait()
    with pytest.warns(UserWarning, match="cot-kd-.* is being made by another process; waiting for it"):
        found.append(fit("CoT KD", llama(), data, CONFIG, tmp_path))
    first.join()
    assert len(made) == 1 and found[0].folder == found[1].folder
    pd.testing.assert_frame_equal(found[0].history, found[1].history)


def test_two_processes_fit_what_one_fits(tmp_path):
    in_two_processes(__file__, tmp_path, through=ACCELERATE)
    first, second = (json.loads((tmp_path / name).read_text()) for name in "01")
    one = distributed(tmp_path / "one")
    assert first == second and first["folders"] == one["folders"]
    assert first["loss"] == pytest.approx(one["loss"], rel=2e-5)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = distributed(folder / "two")
    (folder / os.environ["RANK"]).write_text(json.dumps(found))


SETS = TrainingSet((), (), ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": 3}, "method must be the name of a row; got 3, a int"),
        ({"method": llama(), "student": "CoT KD"}, "method must be the name of a row; got Student"),
        ({"student": "embedded"}, r"student must be a Student, as load_student\(\) gives it; got 'embedded'"),
        ({"student": None}, "student must be a Student, .*; got None, a NoneType"),
        ({"student": llama().model}, r"student must be a Student, .*; got LlamaForCausalLM\(, a Llama"),
        ({"data": CONFIG, "config": SETS}, "data must be a TrainingSet; got Settings"),
        ({"config": SETS}, "config must be Settings, .*; got TrainingSet"),
        ({"out_dir": 3}, "out_dir must be a path, as a text or a Path; got 3, a int"),
        ({"neg": "runs"}, r"neg must be a Fit, as fit\(\) returns it; got 'runs', a str"),
        ({"nat": 3}, "nat must be a Fit, .*; got 3, a int"),
        ({"start": Path("runs")}, "start must be a Fit, .*; got .*Path"),
    ],
)
def test_arguments_of_another_kind_are_refused(changes, message, tmp_path):
    given = {"method": "NAT", "student": llama(), "data": SETS, "config": CONFIG, "out_dir": tmp_path}
    with pytest.raises(TypeError, match=message):
        fit(**given | changes)
    assert not [*tmp_path.iterdir()]


def test_only_a_fit_is_put_on_only_a_student():
    for given, message in (
        ((llama(), "x"), "fit must be a Fit, .*; got 'x', a str"),
        ((llama().model, "x"), "student must be a Student, .*; got LlamaForCausalLM"),
    ):
        with pytest.raises(TypeError, match=message), adapted(*given):
            pass


def test_only_problems_and_rationales_make_a_training_set():
    for pair in (("a", "b"), (3, []), (arithmetic.teach(arithmetic.generate("train", 1, 0)), [])):
        with pytest.raises(TypeError, match="problems must be a list of Problem, as load_problems.*; got"):
            training_set(*pair)
