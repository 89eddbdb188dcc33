"""The teachers' cache against loops over single rows, and the student that learns from it."""

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from negdistill.data.prompts import format_prompt
from negdistill.method.nat import attach, detach, view
from negdistill.method.nat_unit import NATConfig
from negdistill.method.nce import BETA_MODES, kd_weights
from negdistill.runs.digests import digest_tree
from negdistill.runs.folder import MANIFEST
from negdistill.training import teacher_cache as nce
from negdistill.training.batching import Example, encode, pad_id, real_text_tokenizer
from negdistill.training.loop import TrainConfig, train
from negdistill.training.teacher_cache import Remainder, teacher_cache

TOKENIZER = real_text_tokenizer(["Problem:\nSolution:\n0123456789+="] * 4, vocab_size=270)
PAD, VOCABULARY = pad_id(TOKENIZER), len(TOKENIZER)
EXAMPLES = [
    Example(f"sum {a}", format_prompt(f"{a}+{7 * a}"), "+".join("1" * a) + f"={a}" if a else "0")
    for a in (3, 0, 9, 1, 5, 2, 7, 4, 8, 6)
]


def make_base(seed=0):
    torch.manual_seed(seed)
    config = dict(vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2)
    config |= dict(num_attention_heads=2, max_position_embeddings=64, initializer_range=0.3)
    return LlamaForCausalLM(LlamaConfig(**config)).double().eval()


def make_nat(seed=0):
    """A base with NAT, both branches and the unit as if they had been trained."""
    model = attach(make_base(), NATConfig(r=2, unit_dim=3, dropout=0.5))
    torch.manual_seed(seed + 1)
    for name, parameter in model.named_parameters():
        if any(part in name for part in ("lora", "query", "key", "value_")):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def model():
    return make_nat()


@pytest.fixture(scope="module")
def rows():
    return encode(EXAMPLES, TOKENIZER, 64)


def build(model, rows, folder, **changes):
    return teacher_cache(model, rows, PAD, folder, **dict(batch_size=3, progress=False) | changes)


@torch.no_grad()
def by_loops(model, row, name, temperature=1.0):
    """Log probabilities (T, V) at the targets of one row, alone and without padding."""
    ids = torch.tensor(row.input_ids, dtype=torch.long)[None]
    with view(model, name):
        out = model(ids).logits[0]
    places = [t for t in range(1, len(row.input_ids)) if row.loss_mask[t]]
    return torch.stack([torch.log_softmax(out[t - 1] / temperature, 0) for t in places])


def beta_by_loops(model, row):
    total = 0.0
    neg, nat = by_loops(model, row, "neg"), by_loops(model, row, "nat")
    for p, q in zip(neg.tolist(), nat.tolist(), strict=True):
        total += sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))
    return math.tanh(total / len(neg))


# --- the cache ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_cache_holds_beta_and_the_whole_distribution(model, rows, tmp_path, monkeypatch, temperature):
    monkeypatch.setattr(nce, "SHARD", 4)
    cache = build(model, rows, tmp_path / "cache", temperature=temperature, top_k=VOCABULARY)
    assert cache.beta.tolist() == pytest.approx([beta_by_loops(model, row) for row in rows], abs=1e-12)
    assert 0.001 < cache.beta.min() and cache.beta.max() < 0.999
    for number, row in enumerate(rows):
        log_probs, ids = cache.log_probs(number)
        assert ids is None
        assert torch.allclose(log_probs, by_loops(model, row, "nat", temperature), rtol=0, atol=1e-12)
    assert cache.remainder == Remainder(0.0, 0.0)
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 3


def test_a_large_vocabulary_is_cut_to_the_largest_and_the_rest(model, rows, tmp_path):
    cache = build(model, rows, tmp_path, top_k=5)
    assert cache.beta.tolist() == pytest.approx([beta_by_loops(model, row) for row in rows], abs=1e-12)
    left_out = []
    for number, row in enumerate(rows):
        log_probs, ids = cache.log_probs(number)
        assert log_probs.shape == (int(row.loss_mask.sum()), 6) and ids.dtype == torch.long
        for line, full in enumerate(by_loops(model, row, "nat").tolist()):
            largest = sorted(range(VOCABULARY), key=lambda v: -full[v])[:5]
            assert ids[line].tolist() == largest
            rest = sum(math.exp(full[v]) for v in range(VOCABULARY) if v not in largest)
            expected = [full[v] for v in largest] + [math.log(rest)]
            assert log_probs[line].tolist() == pytest.approx(expected, abs=1e-11)
            left_out.append(rest)
    assert cache.remainder.mean == pytest.approx(sum(left_out) / len(left_out))
    assert cache.remainder.largest == pytest.approx(max(left_out))


def test_what_takes_no_more_space_in_full_is_kept_in_full(model, rows, tmp_path):
    half = -(-VOCABULARY // 2)
    assert build(model, rows[:2], tmp_path / "a", top_k=half).log_probs(0)[1] is None
    assert build(model, rows[:2], tmp_path / "b", top_k=half - 1).log_probs(0)[1] is not None


def test_the_model_is_left_as_it_was(rows, tmp_path):
    nat = make_nat().train()
    before = {name: value.clone() for name, value in nat.state_dict().items()}
    random = torch.get_rng_state()
    build(nat, rows, tmp_path)
    assert nat.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], value) for name, value in nat.state_dict().items())
    detach(nat)  # the same base, in place
    assert torch.equal(nat(torch.arange(9)[None]).logits, make_base()(torch.arange(9)[None]).logits)


def test_a_killed_pass_continues_to_the_same_cache(model, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(nce, "SHARD", 4)
    whole = build(model, rows, tmp_path / "whole")
    write, written = nce.save_file, []

    def fail_at_the_second(tensors, path):
        if written:
            path.write_bytes(b"half a fi")
            raise KeyboardInterrupt
        written.append(path)
        write(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(nce, "save_file", fail_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            build(model, rows, tmp_path / "cut")
    assert sorted(digest_tree(tmp_path / "cut")) == ["00000.safetensors", MANIFEST]
    computed = []
    with monkeypatch.context() as patch:
        shard = nce._shard
        patch.setattr(nce, "_shard", lambda *given: computed.append(len(given[1])) or shard(*given))
        resumed = build(model, rows, tmp_path / "cut")
        assert computed == [4, 2]  # the first shard is there
        build(model, rows, tmp_path / "cut")
        assert computed == [4, 2]
    files = [digest_tree(tmp_path / name) for name in ("whole", "cut")]
    for found in files:
        del found[MANIFEST]  # its seconds differ
    assert files[0] == files[1] and len(files[0]) == 3
    assert torch.equal(whole.beta, resumed.beta) and whole.key == resumed.key


def test_a_foreign_or_stale_cache_is_refused(model, rows, tmp_path, monkeypatch):
    build(model, rows, tmp_path)
    with pytest.raises(ValueError, match="belongs to another run: other data; choose another"):
        build(model, rows[:-1], tmp_path)
    with pytest.raises(ValueError, match="other model"):
        build(make_nat(seed=5), rows, tmp_path)
    with pytest.raises(ValueError, match="other temperature, top_k"):
        build(model, rows, tmp_path, top_k=3, temperature=2.0)
    monkeypatch.setattr(nce, "digest_code", lambda names: "changed")
    with pytest.raises(ValueError, match="other code"):
        build(model, rows, tmp_path)


def test_a_corrupted_cache_is_refused(model, rows, tmp_path):
    build(model, rows, tmp_path)
    path = tmp_path / "00000.safetensors"
    good = path.read_bytes()
    for bad in (good[:-1] + bytes([good[-1] ^ 1]), good[:-8]):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match="00000.safetensors is not as manifest.json recorded it"):
            build(model, rows, tmp_path)
    path.write_bytes(good)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        build(model, rows, tmp_path)


def test_bad_calls_are_refused(model, rows, tmp_path):
    with pytest.raises(ValueError, match="top_k must be at least 1; got 0"):
        build(model, rows, tmp_path, top_k=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        build(model, rows, tmp_path, batch_size=0)
    with pytest.raises(ValueError, match="temperature must be greater than 0; got 0"):
        build(model, rows, tmp_path, temperature=0)
    with pytest.raises(ValueError, match="the model carries no NAT"):
        build(make_base(), rows, tmp_path)
    with pytest.raises(ValueError, match="the view 'neg' was never trained"):
        build(attach(make_base(), NATConfig(r=2, unit_dim=3)), rows, tmp_path)
    assert not list(tmp_path.iterdir())


# --- weights ------------------------------------------------------------------------------------------


def test_weights_by_hand():
    beta = torch.tensor([0.5, 0.1, 0.4, 0.2])
    assert kd_weights(beta).tolist() == pytest.approx([1.0, 0.6, 0.9, 0.7])
    assert kd_weights(beta, "none").tolist() == [1.0] * 4
    assert kd_weights(beta, "mean").tolist() == pytest.approx([0.8] * 4)
    assert kd_weights(beta, "inverse").tolist() == pytest.approx([0.6, 1.0, 0.7, 0.9])
    shuffled = {tuple(kd_weights(beta, "shuffled", seed).tolist()) for seed in range(8)}
    assert len(shuffled) > 3
    assert all(sorted(one) == pytest.approx([0.6, 0.7, 0.9, 1.0]) for one in shuffled)
    assert torch.equal(kd_weights(beta, "shuffled", 3), kd_weights(beta, "shuffled", 3))
    with pytest.raises(ValueError, match="beta_mode must be one of 'paper', 'none', 'mean', .*; got 'both'"):
        kd_weights(beta, "both")


def test_a_teacher_hands_out_rows_in_the_order_asked_for(model, rows, tmp_path):
    for top_k in (VOCABULARY, 4):
        cache = build(model, rows, tmp_path / str(top_k), top_k=top_k, temperature=3.0)
        teacher = cache.teacher("inverse", mixing=0.25)
        batch = teacher([7, 2])
        pairs = [cache.log_probs(7), cache.log_probs(2)]
        assert torch.equal(batch["teacher_log_probs"], torch.cat([log_probs for log_probs, _ in pairs]))
        assert ("teacher_ids" in batch) == (top_k == 4)
        if top_k == 4:
            assert torch.equal(batch["teacher_ids"], torch.cat([ids for _, ids in pairs]))
        assert torch.equal(batch["weight"], kd_weights(cache.beta, "inverse")[[7, 2]])
        assert (batch["mixing"].item(), batch["temperature"].item()) == (0.25, 3.0)
        none = teacher([])
        assert {key: value.shape[1:] for key, value in none.items()} == {
            key: value.shape[1:] for key, value in batch.items()
        }
        assert len(none["teacher_log_probs"]) == len(none["weight"]) == 0
    with pytest.raises(ValueError, match="mixing must lie between 0 and 1; got 1.5"):
        cache.teacher(mixing=1.5)


def test_keys_tell_teachers_apart(model, rows, tmp_path):
    cache = build(model, rows, tmp_path)
    keys = {cache.teacher(mode).key for mode in BETA_MODES}
    keys |= {cache.teacher("shuffled", seed=1).key, cache.teacher(mixing=0.4).key}
    assert len(keys) == len(BETA_MODES) + 2
    assert build(model, rows, tmp_path).teacher().key == cache.teacher().key


# --- training -----------------------------------------------------------------------------------------


def student():
    torch.manual_seed(9)
    lora = LoraConfig(r=2, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return get_peft_model(make_base(), lora).double()


@pytest.mark.parametrize("mode", ["paper", "inverse"])
def test_a_step_minimises_the_loss_of_the_method(model, rows, tmp_path, mode):
    """The first loss and gradient norm, from the formula over single rows, nothing cached and no chunks."""
    mixing, temperature, top_k = 0.4, 1.5, VOCABULARY
    cache = build(model, rows, tmp_path, temperature=temperature, top_k=top_k)
    config = TrainConfig(max_steps=1, batch_size=16, lr=1e-3, max_grad_norm=1e9, progress=False)
    teacher = cache.teacher(mode, mixing)
    history = train(student(), TOKENIZER, EXAMPLES, config, "distillation", teacher=teacher)

    beta = [beta_by_loops(model, row) for row in rows]
    if mode == "inverse":
        ranks = sorted(range(len(beta)), key=beta.__getitem__)
        beta = {row: beta[other] for row, other in zip(ranks, reversed(ranks), strict=True)}
    lora, total, targets = student(), 0.0, 0
    for number, row in enumerate(rows):
        p_nat = by_loops(model, row, "nat", temperature).exp()
        out = lora(torch.tensor(row.input_ids, dtype=torch.long)[None]).logits[0]
        places = [t for t in range(1, len(row.input_ids)) if row.loss_mask[t]]
        for line, t in enumerate(places):
            hard = -torch.log_softmax(out[t - 1], 0)[int(row.input_ids[t])]
            soft = -(p_nat[line] * torch.log_softmax(out[t - 1] / temperature, 0)).sum()
            total = total + (1 - mixing) * hard + mixing * (0.5 + beta[number]) * temperature**2 * soft
        targets += len(places)
    (total / targets).backward()
    squares = sum(p.grad.square().sum() for p in lora.parameters() if p.grad is not None)
    assert history["loss"].item() == pytest.approx(total.item() / targets, abs=1e-10)
    assert history["grad_norm"].item() == pytest.approx(squares.sqrt().item(), rel=1e-9)


def test_training_asks_for_the_right_teacher(model, rows, tmp_path):
    config = TrainConfig(max_steps=4, batch_size=4, checkpoint_every=2, progress=False)
    cache = build(model, rows, tmp_path / "cache")
    with pytest.raises(ValueError, match="objective 'distillation' needs a teacher"):
        train(student(), TOKENIZER, EXAMPLES, config, "distillation", tmp_path)
    with pytest.raises(ValueError, match="objective 'likelihood' needs no teacher"):
        train(student(), TOKENIZER, EXAMPLES, config, "likelihood", tmp_path, teacher=cache.teacher())
    arguments = (config, "distillation", tmp_path / "run")
    with pytest.raises(ValueError, match="teacher must be made for these examples in this order; it was"):
        train(student(), TOKENIZER, EXAMPLES[::-1], *arguments, teacher=cache.teacher())
    train(student(), TOKENIZER, EXAMPLES, *arguments, teacher=cache.teacher())
    with pytest.raises(ValueError, match="checkpoint.safetensors belongs to another run: other teacher"):
        train(student(), TOKENIZER, EXAMPLES, *arguments, teacher=cache.teacher("none"))


# --- the benchmark ------------------------------------------------------------------------------------


def test_benchmark_runs_and_finds_both_forms_equal(tmp_path, capsys, monkeypatch):
    folder = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("benchmark_nce", folder / "nce.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)

    def flops(action, device):  # in place of seconds, which a busy machine makes what it likes at this size
        with FlopCounterMode(display=False) as counter:
            action()
        return counter.get_total_flops()

    monkeypatch.setattr(benchmark, "timed", flops)
    arguments = "--teacher arithmetic --rows 60 --model-width 32 --layers 1 --vocabulary 300 --batch 4 "
    arguments += "--batches 2 --repeats 5 --loss-tokens 64 --loss-vocabulary 1000 --top-k 5 --out"
    benchmark.main([*arguments.split(), str(tmp_path)])
    result = json.loads((tmp_path / "nce.json").read_text())
    assert result["difference"] < 1e-10 and result["time"]["ratio"][1] > 1
    assert result["memory"].keys() == set(benchmark.FORMS)
    assert "released / ours" in (tmp_path / "nce.md").read_text()
    assert "A cached step takes" in capsys.readouterr().out
