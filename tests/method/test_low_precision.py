"""Over a base in bfloat16: against autograd in float64, against PEFT, and what float32 bases keep."""

import copy

import peft
import pytest
import torch
import torch.nn.functional as F
from tiny import TOKENIZER, tiny

from negdistill.inference.kv_cache import prefill
from negdistill.method import low_precision
from negdistill.method.low_precision import Beside, fast_dtype, length_multiple, on_cpu
from negdistill.method.nat import attach
from negdistill.method.nat_unit import DualLinear, NATConfig
from negdistill.method.objectives import forward_targets, likelihood
from negdistill.training import reference
from negdistill.training.adapters import lora, save_lora, stored
from negdistill.training.batching import Example, collate, encode, pad_id
from negdistill.training.loop import TrainConfig, train

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CONFIG = NATConfig(r=4, target_modules=SEVEN, unit_dim=8, dropout=0.0)
BOUND = 0.02  # of the largest number: 2^-8 is one rounding to bfloat16, and some follow each other


def away(found, exact):
    return ((found.double() - exact).abs().max() / exact.abs().max()).item()


def batch_of(multiple=1):
    texts = [("1 + 1 =", "two books are there"), ("Ada has 7 books.", "7"), ("Ben finds 15", "more, so 22")]
    rows = encode([Example(str(i), *pair) for i, pair in enumerate(texts)], TOKENIZER, 96)
    return collate(rows, pad_id(TOKENIZER), multiple)


def trained(model):
    """Fill A and B of a fresh LoRA, the same numbers in every type."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.05)
    return model


@pytest.mark.parametrize("dropped", [False, True])
def test_gradients_are_those_of_autograd(dropped):
    torch.manual_seed(0)
    shapes = ((2, 5, 6), (2, 5, 7), (3, 6), (7, 3))
    x, y, a, b = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    kept = (torch.rand(2, 5, 6) < 0.7).to(torch.uint8) if dropped else None
    seen = x * kept if dropped else x
    plain = y + 1.5 * F.linear(F.linear(seen, a), b)
    ours = Beside.apply(x, y, kept, 1.5, a, b)
    towards = torch.randn_like(plain)
    torch.testing.assert_close(ours, plain)
    for one, other in zip(
        *(torch.autograd.grad(out, (x, y, a, b), towards) for out in (ours, plain)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_lora_in_bfloat16_is_as_near_to_float64_as_that_of_peft(monkeypatch):
    """The base's own rounding is most of the error of loss and gradients; the adapters add little to it."""
    base, batch = tiny(dtype=torch.bfloat16).model, batch_of()

    def measured(dtype):
        with lora(copy.deepcopy(base).to(dtype), CONFIG) as model:
            loss = likelihood(trained(model), batch)
            loss.backward()
            grads = [p.grad.double().flatten() for p in model.parameters() if p.requires_grad]
            return loss.item(), torch.cat(grads)

    exact_loss, exact = measured(torch.float64)
    ours_loss, ours = measured(torch.bfloat16)
    monkeypatch.setattr("negdistill.training.adapters.quicken", lambda model: None)
    _, peft_s = measured(torch.bfloat16)
    assert ours_loss == pytest.approx(exact_loss, rel=0.03)
    assert not torch.equal(ours, peft_s)
    assert (ours - exact).norm() < 1.25 * (peft_s - exact).norm() and (
        ours - exact
    ).norm() < 0.2 * exact.norm()


@pytest.mark.parametrize("train_neg", [False, True])
def test_the_unit_in_bfloat16_is_within_a_bound_of_float64(train_neg):
    """out of the unit, forward and gradients, against the same weights in float64."""
    torch.manual_seed(0)
    config = NATConfig(r=4, unit_dim=16, dropout=0.0, target_modules=("p",), train_neg=train_neg)
    base = torch.nn.ModuleDict({"p": torch.nn.Linear(64, 48, bias=False, dtype=torch.bfloat16)})
    layer = attach(base, config)["p"]
    assert isinstance(layer, DualLinear)
    for linear in (*layer.lora_A.values(), *layer.lora_B.values(), layer.value_out):
        torch.nn.init.normal_(linear.weight, std=0.1)
    exact = copy.deepcopy(layer).double()
    x, towards = torch.randn(2, 30, 64).bfloat16(), torch.randn(2, 30, 48).bfloat16()
    outs = [one(value.requires_grad_()) for one, value in ((layer, x), (exact, x.detach().double()))]
    assert outs[0].dtype == torch.bfloat16 and away(outs[0], outs[1]) < BOUND
    for out in outs:
        out.backward(towards.to(out.dtype))
    for (name, one), other in zip(layer.named_parameters(), exact.parameters(), strict=True):
        if one.requires_grad:
            assert one.grad.dtype == torch.float32 and away(one.grad, other.grad) < BOUND, name


def test_dropout_keeps_its_share_and_the_mean():
    with lora(tiny(dtype=torch.bfloat16).model, NATConfig(r=4, dropout=0.5, target_modules=SEVEN)) as model:
        layer = trained(model).train().base_model.model.model.layers[0].mlp.up_proj
        x, plain = torch.ones(1, 1, 32, dtype=torch.bfloat16), layer.eval()
        expected = plain(x).float()
        layer.train()
        mean = torch.stack([layer(x).float() for _ in range(2000)]).mean(0)
    torch.testing.assert_close(mean, expected, atol=0.03, rtol=0.05)


def test_saved_folders_are_stock_peft(tmp_path):
    base = tiny(dtype=torch.bfloat16).model
    batch = batch_of()
    with lora(base, CONFIG) as model:
        save_lora(trained(model), tmp_path / "adapter")
        assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    with stored(base, tmp_path / "adapter", "lora") as ours, torch.no_grad():
        found = ours(batch["input_ids"]).logits
    theirs = peft.PeftModel.from_pretrained(tiny(dtype=torch.bfloat16).model, tmp_path / "adapter").eval()
    with torch.no_grad():
        expected = theirs(batch["input_ids"]).logits
        with theirs.disable_adapter():
            plain = theirs(batch["input_ids"]).logits
    assert away(found, expected.double()) < 0.05 < away(plain, expected.double())


def test_a_base_in_float32_is_left_to_peft():
    with lora(tiny().model, CONFIG) as model:
        layers = [one for one in model.modules() if isinstance(one, peft.tuners.lora.layer.Linear)]
        assert layers and not any("forward" in vars(one) for one in layers)
    model = tiny().model
    assert not on_cpu(model) and length_multiple(model) == 1
    assert on_cpu(model.bfloat16()) and length_multiple(model) == 32


def test_without_a_mask_the_loss_is_the_same():
    """Rows padded on the right: no target sees the padding, however long."""
    model = tiny(dtype=torch.bfloat16).model
    masked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(low_precision, "on_cpu", lambda model: False)
        masked.append(likelihood(model, batch_of()).item())
    bare = likelihood(model, batch_of(32)).item()
    assert batch_of(32)["input_ids"].shape[1] == 32 and bare == pytest.approx(masked[0], rel=0.01)
    exact = tiny(dtype=torch.float64).model
    whole = likelihood(exact, batch_of()).item()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(low_precision, "on_cpu", lambda model: True)
        assert likelihood(exact, batch_of(32)).item() == pytest.approx(whole, rel=1e-9)


def test_padding_that_is_a_target_keeps_its_mask():
    """As in the preset `faithful`: what padding says depends on whether it sees the padding before it."""
    exact = tiny(dtype=torch.float64).model
    batch = batch_of(32)
    batch["loss_mask"] = torch.ones_like(batch["loss_mask"])
    said = []
    for cpu in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(low_precision, "on_cpu", lambda model, cpu=cpu: cpu)
            said.append(likelihood(exact, batch).item())
    assert (batch["attention_mask"] == 0).any() and said[0] == said[1]


def test_training_meets_few_shapes():
    shapes = set()
    model = tiny(dtype=torch.bfloat16).model
    examples = [Example(str(i), "1 + " * (1 + i % 5), "is " * (1 + i % 17)) for i in range(40)]

    def objective(model, batch):
        shapes.add(batch["input_ids"].shape[1])
        return likelihood(model, batch)

    config = TrainConfig(epochs=1, batch_size=4, progress=False)
    with lora(model, CONFIG) as wrapped:
        history = train(wrapped, TOKENIZER, examples, config, objective)
    assert shapes <= {32, 64, 96} and history["loss"].notna().all()


def test_the_reference_meets_few_shapes(monkeypatch):
    """As training does: its numbers are computed in the shapes of the student's."""
    shapes = set()

    def spied(model, batch):
        shapes.add(batch["input_ids"].shape[1])
        return forward_targets(model, batch)

    monkeypatch.setattr(reference, "forward_targets", spied)
    model = tiny(dtype=torch.bfloat16).model
    rows = encode([Example(str(i), "1 + ", "is " * (1 + i)) for i in range(20)], TOKENIZER, 2048)
    reference.log_probs(model, rows, pad_id(TOKENIZER), 4)
    assert shapes <= {32, 64, 96}
    shapes.clear()
    reference.log_probs(model.float(), rows, pad_id(TOKENIZER), 4)
    assert len(shapes) == 5


def test_logits_after_a_prompt_are_the_same_from_an_index(monkeypatch):
    model = tiny(dtype=torch.bfloat16).model
    found, _ = prefill(model, [[5, 6, 7, 8], [9, 10]], 0)
    monkeypatch.setattr("negdistill.inference.kv_cache.on_cpu", lambda model: False)
    sliced, _ = prefill(model, [[5, 6, 7, 8], [9, 10]], 0)
    torch.testing.assert_close(found, sliced, atol=0.05, rtol=0.02)


def test_the_type_follows_the_processor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for flags, expected in (((False, False), torch.float32), ((True, False), torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda flags=flags: flags[0])
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda flags=flags: flags[1])
        assert fast_dtype() == expected
