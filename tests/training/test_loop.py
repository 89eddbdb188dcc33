import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from launching import ACCELERATE, ALONE, in_two_processes
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from negdistill.data.prompts import format_prompt
from negdistill.method.objectives import likelihood, unlikelihood
from negdistill.training.batching import Example, batches, encode, real_text_tokenizer
from negdistill.training.checkpoint import CHECKPOINT
from negdistill.training.loop import COLUMNS, TrainConfig, learning_rate, train

ROOT = Path(__file__).parents[2]
TOKENIZER = real_text_tokenizer(["Problem:\nSolution:\n0123456789+="] * 4, vocab_size=270)
STEADY = [name for name in COLUMNS if name != "seconds"]


def make_model(dropout: float = 0.1, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = dict(vocab_size=len(TOKENIZER), hidden_size=16, intermediate_size=24, num_hidden_layers=2)
    config |= dict(num_attention_heads=2, max_position_embeddings=64, attention_dropout=dropout)
    return LlamaForCausalLM(LlamaConfig(**config))


def make_lora(seed: int = 0) -> torch.nn.Module:
    lora = LoraConfig(r=2, lora_dropout=0.2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return get_peft_model(make_model(0.0, seed), lora)


def make_examples(n: int = 20) -> list[Example]:
    rows = [(a, 7 * a % 50) for a in range(n)]
    return [
        Example(f"sum {a}", format_prompt(f"{a}+{b}"), f"{a}+{b}={a + b}", a % 3 != 0, f"q{a // 2}")
        for a, b in rows
    ]


def config(**changes) -> TrainConfig:
    return TrainConfig(**dict(batch_size=6, lr=0.01, progress=False) | changes)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


pytestmark = pytest.mark.usefixtures("one_thread")


# --- configuration ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, message",
    [
        ({}, "set exactly one of epochs, max_steps and max_tokens; got none"),
        ({"epochs": 1, "max_steps": 2}, "set exactly one of .*; got epochs and max_steps"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"max_tokens": 0}, "max_tokens must be at least 1; got 0"),
        ({"epochs": 1, "batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"epochs": 1, "gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be at least 1"),
        ({"epochs": 1, "checkpoint_every": 0}, "checkpoint_every must be at least 1; got 0"),
        ({"epochs": 1, "warmup_steps": -1}, "warmup_steps must be at least 0; got -1"),
        ({"epochs": 1, "weight_decay": -0.1}, "weight_decay must be at least 0; got -0.1"),
        ({"epochs": 1, "seed": -1}, "seed must be at least 0; got -1"),
        ({"epochs": 1, "lr": 0.0}, "lr must be greater than 0; got 0.0"),
        ({"epochs": 1, "lr": math.nan}, "lr must be finite; got nan"),
        ({"epochs": 1, "max_grad_norm": 0.0}, "max_grad_norm must be greater than 0; got 0.0"),
        ({"epochs": 1, "schedule": "step"}, "schedule must be one of 'linear', 'cosine'; got 'step'"),
    ],
)
def test_bad_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_learning_rate_by_hand():
    linear = config(max_steps=6, lr=1.0, warmup_steps=2, schedule="linear")
    assert [learning_rate(s, 6, linear) for s in range(6)] == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])
    cosine = config(max_steps=4, lr=2.0)
    assert [learning_rate(s, 4, cosine) for s in range(4)] == pytest.approx(
        [1 + math.cos(math.pi * s / 4) for s in range(4)]
    )


# --- the loop against plain PyTorch -------------------------------------------------------------------


def test_equals_a_plain_loop_in_float64():
    settings = config(max_steps=9, warmup_steps=2, weight_decay=0.1, max_grad_norm=0.5)
    model, reference = make_model(0.0).double(), make_model(0.0).double()
    history = train(model, TOKENIZER, make_examples(), settings)

    encoded = encode(make_examples(), TOKENIZER, 64)
    decayed = [p for p in reference.parameters() if p.ndim == 2]
    others = [p for p in reference.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}], weight_decay=0.1
    )
    order = [rows for epoch in range(3) for rows in batches(encoded, 6, 0, epoch)][:9]
    for step, rows in enumerate(order):
        total = count = 0
        for row in (encoded[i] for i in rows):
            ids = torch.tensor(row.input_ids, dtype=torch.long)
            log_p = reference(ids[None]).logits[0].log_softmax(1)
            for t in np.flatnonzero(row.loss_mask):
                total, count = total - log_p[t - 1, ids[t]], count + 1
        optimizer.zero_grad()
        (total / count).backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 9, settings)
        optimizer.step()
        assert history.loss[step] == pytest.approx((total / count).item(), abs=1e-10)
        assert history.grad_norm[step] == pytest.approx(norm.item(), abs=1e-9)
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-9)
    assert not model.training


def test_takes_rows_of_tokens_a_function_and_an_order():
    plain, other = make_model(0.0), make_model(0.0)
    first = train(plain, TOKENIZER, make_examples(), config(epochs=2))
    encoded = encode(make_examples(), TOKENIZER, 64)
    second = train(other, TOKENIZER, encoded, config(epochs=2), likelihood)
    assert same(weights(plain), weights(other)) and first[STEADY].equals(second[STEADY])

    def order(rows, size, seed, epoch):
        return [[epoch, size], [seed + 3]]

    third = train(make_model(0.0), TOKENIZER, encoded, config(epochs=2), order=order)
    lengths = [encoded[epoch].length + encoded[6].length for epoch in (0, 1)]
    assert third.tokens.diff().fillna(third.tokens).tolist()[::2] == lengths
    assert third.epoch.tolist() == [1, 1, 2, 2]


def test_accumulation_equals_one_large_batch():
    curves = []
    for batch_size, steps in ((9, 1), (4, 3), (2, 5)):
        settings = config(epochs=4, batch_size=batch_size, gradient_accumulation_steps=steps)
        curves.append(train(make_model(0.0).double(), TOKENIZER, make_examples(9), settings))
    for other in curves[1:]:
        assert other.loss.tolist() == pytest.approx(curves[0].loss.tolist(), abs=1e-10)
        assert other.tokens.tolist() == curves[0].tokens.tolist()


@pytest.mark.parametrize("objective", ["likelihood", "unlikelihood", "negative", "contrastive"])
def test_every_objective_learns(objective):
    history = train(make_model(0.0), TOKENIZER, make_examples(), config(epochs=12), objective)
    assert history.loss.tail(4).mean() < history.loss.head(4).mean() - 0.3


def test_only_what_requires_grad_moves():
    model = make_lora()
    before = weights(model)
    train(model, TOKENIZER, make_examples(), config(max_steps=3))
    for name, value in weights(model).items():
        assert torch.equal(value, before[name]) != ("lora_" in name), name


def test_history_and_the_three_ways_to_stop():
    examples = make_examples()
    lengths = [row.length for row in encode(examples, TOKENIZER, 64)]
    epochs = train(make_model(), TOKENIZER, examples, config(epochs=2))
    assert list(epochs.columns) == list(COLUMNS)
    assert epochs.step.tolist() == list(range(1, 9)) and epochs.epoch.tolist() == [1] * 4 + [2] * 4
    assert epochs.tokens.iloc[[3, 7]].tolist() == [sum(lengths), 2 * sum(lengths)]
    assert (epochs.seconds.diff().dropna() > 0).all() and (epochs.grad_norm > 0).all()
    assert len(train(make_model(), TOKENIZER, examples, config(max_steps=5))) == 5
    for budget, steps in ((1, 1), (int(epochs.tokens[5]), 6), (int(epochs.tokens[5]) + 1, 7)):
        assert len(train(make_model(), TOKENIZER, examples, config(max_tokens=budget))) == steps


# --- randomness ---------------------------------------------------------------------------------------


def test_seeds_decide_everything_and_nothing_leaks():
    runs = {}
    for name, seed, noise in (("first", 0, False), ("again", 0, True), ("other", 1, False)):
        model = make_lora()
        torch.manual_seed(99)
        draw = (lambda epoch, model: {"x": torch.rand(7).sum()}) if noise else None
        history = train(model, TOKENIZER, make_examples(), config(epochs=2, seed=seed), on_epoch=draw)
        runs[name] = (weights(model), history.loss.tolist(), torch.rand(1).item())
    assert same(runs["first"][0], runs["again"][0]) and runs["first"][1] == runs["again"][1]
    assert runs["first"][1] != runs["other"][1]
    torch.manual_seed(99)
    assert {run[2] for run in runs.values()} == {
        torch.rand(1).item()
    }  # the caller's generator was not touched


# --- on_epoch -----------------------------------------------------------------------------------------


def test_on_epoch_sees_the_model_and_its_numbers_are_kept(tmp_path):
    calls = []

    def on_epoch(epoch: int, model: torch.nn.Module) -> dict[str, float]:
        calls.append((epoch, model.training))
        return {"valid": epoch / 4}

    settings = config(max_steps=10)  # two epochs of 4 steps, half of a third
    history = train(make_model(), TOKENIZER, make_examples(), settings, out_dir=tmp_path, on_epoch=on_epoch)
    assert calls == [(1, False), (2, False), (3, False)]
    assert history.valid.dropna().to_dict() == {3: 0.25, 7: 0.5, 9: 0.75}
    again = train(make_model(), TOKENIZER, make_examples(), settings, out_dir=tmp_path, on_epoch=on_epoch)
    assert len(calls) == 3 and again.equals(history)
    with pytest.raises(
        ValueError, match="on_epoch must not return 'loss', a column of the history; rename it"
    ):
        train(make_model(), TOKENIZER, make_examples(), config(epochs=1), on_epoch=lambda e, m: {"loss": 0.0})


def test_progress_bar_shows_loss_and_speed_or_nothing(capsys):
    train(make_model(), TOKENIZER, make_examples(), config(epochs=1))
    assert capsys.readouterr() == ("", "")
    train(make_model(), TOKENIZER, make_examples(), config(epochs=1, progress=True))
    out, err = capsys.readouterr()
    assert out == "" and "4/4" in err and "loss " in err and "tokens/s" in err


# --- checkpoints --------------------------------------------------------------------------------------

LONG = dict(max_steps=60, checkpoint_every=1)


def test_killed_run_resumes_to_identical_weights(tmp_path):
    command = [sys.executable, __file__, "killed", str(tmp_path)]
    child = subprocess.Popen(command, env=os.environ | ALONE, stderr=subprocess.PIPE)
    file = tmp_path / CHECKPOINT
    deadline = time.monotonic() + 300
    while not file.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    ended = child.poll()
    child.kill()
    error = child.communicate()[1].decode()
    assert ended is None, error
    with safe_open(file, "pt") as stored:
        done = len(stored.get_tensor("history"))
    assert 0 < done < 60

    resumed, whole = make_lora(), make_lora()
    second = train(resumed, TOKENIZER, make_examples(), config(**LONG), out_dir=tmp_path)
    first = train(whole, TOKENIZER, make_examples(), config(max_steps=60))
    assert same(weights(resumed), weights(whole))
    assert second[STEADY].equals(first[STEADY])
    assert (second.seconds.diff().dropna() > 0).all()


def test_checkpoint_holds_the_trained_tensors_and_no_other(tmp_path):
    model = make_lora()
    train(model, TOKENIZER, make_examples(), config(max_steps=2), out_dir=tmp_path)
    assert [path.name for path in tmp_path.glob("[!.]*")] == [CHECKPOINT]
    with safe_open(tmp_path / CHECKPOINT, "pt") as stored:
        names = set(stored.keys()) - {"history"}
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        parts = ("weight", "step", "exp_avg", "exp_avg_sq")
        assert names == {f"{part}/{name}" for part in parts for name in trained}
        assert all(torch.equal(stored.get_tensor(f"weight/{name}"), p) for name, p in trained.items())


def test_a_finished_run_is_loaded_not_repeated(tmp_path):
    first, second = make_model(), make_model()
    history = train(first, TOKENIZER, make_examples(), config(max_steps=3), out_dir=tmp_path)
    settings = config(max_steps=3, checkpoint_every=1)  # how often it is written changes nothing
    assert train(second, TOKENIZER, make_examples(), settings, out_dir=tmp_path).equals(history)
    assert same(weights(first), weights(second))


def test_checkpoints_of_other_runs_are_refused(tmp_path):
    settings, examples = config(max_steps=3), make_examples()
    train(make_lora(), TOKENIZER, examples, settings, out_dir=tmp_path)
    other = [replace(examples[0], completion="0+0=1"), *examples[1:]]
    for part, arguments in {
        "data": (make_lora(), other, settings, "likelihood"),
        "model": (make_lora(seed=1), examples, settings, "likelihood"),
        "objective": (make_lora(), examples, settings, "negative"),
        "lr, seed": (make_lora(), examples, replace(settings, lr=0.02, seed=1), "likelihood"),
    }.items():
        model, data, changed, objective = arguments
        before = weights(model)
        with pytest.raises(
            ValueError, match=f"{CHECKPOINT} belongs to another run: other {part}; choose another folder"
        ):
            train(model, TOKENIZER, data, changed, objective, tmp_path)
        assert same(weights(model), before)


def test_a_run_of_another_adapter_or_objective_is_refused(tmp_path):
    """Kind: partials of one function that share a result; as in snad-space/ztf-viewer#640."""
    settings, examples = config(max_steps=3), make_examples()
    train(make_lora(), TOKENIZER, examples, settings, partial(unlikelihood, weight=0.1), tmp_path)
    with pytest.raises(ValueError, match="other objective"):
        train(make_lora(), TOKENIZER, examples, settings, partial(unlikelihood, weight=0.2), tmp_path)
    dropped = make_lora()
    next(module for module in dropped.modules() if isinstance(module, torch.nn.Dropout)).p = 0.5
    started = make_lora()
    with torch.no_grad():
        next(p for p in started.parameters() if p.requires_grad).add_(0.01)
    for model in (dropped, started):
        with pytest.raises(ValueError, match="other model"):
            train(model, TOKENIZER, examples, settings, partial(unlikelihood, weight=0.1), tmp_path)


def test_any_flipped_byte_of_a_checkpoint_is_refused(tmp_path):
    """Kind: a bit that flips on disk, in the tensors or in the header; as in pytorch/torchtitan#4011,
    safetensors/safetensors#220, sgl-project/sglang#13870.
    """
    settings, examples = config(max_steps=3), make_examples(6)
    train(make_lora(), TOKENIZER, examples, settings, out_dir=tmp_path)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    for place in [*range(3, 400, 40), *range(400, len(whole), len(whole) // 24)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        before = weights(model := make_lora())
        with pytest.raises(ValueError, match=rf"{CHECKPOINT} (is damaged|belongs to another run)"):
            train(model, TOKENIZER, examples, settings, out_dir=tmp_path)
        assert same(weights(model), before)


# --- bad input ----------------------------------------------------------------------------------------


def test_bad_input_is_refused():
    def refused(message: str, model=None, examples=None, settings=None, **more) -> None:
        with pytest.raises(ValueError, match=message):
            train(
                model or make_model(),
                TOKENIZER,
                examples or make_examples(),
                settings or config(epochs=1),
                **more,
            )

    refused("objective must be one of 'likelihood', .*; got 'mix'", objective="mix")
    refused("preset must be one of 'fixed', 'faithful'; got 'new'", preset="new")
    refused("warmup_steps must be below all 4 steps; got 4", settings=config(epochs=1, warmup_steps=4))
    refused("checkpoint_every needs out_dir", settings=config(epochs=1, checkpoint_every=2))
    refused("model must have a parameter to train", model=make_model().requires_grad_(False))
    refused(
        "example 'long': the question has 65 tokens, max_length is 64",
        examples=[Example("long", "~" * 65, "1")],
    )
    with pytest.raises(ValueError, match="examples must not be empty; there is nothing to learn from"):
        train(make_model(), TOKENIZER, [], config(epochs=1))


def test_a_loss_that_is_not_finite_stops_before_the_weights(tmp_path):
    model, seen = make_model(), []

    def remember(epoch: int, model: torch.nn.Module) -> None:
        seen.append(weights(model))

    settings = config(epochs=9, batch_size=20, lr=1e20, checkpoint_every=1)
    with pytest.raises(FloatingPointError) as caught:
        train(model, TOKENIZER, make_examples(), settings, out_dir=tmp_path, on_epoch=remember)
    message = str(caught.value)
    step = len(seen) + 1
    assert f"at step {step}, not taken" in message
    assert all(f"sum {a}" in message for a in range(20))
    assert f"last good checkpoint: {tmp_path / CHECKPOINT}" in message
    assert all(value.isfinite().all() for value in weights(model).values())
    assert same(weights(model), seen[-1])
    assert not model.training
    with safe_open(tmp_path / CHECKPOINT, "pt") as stored:
        assert len(stored.get_tensor("history")) == step - 1
    with pytest.raises(FloatingPointError, match="last good checkpoint: none"):
        train(make_model(), TOKENIZER, make_examples(), replace(settings, checkpoint_every=None))


# --- several processes --------------------------------------------------------------------------------


def distributed(path: Path) -> None:
    """5 micro-batches in two steps of an epoch; the last micro-batch has one row, so a process has none."""
    settings = config(epochs=3, batch_size=6, gradient_accumulation_steps=3)
    history = train(make_model(0.0), TOKENIZER, make_examples(25), settings, out_dir=path.parent / "run")
    path.with_suffix(f".{os.environ.get('RANK', 'one')}").write_text(
        json.dumps(history[STEADY].to_dict("list"))
    )


def test_two_processes_give_the_curve_of_one(tmp_path):
    (tmp_path / "two").mkdir()
    in_two_processes(__file__, "distributed", tmp_path / "two" / "history", through=ACCELERATE)
    (tmp_path / "one").mkdir()
    distributed(tmp_path / "one" / "history")
    one, first, second = (
        json.loads((tmp_path / name).read_text())
        for name in ("one/history.one", "two/history.0", "two/history.1")
    )
    assert first == second
    assert one["step"] == first["step"] and one["tokens"] == first["tokens"] and len(one["step"]) == 6
    assert first["loss"] == pytest.approx(one["loss"], rel=2e-5)
    assert first["grad_norm"] == pytest.approx(one["grad_norm"], rel=2e-4)


if __name__ == "__main__":  # what the tests above run in processes of their own
    torch.set_num_threads(1)
    if sys.argv[1] == "killed":
        slow = config(**LONG)
        train(
            make_lora(),
            TOKENIZER,
            make_examples(),
            slow,
            out_dir=sys.argv[2],
            on_epoch=lambda e, m: time.sleep(0.5),
        )
    else:
        distributed(Path(sys.argv[2]))


def test_compiled_it_learns_the_same_and_the_model_stays_plain(monkeypatch):
    # traced and differentiated as always, but without the minute that a C++ compiler takes
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    examples, histories = make_examples(6), []
    for compiled in (False, True):
        model, calls = make_model(0.0), []  # dropout would draw other numbers
        del model.model.layers[1]
        frame = train(
            *(model, TOKENIZER, examples, config(max_steps=3, compile=compiled)),
            on_epoch=lambda epoch, trained, calls=calls: calls.append(type(trained)),
        )
        histories.append(frame[["loss", "grad_norm"]])
        assert calls and set(calls) == {type(model)}
    pd.testing.assert_frame_equal(*histories, atol=1e-5, rtol=1e-4)
