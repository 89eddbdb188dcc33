"""The unit against loops over tokens and numbers, and NAT on small random models of four architectures."""

import copy
import importlib.util
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import CheckpointError, checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3Config,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.pytorch_utils import Conv1D

from negdistill.method.nat import (
    attach,
    checkpointing,
    collect_alpha,
    detach,
    frozen,
    load_nat,
    require_trained,
    save_nat,
    view,
)
from negdistill.method.nat_unit import UNIT, VIEWS, DualLinear, NATConfig, integrate_plain, keep_mask
from negdistill.method.random_branch import randomize_negative
from negdistill.training.adapters import lora
from negdistill.training.loop import TrainConfig
from negdistill.training.settings import EMBEDDED

SMALL = {"vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32}
QV = NATConfig(r=3, lora_alpha=6, dropout=0.0, unit_dim=5)


def llama(seed=0, **changes):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**(SMALL | HEADS | changes))).eval()


def qwen2():
    return Qwen2ForCausalLM(Qwen2Config(**SMALL, **HEADS)).eval()


def qwen3():
    return Qwen3ForCausalLM(Qwen3Config(**SMALL, **HEADS, head_dim=4)).eval()


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=16, n_layer=2, n_head=2, n_positions=32)).eval()


IDS = torch.randint(0, 61, (2, 7), generator=torch.Generator().manual_seed(1))


def logits(model, name=None):
    with torch.no_grad():
        if name is None:
            return model(IDS).logits
        with view(model, name):
            return model(IDS).logits


def train(model, steps=3):
    """A few optimiser steps on random tokens; everything that may move moves."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def dual_layers(model):
    return [module for module in model.modules() if isinstance(module, DualLinear)]


def peft_folder(folder, model, **changes):
    """Train and save a stock PEFT LoRA; returns its folder and its logits."""
    settings = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    peft_model = train(get_peft_model(model, LoraConfig(**(settings | changes))))
    peft_model.save_pretrained(folder)
    return folder, logits(peft_model.eval())


def one_layer(base=None, seed=3, config=None, dtype=torch.float64):
    """A DualLinear 6 -> 4 with every matrix drawn at random."""
    torch.manual_seed(seed)
    base = base or nn.Linear(6, 4, dtype=dtype)
    config = config or NATConfig(r=2, lora_alpha=3, dropout=0.0, target_modules=("p",), unit_dim=3)
    layer = attach(nn.ModuleDict({"p": base}), config)["p"]
    for parameter in layer.parameters():
        if parameter.dtype.is_floating_point:
            nn.init.normal_(parameter.detach(), std=0.7)
    layer.scaling["neg"] = 0.8
    return layer


# --- the reference: loops ------------------------------------------------------------------------------


def times(matrix, vector):
    return [sum(m * v for m, v in zip(row, vector, strict=True)) for row in matrix]


def reference(layer, x, x_pos=None, shift=0.5):
    """out [B][T][d_out] and alpha- [B][T] of the published formula, number by number."""
    names = {"q": layer.query, "k": layer.key, "v1": layer.value_in, "v2": layer.value_out}
    m = {name: linear.weight.tolist() for name, linear in names.items()}
    pairs = {b: (layer.lora_A[b].weight.tolist(), layer.lora_B[b].weight.tolist()) for b in ("pos", "neg")}
    out, alphas = [], []
    for b, sequence in enumerate(x.tolist()):
        rows, weights = [], []
        for t, token in enumerate(sequence):
            y = layer.base_layer(x[b, t]).tolist()
            seen = {"pos": token if x_pos is None else x_pos[b, t].tolist(), "neg": token}
            h = {}
            for branch, (a_matrix, b_matrix) in pairs.items():
                low = times(b_matrix, times(a_matrix, seen[branch]))
                h[branch] = [
                    base + layer.scaling[branch] * number for base, number in zip(y, low, strict=True)
                ]
            query = times(m["q"], token)
            score = {
                branch: sum(q * k for q, k in zip(query, times(m["k"], h[branch]), strict=True))
                for branch in h
            }
            total = sum(math.exp(number) for number in score.values())
            alpha = {
                "pos": math.exp(score["pos"]) / total + shift,
                "neg": math.exp(score["neg"]) / total - shift,
            }
            for branch in h:
                inner = [z * 0.5 * (1 + math.erf(z / math.sqrt(2))) for z in times(m["v1"], h[branch])]
                y = [n + alpha[branch] * v for n, v in zip(y, times(m["v2"], inner), strict=True)]
            rows.append(y)
            weights.append(alpha["neg"])
        out.append(rows)
        alphas.append(weights)
    return torch.tensor(out, dtype=torch.float64), torch.tensor(alphas, dtype=torch.float64)


class Bytes(nn.Module):
    """A projection that stores bytes, as 8-bit layers do: it can be called and not much else."""

    def __init__(self):
        super().__init__()
        self.in_features, self.out_features = 6, 4
        self.weight = nn.Parameter(torch.arange(24, dtype=torch.uint8).view(4, 6), requires_grad=False)

    def forward(self, x):
        return x @ ((self.weight.to(x.dtype) - 12) / 20).t()


@pytest.mark.parametrize("base", ["linear", "conv1d", "bytes"])
def test_forward_is_the_published_formula(base):
    bases = {"linear": nn.Linear(6, 4), "conv1d": Conv1D(4, 6), "bytes": Bytes()}
    layer = one_layer(bases[base]).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    out, alpha = reference(layer, x)
    branches = (layer.scaling[name] * layer.lora_B[name](layer.lora_A[name](x)) for name in ("pos", "neg"))
    unit = (getattr(layer, part).weight for part in UNIT)
    plain, plain_alpha = integrate_plain(x, layer.base_layer(x), *branches, *unit)
    torch.testing.assert_close(plain, out, rtol=1e-12, atol=1e-12)
    with collect_alpha(layer) as collected:
        torch.testing.assert_close(layer(x), out, rtol=1e-12, atol=1e-12)
    for found in (collected["p"][0], plain_alpha):
        torch.testing.assert_close(found, alpha[..., None], rtol=1e-12, atol=1e-12)
    assert 0.01 < alpha.abs().max() < 0.5


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_another_shift_moves_the_weights(shift):
    config = NATConfig(r=2, lora_alpha=3, dropout=0.0, target_modules=("p",), unit_dim=3, shift=shift)
    layer = one_layer(config=config)
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    out, alpha = reference(layer, x, shift=shift)
    with collect_alpha(layer) as collected:
        torch.testing.assert_close(layer(x), out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(collected["p"][0], alpha[..., None], rtol=1e-12, atol=1e-12)
    assert alpha.min() >= -shift and alpha.max() <= 1 - shift


def test_a_plain_sum_adds_both_branches():
    config = NATConfig(r=2, lora_alpha=3, dropout=0.0, target_modules=("p",), unit_dim=3, mix="sum")
    layer = one_layer(config=config)
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    with torch.no_grad():
        expected = [
            [
                [
                    y + layer.scaling["pos"] * p + layer.scaling["neg"] * n
                    for y, p, n in zip(
                        layer.base_layer(token).tolist(),
                        *(
                            times(
                                layer.lora_B[b].weight.tolist(), times(layer.lora_A[b].weight.tolist(), token)
                            )
                            for b in ("pos", "neg")
                        ),
                        strict=True,
                    )
                ]
                for token in sequence
            ]
            for sequence in x
        ]
        torch.testing.assert_close(layer(x), torch.tensor(expected, dtype=x.dtype), rtol=1e-12, atol=1e-12)


def test_the_positive_pair_alone_sees_dropped_input():
    config = NATConfig(r=2, lora_alpha=3, dropout=0.5, target_modules=("p",), unit_dim=3)
    layer = one_layer(config=config).train()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    torch.manual_seed(5)
    out = layer(x)
    torch.manual_seed(5)
    kept = keep_mask(x.shape, 2**15, x.device)
    torch.testing.assert_close(out, reference(layer, x, x * kept / 0.5)[0], rtol=1e-12, atol=1e-12)
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(layer.eval()(x), reference(layer, x)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("share", [1, 3277, 2**15, 62259, 65535])
def test_keep_mask_keeps_its_share(share):
    kept = keep_mask(torch.Size([1001, 301]), share, torch.device("cpu"))
    assert kept.shape == (1001, 301) and kept.dtype == torch.uint8 and set(kept.unique().tolist()) <= {0, 1}
    p, n = share / 2**16, kept.numel()
    assert abs(kept.double().mean().item() - p) < 5 * math.sqrt(p * (1 - p) / n) + 1 / n


@pytest.mark.parametrize(("dropout", "shift"), [(0.0, 0.5), (0.4, 0.5), (0.0, 0.0), (0.4, 1.0)])
@pytest.mark.parametrize("x_needs_gradient", [True, False])
def test_gradients_are_those_of_finite_differences(dropout, shift, x_needs_gradient):
    at = {"r": 2, "lora_alpha": 3, "target_modules": ("p",), "unit_dim": 3, "train_neg": True}
    layer = one_layer(config=NATConfig(**at, dropout=dropout, shift=shift)).train()
    names, values = zip(*((n, p) for n, p in layer.named_parameters() if p.requires_grad), strict=True)
    assert len(names) == 8
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=x_needs_gradient)

    def forward(x, *values):
        torch.manual_seed(9)
        return functional_call(layer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(forward, (x, *values))


def test_weights_of_the_branches_stay_in_range():
    layer = one_layer(dtype=torch.float32)
    layer.query.weight.detach().mul_(1e4)
    with collect_alpha(layer) as collected:
        layer(torch.randn(4, 50, 6))
    (alpha,) = collected["p"]
    assert alpha.shape == (4, 50, 1) and not alpha.requires_grad
    assert alpha.min() == -0.5 and alpha.max() == 0.5


# --- attach, views, detach -----------------------------------------------------------------------------

MODELS = [
    (llama, ("q_proj", "k_proj", "v_proj")),  # grouped queries: k and v are narrower than the stream
    (llama, EMBEDDED.target_modules),
    (qwen2, ("q_proj", "v_proj")),  # with bias
    (qwen3, ("self_attn.v_proj", "down_proj")),
    (gpt2, ("c_attn", "c_proj")),  # Conv1D
]


@pytest.mark.parametrize(("make", "targets"), MODELS)
def test_fresh_attach_changes_nothing(make, targets):
    model = make()
    before, plain = copy.deepcopy(model.state_dict()), logits(model)
    frozen = model.get_input_embeddings().weight.requires_grad_(False)
    assert attach(model, NATConfig(r=2, unit_dim=3, target_modules=targets)) is model
    for name in VIEWS:
        assert torch.equal(logits(model, name), plain), name
    assert {
        n.rpartition("_proj.")[2].rpartition("c_attn.")[2]
        for n, p in model.named_parameters()
        if p.requires_grad
    }
    assert detach(model) is model and not dual_layers(model)
    assert torch.equal(logits(model), plain)
    assert {key: value.tolist() for key, value in model.state_dict().items()} == {
        key: value.tolist() for key, value in before.items()
    }
    assert not frozen.requires_grad and all(p.requires_grad for p in model.parameters() if p is not frozen)


def test_only_the_positive_pair_and_the_unit_are_trained():
    model = attach(llama(), QV)
    parts = {n.split("_proj.")[1] for n, p in model.named_parameters() if p.requires_grad}
    unit = {"query.weight", "key.weight", "value_in.weight", "value_out.weight"}
    assert parts == unit | {"lora_A.pos.weight", "lora_B.pos.weight"}


def test_training_moves_what_is_trainable_and_nothing_else(tmp_path):
    folder, _ = peft_folder(tmp_path, llama())
    model = attach(llama(), QV, neg=folder)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    train(model.train())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name


def test_a_negative_pair_may_be_trained_and_a_unit_left_out(tmp_path):
    folder, _ = peft_folder(tmp_path / "negative", llama())
    kinds = {"unit": {"query", "key", "value_in", "value_out"}, "pos": {"lora_A.pos", "lora_B.pos"}}
    kinds["neg"] = {"lora_A.neg", "lora_B.neg"}
    for changes, expected in (
        ({"train_neg": True}, {"unit", "pos", "neg"}),
        ({"mix": "sum"}, {"pos"}),
        ({"mix": "sum", "train_neg": True}, {"pos", "neg"}),
        ({"shift": 1.0}, {"unit", "pos"}),
    ):
        model = attach(llama(), replace(QV, **changes), neg=folder)
        if changes.get("mix") == "sum":
            torch.testing.assert_close(logits(model), logits(model, "neg"), rtol=0, atol=1e-6)
            with pytest.raises(ValueError, match="the view 'nat' was never trained"):
                require_trained(model, "nat")
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        train(model.train())
        for name, parameter in model.named_parameters():
            trains = any(part in name for kind in expected for part in kinds[kind])
            assert torch.equal(parameter, before[name]) != trains == parameter.requires_grad, (changes, name)
        save_nat(model.eval(), tmp_path / "nat")
        loaded = load_nat(llama(), tmp_path / "nat")
        assert all(torch.equal(logits(loaded, name), logits(model, name)) for name in VIEWS)


def test_a_folder_from_before_these_settings_still_loads(saved):
    model, folder = saved
    stored = json.loads((folder / "nat_config.json").read_text())
    for name in ("shift", "train_neg", "mix"):
        del stored["config"][name]
    (folder / "nat_config.json").write_text(json.dumps(stored))
    assert torch.equal(logits(load_nat(llama(), folder)), logits(model))


@pytest.mark.parametrize("rslora", [False, True])
def test_negative_view_is_the_peft_model_and_nat_starts_at_the_base(tmp_path, rslora):
    plain = logits(llama())
    folder, expected = peft_folder(tmp_path, llama(), use_rslora=rslora)
    model = attach(llama(), QV, neg=folder)
    torch.testing.assert_close(logits(model, "neg"), expected, rtol=0, atol=1e-6)
    assert (expected - plain).abs().max() > 0.01
    for name in ("base", "pos", "nat"):
        assert torch.equal(logits(model, name), plain)


def test_start_does_not_depend_on_the_negative_adapter(tmp_path):
    folder, _ = peft_folder(tmp_path, llama())
    models = []
    for neg in (None, folder):
        model = llama()
        torch.manual_seed(4)
        models.append(attach(model, QV, neg=neg))
    for (name, one), (_, other) in zip(*(m.named_parameters() for m in models), strict=True):
        assert "neg" in name or torch.equal(one, other)


def test_views_nest_restore_and_leave_requires_grad_alone():
    model = train(attach(llama(), QV))
    flags = [p.requires_grad for p in model.parameters()]
    nat = logits(model)
    with view(model, "base"):
        base = logits(model)
        with view(model, "pos"):
            pos = logits(model)
            assert [p.requires_grad for p in model.parameters()] == flags
        assert torch.equal(logits(model), base)
        with pytest.raises(RuntimeError), view(model, "neg"):
            raise RuntimeError
        assert torch.equal(logits(model), base)
    assert torch.equal(logits(model), nat) and not torch.equal(nat, pos) and not torch.equal(pos, base)


def test_a_copy_has_a_view_of_its_own():
    model = train(attach(llama(), QV))
    other = copy.deepcopy(model)
    with view(other, "base"):
        assert torch.equal(logits(other), logits(llama())) and not torch.equal(logits(model), logits(other))


def test_alpha_is_collected_by_layer_and_only_inside():
    model = train(attach(llama(), QV))
    with collect_alpha(model) as alpha:
        logits(model)
        logits(model)
        logits(model, "pos")
    logits(model)
    assert sorted(alpha) == sorted(f"model.layers.{i}.self_attn.{p}_proj" for i in (0, 1) for p in "qv")
    assert all([a.shape for a in tensors] == [(2, 7, 1)] * 2 for tensors in alpha.values())
    assert all(dual.state.alpha is None for dual in dual_layers(model))


def test_frozen_weights_are_folded_once_and_give_the_same_bits(monkeypatch):
    model = train(attach(llama(), QV))
    before, counts = logits(model), []
    fold = DualLinear.fold
    monkeypatch.setattr(DualLinear, "fold", lambda layer: counts.append(layer.name) or fold(layer))
    with frozen(model), collect_alpha(model) as alpha:
        assert all(torch.equal(logits(model), before) for _ in range(3))
        assert sorted(counts) == sorted(alpha)  # one fold a layer
        assert all(len(tensors) == 3 for tensors in alpha.values())
        with view(model, "base"):
            assert torch.equal(logits(model), logits(llama()))
    with torch.no_grad():
        for layer in dual_layers(model):
            layer.lora_B["pos"].weight.add_(1.0)
    assert not torch.equal(logits(model), before)  # what was kept is gone with the block
    with frozen(model):
        assert not torch.equal(logits(model), before)


def test_random_negative_keeps_the_size(tmp_path):
    folder, _ = peft_folder(tmp_path, llama())
    model, again = (attach(llama(), QV, neg=folder) for _ in range(2))
    old = [
        (layer.lora_A["neg"].weight.clone(), layer.lora_B["neg"].weight.clone())
        for layer in dual_layers(model)
    ]
    randomize_negative(model, seed=7)
    randomize_negative(again, seed=7)
    assert torch.equal(logits(model, "neg"), logits(again, "neg"))
    for layer, (a, b) in zip(dual_layers(model), old, strict=True):
        new_a, new_b = layer.lora_A["neg"].weight, layer.lora_B["neg"].weight
        torch.testing.assert_close(new_a.norm(), a.norm())
        torch.testing.assert_close((new_b @ new_a).norm(), (b @ a).norm())
        assert abs(nn.functional.cosine_similarity((new_b @ new_a).flatten(), (b @ a).flatten(), dim=0)) < 0.5
        assert not new_a.requires_grad
    with pytest.raises(ValueError, match="'neg' was never trained"):
        randomize_negative(attach(llama(), QV))


# --- dtypes, checkpointing, compiling ------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["bfloat16 base", "autocast", "both"])
def test_bfloat16(tmp_path, mode):
    folder, _ = peft_folder(tmp_path, llama())
    model = train(attach(llama(), QV, neg=folder)).train()
    expected = model(IDS, labels=IDS)
    wanted = torch.autograd.grad(expected.loss, [p for p in model.parameters() if p.requires_grad])
    if mode != "autocast":
        for name, parameter in model.named_parameters():
            if not any(part in name for part in ("lora_", "query", "key", "value_")):
                parameter.data = parameter.data.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=mode != "bfloat16 base"):
        for name in VIEWS:
            assert logits(model, name).dtype == torch.bfloat16
        got = model(IDS, labels=IDS)
    grads = torch.autograd.grad(got.loss, [p for p in model.parameters() if p.requires_grad])
    assert all(grad.dtype == torch.float32 for grad in grads)
    assert (got.logits - expected.logits).norm() < 0.03 * expected.logits.norm()
    norm = torch.cat([grad.flatten() for grad in wanted]).norm()
    assert torch.cat([(a - b).flatten() for a, b in zip(grads, wanted, strict=True)]).norm() < 0.1 * norm


def test_added_matrices_follow_the_base():
    for base, added in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        layer = dual_layers(attach(llama().to(base), QV))[0]
        assert {p.dtype for name, p in layer.named_parameters() if "base_layer" not in name} == {added}


def gradients(model, forward_in, backward_in, **arguments):
    model.zero_grad()
    layer = model.model.layers[0].self_attn.v_proj
    x = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))
    with view(model, forward_in):
        out = checkpoint(layer, x, **arguments) if arguments else layer(x)
    with view(model, backward_in):
        out.square().sum().backward()
    return {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("forward_in", "backward_in"), [("nat", "base"), ("pos", "neg"), ("pos", "nat"), ("nat", "pos")]
)
def test_checkpoints_recompute_in_the_view_of_the_forward_pass(forward_in, backward_in):
    model = train(attach(llama(), QV))
    expected = gradients(model, forward_in, forward_in)
    got = gradients(model, forward_in, backward_in, **checkpointing(model))
    assert got.keys() == expected.keys() and expected
    for name, grad in expected.items():
        torch.testing.assert_close(got[name], grad)
    with pytest.raises(CheckpointError):
        gradients(model, forward_in, backward_in, use_reentrant=False)


def test_checkpointing_of_transformers_with_dropout_and_alpha():
    config = NATConfig(r=3, dropout=0.3, unit_dim=5)
    plain, saving = (train(attach(llama(), config)).train() for _ in range(2))
    saving.load_state_dict(plain.state_dict())
    saving.gradient_checkpointing_enable(checkpointing(saving))
    grads = []
    for model in (plain, saving):
        with collect_alpha(model) as alpha:
            torch.manual_seed(2)
            with view(model, "nat"):
                loss = model(IDS, labels=IDS).loss
            with view(model, "pos"):
                loss.backward()
        assert {len(tensors) for tensors in alpha.values()} == {1}
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad)


def test_compiles_without_graph_breaks():
    config = NATConfig(r=2, dropout=0.3, target_modules=("p",), unit_dim=3)
    layer = one_layer(config=config).train()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    for name in ("nat", "pos"):
        with view(layer, name):
            torch.manual_seed(1)
            (expected,) = torch.autograd.grad(layer(x).sum(), x)
            torch.manual_seed(1)
            (got,) = torch.autograd.grad(compiled(x).sum(), x)
        torch.testing.assert_close(got, expected)


def test_keeps_less_than_plain_autograd_would():
    """x, W0 x, one byte a number for dropout, and about u + 4 r numbers a token grow with the tokens."""
    layer = attach(
        nn.ModuleDict({"p": nn.Linear(64, 64)}), NATConfig(target_modules=("p",), unit_dim=16)
    ).train()
    x, kept = torch.randn(1, 500, 64, requires_grad=True), {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer["p"](x)
    weights = {p.untyped_storage().data_ptr() for p in layer.parameters()}
    size = sum(nbytes for key, (nbytes, tensor) in kept.items() if key not in weights and 500 in tensor.shape)
    assert size <= 500 * (64 + 64 + 16 + 2 * (8 + 1) + 1) * 4 + 500 * 64


# --- save and load -------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """A trained NAT model with a negative adapter of another rank, and the folder that it was saved in."""
    folder, _ = peft_folder(tmp_path / "negative", llama())
    model = train(attach(llama(), QV, neg=folder))
    save_nat(model, tmp_path / "nat")
    return model, tmp_path / "nat"


def test_save_and_load_give_every_view_back(saved):
    model, folder = saved
    loaded = load_nat(llama(), folder)
    for name in VIEWS:
        assert torch.equal(logits(loaded, name), logits(model, name)), name
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in model.parameters()]
    expected = {"neg/adapter_config.json", "neg/adapter_model.safetensors", "pos/adapter_config.json"}
    expected |= {"pos/adapter_model.safetensors", "unit.safetensors", "nat_config.json"}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == expected
    train(loaded, steps=1)
    save_nat(loaded, folder)  # over the old one
    assert torch.equal(logits(load_nat(llama(), folder)), logits(loaded))


@pytest.mark.parametrize("branch", ["pos", "neg"])
def test_stock_peft_loads_the_branches(saved, branch):
    model, folder = saved
    stock = PeftModel.from_pretrained(llama(), folder / branch)
    torch.testing.assert_close(logits(stock), logits(model, branch), rtol=0, atol=1e-6)
    merged = stock.merge_and_unload()
    torch.testing.assert_close(logits(merged), logits(model, branch), rtol=0, atol=1e-4)


@pytest.mark.parametrize("branch", ["pos", "neg"])
def test_stock_peft_loads_the_branches_of_gpt2(tmp_path, branch):
    folder, _ = peft_folder(tmp_path / "n", gpt2(), target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    config = NATConfig(r=2, lora_alpha=3, target_modules=("c_attn", "c_proj"), unit_dim=4)
    model = train(attach(gpt2(), config, neg=folder)).eval()
    save_nat(model, tmp_path / "nat")
    stock = PeftModel.from_pretrained(gpt2(), tmp_path / "nat" / branch).merge_and_unload()
    torch.testing.assert_close(logits(stock), logits(model, branch), rtol=0, atol=1e-4)
    assert torch.equal(logits(load_nat(gpt2(), tmp_path / "nat")), logits(model))


def test_a_base_of_another_dtype_is_the_same_base(saved):
    assert dual_layers(load_nat(llama().bfloat16(), saved[1]))


def test_an_empty_negative_branch_is_saved_too(tmp_path):
    save_nat(train(attach(llama(), QV)), tmp_path / "nat")
    model = load_nat(llama(), tmp_path / "nat")
    assert torch.equal(logits(model, "neg"), logits(llama()))
    assert torch.equal(logits(PeftModel.from_pretrained(llama(), tmp_path / "nat" / "neg")), logits(llama()))


# --- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 0}, "r must be at least 1; got 0"),
        ({"unit_dim": 0}, "unit_dim must be at least 1; got 0"),
        ({"lora_alpha": 0}, "lora_alpha must be greater than 0; got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\); got 1.0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\); got -0.1"),
        ({"shift": 1.1}, "shift must lie between 0 and 1; got 1.1"),
        ({"mix": "mean"}, "mix must be one of 'unit', 'sum'; got 'mean'"),
        ({"target_modules": "q_proj"}, "target_modules must be names such as"),
        ({"target_modules": ()}, "target_modules must be names such as"),
    ],
)
def test_config_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        NATConfig(**changes)


def test_unknown_target_lists_the_candidates():
    model, wanted = (
        llama(),
        "no projection is named 'c_attn'; candidates are down_proj, gate_proj, k_proj, lm_head",
    )
    with pytest.raises(ValueError, match=wanted):
        attach(model, NATConfig(target_modules=("q_proj", "c_attn")))
    assert all(p.requires_grad for p in model.parameters())


def test_attach_twice_or_over_peft():
    for model in (attach(llama(), QV), get_peft_model(llama(), LoraConfig(target_modules=["q_proj"]))):
        with pytest.raises(ValueError, match="already carries adapters: leave"):
            attach(model, QV)


def test_a_plain_model_has_no_views():
    for action in (
        lambda m: view(m, "nat").__enter__(),
        detach,
        checkpointing,
        lambda m: save_nat(m, "nowhere"),
    ):
        with pytest.raises(ValueError, match="carries no NAT: attach"):
            action(llama())


def test_unknown_view():
    model = attach(llama(), QV)
    with pytest.raises(ValueError, match="view must be one of 'base', 'pos', 'neg', 'nat'; got 'negative'"):
        with view(model, "negative"):
            pass
    with pytest.raises(ValueError, match="view must be one of"):
        require_trained(model, "negative")


def test_a_view_that_was_never_trained(tmp_path, saved):
    model = attach(llama(), QV)
    require_trained(model, "base")
    for name in ("pos", "neg", "nat"):
        with pytest.raises(ValueError, match=f"the view '{name}' was never trained"):
            require_trained(model, name)
    with pytest.raises(ValueError, match="'nat' was never trained"):
        save_nat(model, tmp_path / "fresh")
    assert not (tmp_path / "fresh").exists()
    for name in VIEWS:
        require_trained(load_nat(llama(), saved[1]), name)


def test_negative_adapter_that_does_not_fit(tmp_path):
    folder, _ = peft_folder(tmp_path / "a", llama())
    with pytest.raises(ValueError, match=r"belongs to another base: .*q_proj is 32 -> 32 here, A \[4, 16\]"):
        attach(llama(hidden_size=32), QV, neg=folder)
    with pytest.raises(ValueError, match="adapts other projections: it lacks .*k_proj.* besides .*v_proj"):
        attach(llama(), NATConfig(target_modules=("q_proj", "k_proj")), neg=folder)
    with pytest.raises(ValueError, match="holds no adapter_config.json"):
        attach(llama(), QV, neg=tmp_path / "nothing")
    dora, _ = peft_folder(tmp_path / "b", llama(), use_dora=True)
    with pytest.raises(ValueError, match=r"is not a plain LoRA \(use_dora\)"):
        attach(llama(), QV, neg=dora)
    ranks, _ = peft_folder(tmp_path / "c", llama(), rank_pattern={"q_proj": 2})
    with pytest.raises(ValueError, match=r"is not a plain LoRA \(rank_pattern\)"):
        attach(llama(), QV, neg=ranks)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: llama(vocab_size=62), "vocabulary is 61, the model's 62"),
        (lambda: llama(hidden_size=32), "its widths is"),
        (lambda: llama(num_hidden_layers=3), "its widths is"),
        (lambda: llama(seed=1), "the embeddings differ"),
        (qwen2, "model_type is llama, the model's qwen2"),
    ],
)
def test_nat_of_another_base(saved, make, message):
    model = make()
    with pytest.raises(ValueError, match=f"belongs to another base: .*{message}"):
        load_nat(model, saved[1])
    assert not dual_layers(model) and all(p.requires_grad for p in model.parameters())


def test_a_layer_without_a_weight_is_no_projection():
    """Kernels of some libraries have in_features and out_features, and keep their numbers elsewhere."""
    model, kernel = llama(), nn.Module()
    kernel.in_features = kernel.out_features = 16
    model.model.layers[0].self_attn.kernel = kernel
    assert len(dual_layers(attach(model, QV))) == 4
    with pytest.raises(ValueError, match="no projection is named 'kernel'; candidates are down_proj"):
        attach(llama(), replace(QV, target_modules=("kernel",)))


@pytest.mark.parametrize(("kind", "lacks"), [("mixtral", True), ("qwen2_moe", False), ("gpt_oss", True)])
def test_a_name_that_also_means_packed_experts_is_refused(kind, lacks):
    """Half of what the name means would stay as it is: experts are one tensor of three dimensions.

    Kind: experts that stay as they are, in silence; as in huggingface/peft#2545, unslothai/unsloth#11014.
    """
    experts = {"num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}
    config = AutoConfig.for_model(kind, **SMALL, **HEADS, **experts, shared_expert_intermediate_size=8)
    model = AutoModelForCausalLM.from_config(config)
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    assert ("down_proj" not in names) == lacks
    message = r"'down_proj' also means packed experts, model.layers.0.mlp.experts.down_proj, .* leave it out"
    down = replace(QV, target_modules=("down_proj",))
    for put_on in (lambda: attach(model, down), lambda: lora(model, down).__enter__()):
        with pytest.raises(ValueError, match=message):
            put_on()
    assert len(dual_layers(attach(model, QV))) == 4
    if not lacks:
        shared = replace(QV, target_modules=("shared_expert.down_proj",))
        assert len(dual_layers(attach(detach(model), shared))) == 2


def test_of_a_model_that_sees_only_the_language_model_is_adapted(tmp_path):
    """Gemma 3: q_proj and v_proj of its vision tower have the same names.

    Kind: names of projections that the vision tower has too; as in zjysteven/lmms-finetune#11.
    """
    text = SMALL | HEADS | {"head_dim": 4, "query_pre_attn_scalar": 4}
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=3)
    model = AutoModelForCausalLM.from_config(config).eval()
    there = [f"model.language_model.layers.{n}.self_attn.{name}_proj" for n in (0, 1) for name in "qv"]
    assert sum(name.endswith("q_proj") for name, _ in model.named_modules()) == 4
    plain = logits(model)
    with lora(model, QV) as adapted:
        parts = {name.partition(".lora_")[0] for name, p in adapted.named_parameters() if p.requires_grad}
        assert parts == {f"base_model.model.{name}" for name in there}
    train(attach(model, QV))
    assert [name for name, module in model.named_modules() if isinstance(module, DualLinear)] == there
    save_nat(model.eval(), tmp_path / "nat")
    found = logits(model, "pos")
    assert logits(detach(model)).equal(plain) and not found.equal(plain)
    adapted = PeftModel.from_pretrained(model, tmp_path / "nat" / "pos")
    torch.testing.assert_close(logits(adapted), found, rtol=0, atol=1e-5)
    assert sum(hasattr(module, "lora_A") for module in adapted.modules()) == 4


def test_incomplete_or_changed_folder(saved):
    folder = saved[1]
    unit = folder / "unit.safetensors"
    whole = unit.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:100]):
        unit.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged.*unit.safetensors"):
            load_nat(llama(), folder)
    unit.unlink()
    with pytest.raises(ValueError, match="is damaged.*unit.safetensors"):
        load_nat(llama(), folder)
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match="holds no nat_config.json"):
        load_nat(llama(), folder)


def test_unit_of_another_width(saved):
    folder = saved[1]
    stored = json.loads((folder / "nat_config.json").read_text())
    stored["config"]["unit_dim"] = 7
    (folder / "nat_config.json").write_text(json.dumps(stored))
    model = llama()
    with pytest.raises(ValueError, match="is not the unit that nat_config.json describes"):
        load_nat(model, folder)
    assert not dual_layers(model)


# --- the benchmark -------------------------------------------------------------------------------------


def test_benchmark_runs_and_finds_both_orders_equal(tmp_path, capsys, monkeypatch):
    path = Path(__file__).parents[2] / "benchmarks" / "nat.py"
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location("benchmark_nat", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    arguments = "--widths 48 --tokens 64 --model-width 32 --layers 1 --batch 2 --length 16 --repeats 2 --out"
    benchmark.main([*arguments.split(), str(tmp_path)])
    result = json.loads((tmp_path / "nat.json").read_text())
    assert result["layer"][0]["largest_difference"] < 1e-10
    assert "saved" in (tmp_path / "nat.md").read_text() and "NAT / LoRA" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attach("x", QV), "model must be a model of torch, such as Student.model; got 'x', a str"),
        (lambda: attach(llama(), TrainConfig(epochs=1)), "config must be a NATConfig, .*; got TrainConfig"),
        (lambda: attach(llama(), QV, neg=3), "neg must be a path, as a text or a Path; got 3, a int"),
        (lambda: detach("x"), "model must be a model of torch, .*; got 'x', a str"),
        (lambda: view("x", "nat").__enter__(), "model must be a model of torch, .*; got 'x', a str"),
    ],
)
def test_what_is_no_model_is_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()
