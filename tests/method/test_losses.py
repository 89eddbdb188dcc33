import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from negdistill.method import losses, nce, objectives
from negdistill.method.nat import attach
from negdistill.method.nat_unit import NATConfig

SMALL = dict(vocab_size=23, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4)
SMALL |= dict(num_key_value_heads=2, max_position_embeddings=32)
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "qwen": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=23, n_embd=16, n_layer=2, n_head=4, n_positions=32)
    ),
    "gemma, soft capping": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SMALL, head_dim=4, final_logit_softcapping=0.5)
    ),
    "granite, scaling": lambda: GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=7.0)),
    "peft": lambda: get_peft_model(
        LlamaForCausalLM(LlamaConfig(**SMALL)),
        LoraConfig(r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False),
    ),
    "nat": lambda: randomize(attach(LlamaForCausalLM(LlamaConfig(**SMALL)), NATConfig(r=2, unit_dim=3))),
}


def randomize(model: torch.nn.Module) -> torch.nn.Module:
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def make(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return MODELS[name]().double().eval()


def make_batch(width: int = 9) -> dict[str, torch.Tensor]:
    """Four rows of two questions, of 7, 5, 6 and 7 tokens, prompts of 3, 3, 2 and 2."""
    ids = torch.randint(1, 23, (4, width), generator=torch.Generator().manual_seed(1))
    position = torch.arange(width)
    attention = position < torch.tensor([7, 5, 6, 7])[:, None]
    prompt = position < torch.tensor([3, 3, 2, 2])[:, None]
    targets = int((attention & ~prompt).sum())
    teacher = torch.randn(targets, 23, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return {
        "input_ids": ids * attention,
        "attention_mask": attention.long(),
        "loss_mask": attention & ~prompt,
        "prompt_mask": prompt,
        "positive": torch.tensor([True, False, True, True]),
        "question": torch.tensor([0, 0, 1, 1]),
        "teacher_log_probs": teacher.log_softmax(1),
        "weight": torch.tensor([0.5, 1.25, 0.75, 1.0], dtype=torch.float64),
        "mixing": torch.tensor(0.25),
        "temperature": torch.tensor(2.0),
    }


def plain(
    model: torch.nn.Module, batch: dict[str, torch.Tensor]
) -> tuple[list[list[torch.Tensor]], torch.Tensor]:
    """Log probabilities of the targets of each row, one by one from the full logits; last hidden states."""
    out = model(batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True)
    rows = []
    for b, mask in enumerate(batch["loss_mask"]):
        places = [t for t in range(1, len(mask)) if mask[t]]
        rows.append([torch.log_softmax(out.logits[b, t - 1], 0)[batch["input_ids"][b, t]] for t in places])
    return rows, out.hidden_states[-1]


# The others read more than this batch holds, a reference or what they left in it before: see test_rivals.
ANY_BATCH = [name for name in objectives.OBJECTIVES if name not in (*objectives.NEEDS_REFERENCE, "glow")]


def test_token_log_probs_equal_log_softmax_in_chunks(monkeypatch):
    logits = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 4, 2, 2, 1, 3, 0])
    monkeypatch.setattr(losses, "CHUNK", 10)  # two rows at a time, the last chunk has one
    expected = torch.stack([torch.log_softmax(row, 0)[t] for row, t in zip(logits, targets, strict=True)])
    assert torch.allclose(losses.token_log_probs(logits, targets), expected, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(lambda x: losses.token_log_probs(x, targets), logits)


def test_token_log_probs_of_bfloat16_are_taken_in_float32():
    logits = (20 * torch.randn(6, 50)).bfloat16().requires_grad_()
    targets = torch.arange(6)
    result = losses.token_log_probs(logits, targets)
    exact = torch.log_softmax(logits.detach().double(), 1)
    assert result.dtype == torch.float32
    assert torch.allclose(result.double(), exact[targets, targets], atol=1e-5)
    result.sum().backward()
    onehot = torch.nn.functional.one_hot(targets, 50)
    assert logits.grad.dtype == torch.bfloat16
    assert torch.allclose(logits.grad.double(), onehot - exact.exp(), atol=4e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_gradient_in_place_of_the_logits_is_the_same_and_taken_once(monkeypatch, dtype):
    monkeypatch.setattr(losses, "CHUNK", 10)
    start, targets = torch.randn(7, 5).to(dtype).requires_grad_(), torch.tensor([0, 4, 2, 2, 1, 3, 0])
    found = []
    for overwrite in (False, True):
        logits = start * 1
        log_probs = losses.token_log_probs(logits, targets, overwrite)
        loss = (torch.arange(7) * log_probs).sum()
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert (gradient.data_ptr() == logits.data_ptr()) is overwrite
        found.append((log_probs, gradient))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", MODELS)
def test_selected_positions_equal_the_full_forward(name):
    model, batch = make(name), make_batch()
    rows, hidden = plain(model, batch)
    found = objectives.forward_targets(model, batch)
    assert torch.allclose(found.log_probs, torch.stack(sum(rows, [])), rtol=0, atol=1e-12)
    assert found.row.tolist() == [b for b, row in enumerate(rows) for _ in row]
    assert torch.allclose(found.hidden, hidden, rtol=0, atol=1e-12)
    full = model(batch["input_ids"]).logits
    assert full.shape == (4, 9, 23)  # nothing stays behind in the model


@pytest.mark.parametrize("name", ["llama", "gemma, soft capping", "peft", "nat"])
def test_gradients_equal_the_full_forward(name):
    model, batch = make(name), make_batch()
    trained = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(-torch.stack(sum(plain(model, batch)[0], [])).sum(), trained)
    for a, b in zip(torch.autograd.grad(objectives.likelihood(model, batch), trained), expected, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-11)


def test_unlikelihood_and_negative_training_by_hand():
    model, batch = make("llama"), make_batch()
    rows = plain(model, batch)[0]
    good = sum(sum(row) for row, sign in zip(rows, batch["positive"], strict=True) if sign)
    (bad,) = [row for row, sign in zip(rows, batch["positive"], strict=True) if not sign]
    unlikely = -good - 0.05 * sum(torch.log(1 - p.exp()) for p in bad)
    assert objectives.unlikelihood(model, batch).item() == pytest.approx(unlikely.item(), abs=1e-11)
    lowered = -good + 0.05 * sum(bad)
    assert objectives.negative(model, batch).item() == pytest.approx(lowered.item(), abs=1e-11)
    assert objectives.likelihood(model, batch).item() == pytest.approx(-(good + sum(bad)).item(), abs=1e-11)


def test_contrastive_by_hand():
    model, batch = make("llama"), make_batch()
    rows, hidden = plain(model, batch)
    ends, starts = [7, 5, 6, 7], [3, 3, 2, 2]
    question = [hidden[b, : starts[b]].mean(0) for b in range(4)]
    rationale = [hidden[b, starts[b] : ends[b]].mean(0) for b in range(4)]

    def score(i: int, j: int) -> float:
        return math.exp(torch.cosine_similarity(question[i], rationale[j], 0).item() / losses.TEMPERATURE)

    # row 1 is negative; rows 2 and 3 are positives of one question and do not push each other away
    against = {0: [0, 1, 2, 3], 2: [0, 1, 2], 3: [0, 1, 3]}
    expected = 0.0
    for i, others in against.items():
        apart = -math.log(score(i, i) / sum(score(i, j) for j in others))
        expected += sum(0.05 * apart - p.item() for p in rows[i])
    assert objectives.contrastive(model, batch).item() == pytest.approx(expected, abs=1e-10)


def test_info_nce_has_nothing_to_say_about_a_row_alone_or_a_negative():
    vectors = torch.randn(3, 8)
    alone = losses.info_nce(vectors[:1], vectors[1:2], torch.tensor([True]), torch.tensor([0]))
    assert alone.tolist() == [0.0]
    none = losses.info_nce(vectors, vectors.flip(0), torch.zeros(3, dtype=torch.bool), torch.arange(3))
    assert none.tolist() == [0.0, 0.0, 0.0]
    all_ = losses.info_nce(vectors, vectors.flip(0), torch.ones(3, dtype=torch.bool), torch.arange(3))
    assert all_.shape == (3,) and (all_ > 0).all()


def test_beta_by_hand():
    """KL((1/2, 1/2) || (9/10, 1/10)) = ln(5/3), the other way round it is 0.9 ln 1.8 + 0.1 ln 0.2."""
    even, steep = torch.tensor([0.5, 0.5]).log().double(), torch.tensor([0.9, 0.1]).log().double()
    neg, nat = torch.stack([even, even, steep])[None], torch.stack([steep, even, even])[None]
    there, back = math.log(5 / 3), 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    for mask, mean in (
        ([True, False, False], there),
        ([True, True, False], there / 2),
        ([True, True, True], (there + back) / 3),
        ([False, True, False], 0.0),
        ([False, False, True], back),
    ):
        found = nce.calibration_beta(neg, nat, torch.tensor([mask]))
        assert found.tolist() == pytest.approx([math.tanh(mean)], abs=1e-7), mask
    assert abs(there - back) > 0.1


def test_beta_against_loops():
    generator = torch.Generator().manual_seed(0)
    neg, nat = (torch.randn(4, 6, 5, generator=generator).double().log_softmax(2) for _ in range(2))
    mask = torch.rand(4, 6, generator=generator) < 0.6
    mask[2] = False
    expected = []
    for b in range(4):
        found = []
        for t in range(6):
            if mask[b, t]:
                pairs = zip(neg[b, t].tolist(), nat[b, t].tolist(), strict=True)
                found.append(sum(math.exp(p) * (p - q) for p, q in pairs))
        expected.append(math.tanh(sum(found) / len(found)) if found else 0.0)
    assert nce.calibration_beta(neg, nat, mask).tolist() == pytest.approx(expected, abs=1e-13)
    assert expected[2] == 0 and min(expected[:2]) > 0.1


def test_beta_of_what_cannot_be_and_of_what_does_not_count():
    zero = float("-inf")
    neg = torch.tensor([[[0.0, zero], [math.nan, 0.0]]])  # p_neg = (1, 0); the second token is not looked at
    nat = torch.tensor([[[math.log(0.5), math.log(0.5)], [0.0, 0.0]]])
    mask = torch.tensor([[True, False]])
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        found = nce.calibration_beta(neg.to(dtype), nat.to(dtype), mask)
        assert found.dtype == dtype and found.item() == pytest.approx(math.tanh(math.log(2)), abs=3e-3)
    assert nce.calibration_beta(neg[:, :1], neg[:, :1], mask[:, :1]).tolist() == [0.0]


def distilled_by_loops(logits, targets, teacher, weight, ids, mixing, temperature):
    """The formula, a token at a time; what ids leave out is one outcome of its own."""
    result = []
    for i in range(len(logits)):
        student = torch.log_softmax(logits[i] / temperature, 0)
        if ids is not None:
            named = ids[i].tolist()
            others = [v for v in range(len(student)) if v not in named]
            student = torch.stack([*(student[v] for v in named), student[others].exp().sum().log()])
        soft = sum(-teacher[i, v].exp() * student[v] for v in range(len(student)))
        hard = -torch.log_softmax(logits[i], 0)[targets[i]]
        result.append((1 - mixing) * hard + mixing * weight[i] * temperature**2 * soft)
    return torch.stack(result)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("k", [None, 1, 3])
def test_distillation_and_its_gradient_equal_the_plain_form(monkeypatch, k, temperature):
    monkeypatch.setattr(nce, "CHUNK", 18)  # two rows of nine at a time
    generator = torch.Generator().manual_seed(3)
    logits = (3 * torch.randn(7, 9, generator=generator)).double().requires_grad_()
    teacher = (3 * torch.randn(7, 9, generator=generator)).double().log_softmax(1)
    targets, weight = torch.arange(7), torch.rand(7, generator=generator).double()
    ids = None
    if k is not None:
        ids = teacher.argsort(1, descending=True)[:, :k]
        rest = 1 - teacher.gather(1, ids).exp().sum(1, keepdim=True)
        teacher = torch.cat([teacher.gather(1, ids), rest.log()], 1)
    arguments = (logits, targets, teacher, weight, ids, 0.3, temperature)
    found, expected = nce.distilled(*arguments), distilled_by_loops(*arguments)
    assert (found - expected).abs().max() < 1e-10
    towards = torch.linspace(-1, 2, 7).double()
    pair = [torch.autograd.grad(loss, logits, towards)[0] for loss in (found, expected)]
    assert (pair[0] - pair[1]).abs().max() < 1e-10 and pair[1].abs().max() > 0.1


def test_the_gradient_may_take_the_place_of_the_logits():
    leaf, teacher = torch.randn(5, 9).requires_grad_(), torch.randn(5, 9).log_softmax(1)
    (expected,) = torch.autograd.grad(
        nce.distilled(leaf, torch.arange(5), teacher, torch.ones(5)).sum(), leaf
    )
    logits = leaf + 0
    nce.distilled(logits, torch.arange(5), teacher, torch.ones(5), overwrite=True).sum().backward()
    assert torch.equal(leaf.grad, expected) and torch.equal(logits, expected)
    squared = leaf.exp()  # needs its result for its own gradient
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        nce.distilled(squared, torch.arange(5), teacher, torch.ones(5), overwrite=True).sum().backward()


def test_nothing_is_left_beside_the_named_tokens():
    """A remaining mass of 0, and a student that gives the others next to nothing."""
    logits = torch.tensor([[200.0, 0.0, -1.0, -2.0]], requires_grad=True)
    teacher, ids = torch.tensor([[math.log(0.5), math.log(0.5), float("-inf")]]), torch.tensor([[0, 1]])
    loss = nce.distilled(logits, torch.tensor([0]), teacher, torch.ones(1), ids, mixing=1.0)
    loss.sum().backward()
    assert loss.item() == pytest.approx(100)
    assert logits.grad.tolist()[0] == pytest.approx([0.5, -0.5, 0.0, 0.0])


def test_distillation_of_bfloat16_is_taken_in_float32():
    logits = (5 * torch.randn(6, 50)).bfloat16().requires_grad_()
    teacher, targets = torch.randn(6, 50).log_softmax(1), torch.arange(6)
    found = nce.distilled(logits, targets, teacher, torch.ones(6))
    exact = logits.detach().double()
    expected = distilled_by_loops(exact, targets, teacher.double(), torch.ones(6), None, 0.5, 1.0)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, atol=1e-5)
    found.sum().backward()
    assert logits.grad.dtype == torch.bfloat16 and logits.grad.isfinite().all()


def test_distillation_objective_by_hand():
    model, batch = make("llama"), make_batch()
    out = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected, line = 0.0, 0
    for b in range(4):
        for t in range(9):
            if batch["loss_mask"][b, t]:
                hard = -torch.log_softmax(out[b, t - 1], 0)[batch["input_ids"][b, t]]
                teacher = batch["teacher_log_probs"][line].exp()
                soft = -(teacher * torch.log_softmax(out[b, t - 1] / 2, 0)).sum()
                expected += 0.75 * hard + 0.25 * batch["weight"][b] * 4 * soft
                line += 1
    assert objectives.distillation(model, batch).item() == pytest.approx(expected.item(), abs=1e-10)


def test_log_one_minus_is_finite_at_certainty():
    log_p = torch.tensor([0.0, -1e-7, -0.5, -3.0, -200.0], requires_grad=True)
    result = losses.log_one_minus(log_p)
    floor = math.log(-math.expm1(losses.CERTAIN))
    expected = [floor, floor, math.log(1 - math.exp(-0.5)), math.log(1 - math.exp(-3.0)), 0.0]
    assert result.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7)
    result.sum().backward()
    assert log_p.grad.isfinite().all()


@pytest.mark.parametrize("name", ANY_BATCH)
def test_a_batch_without_targets_has_no_loss_and_no_gradient(name):
    model, batch = make("llama"), make_batch()
    batch["loss_mask"] = torch.zeros_like(batch["loss_mask"])
    batch["teacher_log_probs"] = batch["teacher_log_probs"][:0]
    loss = objectives.OBJECTIVES[name](model, batch)
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("name", ANY_BATCH)
def test_padding_does_not_count(name):
    model, narrow = make("llama"), {}
    wide = make_batch()
    for key, value in wide.items():
        narrow[key] = value[:, :7] if value.shape == (4, 9) else value
    wide["input_ids"] = wide["input_ids"] + 5 * (wide["attention_mask"] == 0)  # any token may stand there
    objective = objectives.OBJECTIVES[name]
    assert objective(model, wide).item() == pytest.approx(objective(model, narrow).item(), abs=1e-11)


def test_a_model_without_output_layer_is_refused():
    with pytest.raises(ValueError, match="model must have an output layer over the vocabulary; LlamaModel"):
        objectives.likelihood(LlamaModel(LlamaConfig(**SMALL)), make_batch())


def test_the_hook_goes_when_the_forward_fails():
    model, batch = make("llama"), make_batch()
    batch["input_ids"] = batch["input_ids"] + 100
    with pytest.raises(IndexError):
        objectives.likelihood(model, batch)
    assert model(make_batch()["input_ids"]).logits.shape == (4, 9, 23)


LOGS = torch.full((2, 3, 4), 0.25).log()
MASK = torch.tensor([[True, True, False], [True, False, False]])
GAP = torch.where(MASK[..., None], LOGS, LOGS * math.nan)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((LOGS[0], LOGS[0], MASK), ValueError, r"neg_log_probs must be \(B, T, V\), .*; got \(3, 4\)"),
        (
            (LOGS, LOGS[:, :2], MASK),
            ValueError,
            r"nat_log_probs must be .* here \(2, 3, 4\); got \(2, 2, 4\)",
        ),
        ((LOGS, LOGS, MASK[0]), ValueError, r"mask must be \(B, T\), here \(2, 3\); got \(3,\)"),
        ((LOGS.tolist(), LOGS, MASK), TypeError, r"neg_log_probs must be a tensor; got \[\[.*, a list"),
        ((LOGS, LOGS.numpy(), MASK), TypeError, "nat_log_probs must be a tensor; got array.*, a ndarray"),
        ((LOGS, LOGS, MASK.tolist()), TypeError, r"mask must be a tensor; got \[\[.*, a list"),
        ((LOGS.long(), LOGS, MASK), TypeError, "neg_log_probs must be of type float; got torch.int64"),
        ((LOGS * math.nan, LOGS, MASK), ValueError, "neg_log_probs must be .*, at most 0; got nan"),
        ((LOGS, LOGS * math.nan, MASK), ValueError, "nat_log_probs must be .*, at most 0; got nan"),
    ],
)
def test_beta_of_other_tensors_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        nce.calibration_beta(*given)
    assert nce.calibration_beta(LOGS, GAP, MASK).tolist() == [0, 0]  # NaN where no token counts


def distilled_with(**changes):
    given = {"logits": torch.zeros(3, 4), "targets": torch.arange(3), "teacher": LOGS[0]}
    return nce.distilled(**given | {"weight": torch.ones(3)} | changes)


TOP = {"ids": torch.tensor([[0, 1]] * 3), "teacher": torch.tensor([[0.25, 0.25, 0.5]] * 3).log()}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"teacher": LOGS[0].exp()}, ValueError, "teacher must be logarithms of .* got a sum of 5.14; apply"),
        ({"teacher": -LOGS[0]}, ValueError, "teacher must be logarithms of .* got a sum of 16"),
        (
            TOP | {"teacher": TOP["teacher"].exp()},
            ValueError,
            "teacher must be logarithms of .* got a sum of 4",
        ),
        ({"teacher": LOGS[0] * math.nan}, ValueError, "teacher must be logarithms of .* got a sum of nan"),
        ({"weight": torch.tensor([1, 1, -0.5])}, ValueError, "weight must be at least 0; got -0.5"),
        ({"weight": torch.tensor([1, math.nan, 1])}, ValueError, "weight must be at least 0; got nan"),
        ({"weight": torch.ones(2)}, ValueError, r"weight must be \(N\), here \(3\); got \(2,\)"),
        ({"weight": 1.0}, TypeError, "weight must be a tensor; got 1.0, a float"),
        (
            {"targets": torch.tensor([0, -100, 1])},
            ValueError,
            "targets must be tokens, 0 to 3; got -100; leave",
        ),
        (
            {"targets": torch.tensor([0, 4, 1])},
            ValueError,
            "targets must be tokens, 0 to 3; got 4; leave out",
        ),
        ({"targets": torch.arange(3.0)}, TypeError, "targets must be of type torch.int64; got torch.float32"),
        ({"targets": torch.arange(2)}, ValueError, r"targets must be \(N\), here \(3\); got \(2,\)"),
        ({"logits": torch.zeros(1, 3, 4)}, ValueError, r"logits must be \(N, V\), .*; got \(1, 3, 4\)"),
        ({"teacher": LOGS}, ValueError, r"teacher must be \(N, V\), here \(3, 4\); got \(2, 3, 4\)"),
        (
            TOP | {"teacher": LOGS[0]},
            ValueError,
            r"teacher must be \(N, k \+ 1\), here \(3, 3\); got \(3, 4\)",
        ),
        (TOP | {"ids": torch.tensor([[0, 9]] * 3)}, ValueError, "ids must be tokens, 0 to 3; got 9"),
    ],
)
def test_distillation_of_other_tensors_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        distilled_with(**changes)


def test_distillation_takes_what_is_right():
    assert distilled_with().tolist() == pytest.approx([math.log(4)] * 3)
    assert distilled_with(**TOP).tolist() == pytest.approx([1.75 * math.log(2)] * 3)
    empty = {"logits": torch.zeros(0, 4), "targets": torch.arange(0), "teacher": LOGS[0, :0]}
    assert distilled_with(**empty, weight=torch.ones(0)).tolist() == []


def test_a_contrast_in_bfloat16_is_as_exact_as_its_hidden_states():
    """Cosines near 1 over a temperature of 0.1 would be rounded to steps of 1/16."""
    noise = torch.randn(16, 12, 64, generator=torch.Generator().manual_seed(0))
    hidden = (1 + 0.1 * noise).bfloat16()
    mask, kind, group = torch.ones(16, 12, dtype=torch.bool), torch.arange(16) % 2 == 0, torch.arange(16) // 2

    def gradient(states):
        states = states.detach().requires_grad_()
        means = losses.mean_pool(states, mask), losses.mean_pool(states.roll(1, 0), mask)
        losses.info_nce(*means, kind, group).sum().backward()
        return states.grad.double()

    exact = gradient(hidden.double())
    assert (gradient(hidden) - exact).norm() < 0.01 * exact.norm()
