"""Rivals: every loss against a loop and by hand, in float64 with its gradient; DPO and KTO against trl."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from negdistill.method import rivals
from negdistill.method.objectives import NEEDS_REFERENCE, OBJECTIVES, rationales
from negdistill.training.batching import Example, collate, encode, mismatched, pad_id, real_text_tokenizer

TOKENIZER = real_text_tokenizer(["Problem:\nSolution:\n0123456789+="] * 4, vocab_size=270)
POSITIVE = torch.tensor([True, False, True, False, True])
# question, right, wrong; trl's "sft" takes the mean over all tokens, ours that of each rationale
ROWS = [("1+2=", "as 1+2 is 3", "as 1+2 is 4"), ("7+2=", "so that 9", "so that 8"), ("4+4=", "8", "7")]


def logs(seed: int, n: int = 5) -> torch.Tensor:
    """l of n rationales, at most 0, to differentiate by."""
    drawn = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (-6 * drawn - 0.1).requires_grad_()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# --- by hand ------------------------------------------------------------------------------------------


def test_sequence_log_probs_equal_a_loop():
    random = torch.Generator().manual_seed(0)
    log_probs = (-torch.rand(7, generator=random, dtype=torch.float64)).requires_grad_()
    row = torch.tensor([0, 0, 2, 2, 2, 3, 0])
    summed, tokens = rivals.sequence_log_probs(log_probs, row, 5)
    for number in range(5):
        own = [value for value, of in zip(log_probs.tolist(), row.tolist(), strict=True) if of == number]
        assert summed[number].item() == pytest.approx(math.fsum(own)) and tokens[number] == len(own)
    assert torch.autograd.gradcheck(lambda x: rivals.sequence_log_probs(x, row, 5)[0], log_probs)


def test_preference_at_the_start_is_log_2():
    gains = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    loss = rivals.preference(*gains, beta=0.1)
    assert loss.tolist() == pytest.approx([math.log(2)] * 3, rel=1e-15)
    (push,) = torch.autograd.grad(loss.sum(), gains)
    assert push.tolist() == [pytest.approx([-0.05] * 3), pytest.approx([0.05] * 3)]  # beta / 2


def test_prospect_at_its_reference_point_is_one_half():
    z0 = torch.tensor(1.5, dtype=torch.float64)
    gain = z0.repeat(5).requires_grad_()
    loss = rivals.prospect(gain, POSITIVE, z0, beta=0.1)
    assert loss.tolist() == [0.5] * 5
    (push,) = torch.autograd.grad(loss.sum(), gain)
    assert push.tolist() == pytest.approx([-0.025, 0.025, -0.025, 0.025, -0.025])  # beta / 4


@pytest.mark.parametrize(
    ("right", "wrong", "wanted"),
    [(1, 10, (10, 1)), (5, 5, (1, 1)), (4, 3, (1, 1)), (7, 2, (1, 2.625)), (3, 0, (1, 1)), (0, 3, (1, 1))],
)
def test_balance_raises_the_lighter_side_into_the_range(right, wrong, wanted):
    positive = torch.tensor([True] * right + [False] * wrong)[torch.randperm(right + wrong)]
    found = rivals.balance(positive)
    for one, weight in zip(positive.tolist(), found.tolist(), strict=True):
        assert weight == pytest.approx(wanted[0] if one else wanted[1])
    if right and wrong:
        assert 1 - 1e-6 <= (found[positive].sum() / found[~positive].sum()).item() <= 4 / 3 + 1e-6


def test_redi_without_wrong_ones_is_the_likelihood():
    mean = logs(0)
    loss = rivals.weighted(mean, POSITIVE, 1, 0)
    assert torch.equal(loss, torch.where(POSITIVE, -mean, 0))
    assert torch.autograd.grad(loss.sum(), mean)[0].tolist() == [-1, 0, -1, 0, -1]


def test_topr_at_its_reference_is_plain_reinforce():
    log_prob = logs(0)
    loss = rivals.tapered(log_prob, log_prob.detach(), POSITIVE)
    assert torch.equal(loss, torch.where(POSITIVE, -log_prob, log_prob))
    (gradient,) = torch.autograd.grad(loss.sum(), log_prob)
    assert gradient.tolist() == [-1, 1, -1, 1, -1]


def test_glow_without_history_is_the_plain_mean_and_stays_in_range():
    present = torch.tensor([3.0, 2.0, 1.0])
    never = torch.full((3,), math.nan)
    assert rivals.gain_weight(never, present).tolist() == [1, 1, 1]
    assert rivals.gain_weight(torch.full((3,), 2.0), present).tolist() == pytest.approx([1.0, 0.5, 0.5])
    assert rivals.gain_weight(present, present, alpha=40.0).tolist() == [5, 5, 5]
    earlier, later = torch.tensor([[0.3, 0.5, 0.2], [0.31, 0.1, 0.9]], dtype=torch.float64)
    found = rivals.gain_weight(earlier, later.requires_grad_(), alpha=3.0)
    rows = zip(earlier.tolist(), later.tolist(), strict=True)
    by_hand = [min(5, max(0.5, 3 * (1 - sigmoid(20 * (was - now))))) for was, now in rows]
    assert found.tolist() == pytest.approx(by_hand) and not found.requires_grad


def test_the_gradient_of_glow_is_its_weight_over_the_tokens():
    log_prob, tokens = logs(0), torch.tensor([4.0, 6.0, 2.0, 3.0, 5.0], dtype=torch.float64)
    earlier = torch.tensor([0.9, 0.1, 3.0, math.nan, 0.5], dtype=torch.float64)
    mean = log_prob / tokens
    weight = rivals.gain_weight(earlier, -mean, alpha=3.0)
    (gradient,) = torch.autograd.grad((-weight * mean).sum(), log_prob)
    assert len(set(weight.tolist())) > 2
    assert torch.allclose(gradient, -weight / tokens, rtol=0, atol=1e-12)


def test_the_reference_point_of_nothing_is_zero_and_has_no_gradient():
    assert rivals.reference_point(torch.zeros(0)) == 0  # a mean of nothing is NaN
    assert rivals.reference_point(torch.tensor([1.0, -4.0])) == 0
    found = rivals.reference_point(torch.tensor([1.0, 4.0], requires_grad=True))
    assert found == 2.5 and not found.requires_grad


def test_unlikelihood_of_a_long_rationale_is_next_to_nothing():
    """The product over 30 tokens of probability 1/2 is 1e-9; per token the same loss is 30 log 2."""
    assert rivals.rationale_unlikelihood(torch.tensor([-30 * math.log(2)]).double()).item() < 1e-8
    assert rivals.rationale_unlikelihood(torch.tensor([math.log(0.25)])).item() == pytest.approx(
        -math.log(0.75)
    )


def test_pair_places_finds_both_sides_and_refuses_what_was_parted():
    right, wrong = rivals.pair_places(torch.tensor([False, True, True, False]), torch.tensor([4, 9, 4, 9]))
    assert (right.tolist(), wrong.tolist()) == ([2, 1], [0, 3])
    with pytest.raises(ValueError, match="one right and one wrong row of each question: order them with"):
        rivals.pair_places(torch.tensor([True, True]), torch.tensor([0, 1]))


def loop(name: str, log_prob: list, reference: list, tokens: list) -> float:
    """The sum over five rationales, written out."""
    total = 0.0
    for at, (own, ref, n) in enumerate(zip(log_prob, reference, tokens, strict=True)):
        right, gain = bool(POSITIVE[at]), own - ref
        if name == "prospect":
            weight = 1.0 if right else 3 / 2 / (4 / 3)  # three right ones, two wrong ones
            total += weight * (1 - sigmoid(0.1 * (gain - 0.7) if right else 0.1 * (0.7 - gain)))
        if name == "weighted":
            total += -own / n if right else 0.8 * own / n
        if name == "tapered":
            total += -own if right else min(1.0, math.exp(gain)) * own
        if name == "unlikelihood":
            total += -math.log(1 - math.exp(own))
    return total


REFERENCE = logs(9).detach()
TOKENS = torch.tensor([2.0, 3, 1, 7, 4], dtype=torch.float64)
LOSSES = {
    "prospect": lambda x: rivals.prospect(x - REFERENCE, POSITIVE, 0.7, weight=rivals.balance(POSITIVE)),
    "weighted": lambda x: rivals.weighted(x / TOKENS, POSITIVE, 1.0, 0.8),
    "tapered": lambda x: rivals.tapered(x, REFERENCE, POSITIVE),
    "unlikelihood": rivals.rationale_unlikelihood,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_loss_equals_a_loop_and_its_gradient_finite_differences(name, seed):
    log_prob = logs(seed)
    found = LOSSES[name](log_prob).sum().item()
    assert found == pytest.approx(loop(name, log_prob.tolist(), REFERENCE.tolist(), TOKENS.tolist()))
    if name != "tapered":  # whose weight has no gradient by intent; see below
        assert torch.autograd.gradcheck(LOSSES[name], log_prob)


def test_the_taper_has_no_gradient():
    log_prob = logs(1)
    (gradient,) = torch.autograd.grad(LOSSES["tapered"](log_prob).sum(), log_prob)
    taper = (log_prob.detach() - REFERENCE).exp().clamp(max=1)
    assert torch.allclose(gradient, torch.where(POSITIVE, -torch.ones_like(taper), taper))


def test_preference_equals_a_loop_and_its_gradient_finite_differences():
    right, wrong = logs(1), logs(2)
    found = rivals.preference(right, wrong, 0.3)
    for one, a, b in zip(found.tolist(), right.tolist(), wrong.tolist(), strict=True):
        assert one == pytest.approx(-math.log(sigmoid(0.3 * (a - b))))
    assert torch.autograd.gradcheck(lambda a, b: rivals.preference(a, b, 0.3), (right, wrong))


# --- with a model -------------------------------------------------------------------------------------


def make_model(double: bool = True) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    special = dict(pad_token_id=TOKENIZER.pad_token_id, eos_token_id=TOKENIZER.eos_token_id)
    config = LlamaConfig(
        vocab_size=len(TOKENIZER), max_position_embeddings=64, initializer_range=0.3, **sizes, **special
    )
    model = LlamaForCausalLM(config)
    lora = LoraConfig(
        r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, lora).eval()
    return model.double() if double else model


@torch.no_grad()
def move(model: torch.nn.Module) -> None:
    """Away from the start, so that d is not 0."""
    random = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "default" in name:
            parameter += 0.3 * torch.randn(parameter.shape, generator=random)


def make_rows() -> list:
    examples = [
        Example(f"{at}{mark}", question, text, mark == "+", question)
        for at, (question, *sides) in enumerate(ROWS)
        for mark, text in zip("+-", sides, strict=True)
    ]
    return encode(examples, TOKENIZER, 64)


def make_batch(model: torch.nn.Module, rows: list) -> dict[str, torch.Tensor]:
    batch = collate(rows, pad_id(TOKENIZER))
    with torch.no_grad():
        return batch | {"reference": rationales(model, batch).log_prob}


def test_rationales_equal_one_row_after_the_other():
    model = make_model()
    batch = make_batch(model, make_rows())
    move(model)
    seen = rationales(model, batch)
    for at, row in enumerate(make_rows()):
        ids = torch.tensor(row.input_ids[None], dtype=torch.long)
        log_probs = model(ids).logits[0, :-1].log_softmax(1).gather(1, ids[0, 1:, None])[:, 0]
        wanted = log_probs[torch.tensor(row.loss_mask[1:])]
        assert seen.log_prob[at].item() == pytest.approx(wanted.sum().item())
        assert seen.mean[at].item() == pytest.approx(wanted.mean().item())
        assert seen.gain[at].item() == pytest.approx(wanted.sum().item() - batch["reference"][at].item())


@pytest.mark.parametrize("name", [*NEEDS_REFERENCE, "redi", "redi, alpha 0", "w-reinforce", "nsr", "glow"])
def test_rows_without_targets_change_nothing(name):
    """They keep a process company whose share of a batch is empty."""
    model, rows = make_model(), make_rows()
    rows = rows if name != "kto" else rows + mismatched(rows, 0, 64)
    batch = make_batch(model, rows)
    move(model)
    if name == "glow":
        batch["memory"] = torch.full((len(rows),), math.nan, dtype=torch.float64)
    alone = OBJECTIVES[name](model, batch)
    masked = {**batch, "loss_mask": torch.zeros_like(batch["loss_mask"]), "reference": torch.zeros(())}
    masked["weight"] = torch.zeros(())
    if name == "glow":
        masked["memory"] = torch.zeros(0, dtype=torch.float64)
    empty = OBJECTIVES[name](model, masked)
    empty.backward()
    assert empty.item() == 0 and alone.item() != 0


def test_the_members_of_a_family_are_one_function():
    model, rows = make_model(), make_rows()
    batch = make_batch(model, rows)
    move(model)
    seen = rationales(model, batch)
    right, wrong = seen.mean[seen.positive].sum().item(), seen.mean[~seen.positive].sum().item()
    weights = {"redi": (1, 0.8), "redi, alpha 0": (1, 0), "redi, alpha 1": (1, 1)}
    for name, (a, b) in (weights | {"w-reinforce": (0.1, 1), "nsr": (0, 1)}).items():
        assert OBJECTIVES[name](model, batch).item() == pytest.approx(-a * right + b * wrong)
    batch["memory"] = torch.full((len(rows),), math.nan, dtype=torch.float64)
    plain = OBJECTIVES["dpo"](model, batch).item()
    assert OBJECTIVES["dpo and likelihood"](model, batch).item() == pytest.approx(plain - 2 * right)
    assert OBJECTIVES["dpo, small beta"](model, batch).item() == pytest.approx(6 * math.log(2), abs=0.1)
    assert OBJECTIVES["glow"](model, batch).item() == pytest.approx(-(right + wrong))
    assert torch.allclose(batch["memory"], -seen.mean)
    assert OBJECTIVES["glow"](model, batch).item() == pytest.approx(-(right + wrong) / 2)  # no progress


def test_rationales_of_other_questions_move_z0_and_get_no_gradient():
    model, rows = make_model(), make_rows()
    rows += mismatched(rows, 0, 64)
    batch = make_batch(model, rows)
    move(model)
    seen = rationales(model, batch)
    z0 = max(0.0, seen.gain[6:].mean().item())
    batch["weight"] = torch.arange(12, dtype=torch.float32)
    by_hand = (batch["weight"][:6] * rivals.prospect(seen.gain[:6], seen.positive[:6], z0)).sum()
    found = OBJECTIVES["kto"](model, batch)
    assert found.item() == pytest.approx(by_hand.item())
    trained = [p for p in model.parameters() if p.requires_grad]
    for one, other in zip(*(torch.autograd.grad(x, trained) for x in (found, by_hand)), strict=True):
        assert torch.allclose(one, other)


# --- against trl --------------------------------------------------------------------------------------

QUIET = dict(use_cpu=True, report_to=[], disable_tqdm=True, bf16=False, max_length=None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kinds", "name"), [(["sigmoid"], "dpo"), (["sigmoid", "sft"], "dpo and likelihood")]
)
def test_dpo_is_that_of_trl(tmp_path, kinds, name):
    model, few = make_model(double=False), slice(2, 4) if "sft" in kinds else slice(0, 6)
    rows = make_rows()[few]
    given = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in ROWS[few.start // 2 : few.stop // 2]]
    options = DPOConfig(str(tmp_path), loss_type=kinds, beta=0.1, gradient_checkpointing=False, **QUIET)
    trainer = DPOTrainer(
        model, args=options, train_dataset=Dataset.from_list(given), processing_class=TOKENIZER
    )
    batch = make_batch(model.eval(), rows)
    move(model)
    inputs = trainer.data_collator(list(trainer.train_dataset))
    compare(model, trainer._compute_loss(model, inputs, False), OBJECTIVES[name](model, batch) / len(rows))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "name"), [("kto", "kto"), ("apo_zero_unpaired", "kto, no z0")])
@pytest.mark.parametrize(
    ("counts", "lambdas"), [((10, 10), (1, 1)), ((10, 25), (2.5, 1)), ((25, 10), (1, 1.875))]
)
def test_kto_is_that_of_trl(tmp_path, kind, name, counts, lambdas):
    model, rows = make_model(double=False), make_rows()
    given = [
        {"prompt": p, "completion": text, "label": label}
        for p, *sides in ROWS
        for text, label in zip(sides, (True, False), strict=True)
    ]
    sampler = {"train_sampling_strategy": "sequential"} if kind == "kto" else {}
    options = KTOConfig(
        str(tmp_path), loss_type=kind, beta=0.1, per_device_train_batch_size=6, gradient_checkpointing=False,
        desirable_weight=lambdas[0], undesirable_weight=lambdas[1], **sampler, **QUIET
    )  # fmt: skip
    trainer = KTOTrainer(
        model, args=options, train_dataset=Dataset.from_list(given), processing_class=TOKENIZER
    )
    inputs = trainer.data_collator(list(trainer.train_dataset))
    if kind == "kto":  # the same rationales of other questions: each has that of its neighbour there
        other = [rows[-1], *rows[:-1]]
        rows += [exchanged(own, from_) for own, from_ in zip(rows, other, strict=True)]
    batch = make_batch(model.eval(), rows)
    of = rivals.balance(torch.tensor([True] * counts[0] + [False] * counts[1]))
    assert (of[0].item(), of[-1].item()) == pytest.approx(lambdas)
    batch["weight"] = torch.where(batch["positive"], of[0], of[-1])
    move(model)
    compare(model, trainer._compute_loss(model, inputs, False), OBJECTIVES[name](model, batch) / 6)


def exchanged(own, other):
    """As `mismatched`, with a partner that was chosen."""
    ids = np.concatenate([own.input_ids[: own.prompt], other.input_ids[other.prompt :]])
    mask = np.arange(len(ids)) >= own.prompt
    return replace(own, input_ids=ids, loss_mask=mask, length=len(ids), matched=False)


def compare(model: torch.nn.Module, theirs: torch.Tensor, ours: torch.Tensor) -> None:
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6, rel=1e-6)
    trained = [p for n, p in model.named_parameters() if p.requires_grad and "default" in n]
    for a, b in zip(*(torch.autograd.grad(loss, trained) for loss in (ours, theirs)), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)
    assert ours.item() != pytest.approx(math.log(2), abs=1e-3)
