import itertools
import math

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from negdistill.data.prompts import format_prompt
from negdistill.data.records import Problem, Rationale
from negdistill.inference.ranker import LOSSES, PAIRED, Ranker, score
from negdistill.training.batching import Example, collate, encode, pairs, real_text_tokenizer
from negdistill.training.students import Student

TOKENIZER = real_text_tokenizer(["Problem:\nSolution:\n0123456789+="] * 4, vocab_size=270)
LLAMA = dict(vocab_size=270, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
LLAMA |= dict(max_position_embeddings=96)
BERT = LLAMA | dict(max_position_embeddings=96)
T5 = dict(vocab_size=270, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, n_positions=96)
GPT2 = dict(vocab_size=270, n_embd=16, n_layer=2, n_head=2, n_positions=96)
OPT = dict(vocab_size=270, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2)
OPT |= dict(word_embed_proj_dim=8, do_layer_norm_before=False, max_position_embeddings=96)  # as OPT-350m
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**OPT)),
    "backbone alone": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)).model,
    "bert": lambda: BertModel(BertConfig(**BERT)),
    "t5 encoder": lambda: T5EncoderModel(T5Config(**T5)),
    "t5 pair": lambda: T5ForConditionalGeneration(T5Config(**T5)),
}
SHARING = ("llama", "gpt2", "opt")
PROBLEMS = [Problem(f"p{i}", f"{i}+{i * 10 ** (i % 4)}", str(i), "", "", None, "") for i in range(7)]
CANDIDATES = [
    Rationale(f"p{i}", k, "=".join([str(i * k)] * (1 + (i * k) % 5)), "student")
    for k, i in itertools.product(range(4), range(7))
]


def make(kind: str = "llama", seed: int = 0) -> Ranker:
    """A ranker with a head that says something."""
    torch.manual_seed(seed)
    ranker = Ranker(Student(MODELS[kind]().eval(), TOKENIZER)).eval()
    torch.nn.init.normal_(ranker.head.weight, std=2)
    torch.nn.init.normal_(ranker.head.bias)
    return ranker


@torch.no_grad()
def alone(ranker: Ranker, prompt: str, text: str) -> float:
    """s of one rationale, without batch, mask, cache and head module."""
    ids = [TOKENIZER(part)["input_ids"] for part in (format_prompt(prompt), text)]
    row = torch.tensor([[*ids[0], *ids[1], TOKENIZER.eos_token_id]][0])[None]
    hidden = ranker.backbone(row).last_hidden_state[0, len(ids[0]) :]
    z = sum(hidden[t] @ ranker.head.weight[0] for t in range(len(hidden))) / len(hidden) + ranker.head.bias
    return 1 / (1 + math.exp(-z.item()))


# --- model and scores ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_a_fresh_head_says_one_half(kind):
    ranker = Ranker(Student(MODELS[kind]().eval(), TOKENIZER))
    assert (score(ranker, PROBLEMS, CANDIDATES[:3], progress=False) == 0.5).all()


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("kind", MODELS)
def test_scores_are_those_of_one_rationale_after_the_other(kind, batch_size):
    """Kind: hidden states of another width than the model's hidden_size, as those of OPT-350m; as in
    huggingface/transformers#17225, huggingface/transformers#17389.
    """
    ranker = make(kind)
    assert ranker.shares == (kind in SHARING)
    questions = {problem.id: problem.question for problem in PROBLEMS}
    expected = [alone(ranker, questions[one.problem_id], one.text) for one in CANDIDATES]
    found = score(ranker, PROBLEMS, CANDIDATES, batch_size=batch_size, progress=False)
    assert found.dtype == np.float64 and np.ptp(found) > 0.01
    assert found == pytest.approx(expected, abs=2e-6)


def test_sharing_the_prompt_changes_nothing(monkeypatch):
    ranker = make().double()
    shared = score(ranker, PROBLEMS, CANDIDATES, batch_size=3, progress=False)
    monkeypatch.setattr(ranker, "shares", False)
    assert shared == pytest.approx(score(ranker, PROBLEMS, CANDIDATES, progress=False), abs=1e-12)


def test_a_prompt_is_computed_once():
    ranker, tokens = make(), []
    ranker.backbone.register_forward_pre_hook(
        lambda module, args, inputs: tokens.append(inputs["input_ids"].shape), with_kwargs=True
    )
    score(ranker, PROBLEMS, CANDIDATES, progress=False)
    prompts = len({problem.id for problem in PROBLEMS})
    different = len({(one.problem_id, one.text) for one in CANDIDATES})
    assert [shape[0] for shape in tokens] == [prompts, different]
    assert different < len(CANDIDATES)  # equal texts are computed once


def test_scores_of_nothing_and_of_an_empty_text():
    ranker = make()
    assert score(ranker, PROBLEMS, [], progress=False).shape == (0,)
    empty = Rationale("p1", 0, "", "student")
    assert score(ranker, PROBLEMS, [empty], progress=False)[0] == pytest.approx(
        alone(ranker, PROBLEMS[1].question, ""), abs=1e-6
    )


def test_a_rationale_beyond_the_context_is_cut_off():
    ranker, text = make(), "1" * 200
    room = ranker.context - len(TOKENIZER(format_prompt(PROBLEMS[1].question))["input_ids"])
    ids = [*TOKENIZER(format_prompt(PROBLEMS[1].question))["input_ids"], *TOKENIZER(text)["input_ids"][:room]]
    with torch.no_grad():
        hidden = ranker.backbone(torch.tensor([ids])).last_hidden_state[0, -room:]
        expected = ranker.head(hidden.mean(0)).sigmoid().item()
    found = score(ranker, PROBLEMS, [Rationale("p1", 0, text, "student")], progress=False)
    assert found[0] == pytest.approx(expected, abs=1e-6)


def test_bad_calls_are_refused():
    ranker = make()
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        score(ranker, PROBLEMS, CANDIDATES, batch_size=0)
    with pytest.raises(ValueError, match="candidates must belong to problems; got problem_id 'p6'"):
        score(ranker, PROBLEMS[:6], CANDIDATES)
    long = Problem("long", "1" * 200, "1", "", "", None, "")
    with pytest.raises(
        ValueError, match="question 'long' takes .* tokens, the context holds 96; leave it out"
    ):
        score(ranker, [long], [Rationale("long", 0, "1", "student")], progress=False)


# --- losses -------------------------------------------------------------------------------------------


def rows(sides: str = "+-+-+-") -> list:
    """One row per sign; two neighbours share a question."""
    examples = [
        Example(str(i), format_prompt(f"{i // 2}+1"), f"{i}" * (1 + i % 3), sign == "+", f"q{i // 2}")
        for i, sign in enumerate(sides)
    ]
    return encode(examples, TOKENIZER, 96)


def value(ranker: Ranker, row, z: bool = False) -> float:
    """s or z of one row without batch."""
    with torch.no_grad():
        ids = torch.tensor(row.input_ids, dtype=torch.long)
        hidden = ranker.backbone(ids[None]).last_hidden_state[0, row.prompt :].mean(0)
        out = ranker.head(hidden)
        return (out if z else out.sigmoid()).item()


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_by_hand(loss):
    ranker, data = make().double(), rows()
    order = [4, 1, 0, 5, 3, 2]
    found = LOSSES[loss](ranker, collate([data[i] for i in order], 0)).item()
    s, z = [value(ranker, row) for row in data], [value(ranker, row, z=True) for row in data]
    expected = {
        "mse": sum((s[i] - (i % 2 == 0)) ** 2 for i in range(6)),
        "bce": sum(-math.log(s[i] if i % 2 == 0 else 1 - s[i]) for i in range(6)),
        "pairwise": 2 * sum(math.log(1 + math.exp(z[i + 1] - z[i])) for i in (0, 2, 4)),
        "cubic": 2 * sum((1 - s[i]) ** 3 + s[i + 1] ** 3 for i in (0, 2, 4)),
    }
    assert found == pytest.approx(expected[loss], abs=1e-9)


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - set(PAIRED)))
def test_a_row_without_targets_counts_nothing(loss):
    ranker, batch = make(), collate(rows(), 0)
    batch["loss_mask"].zero_()
    assert LOSSES[loss](ranker, batch).item() == 0


@pytest.mark.parametrize("loss", PAIRED)
@pytest.mark.parametrize("sides", ["+-+", "++", "+--+++"])
def test_pairs_that_were_parted_are_refused(loss, sides):
    with pytest.raises(ValueError, match="a batch must hold one right and one wrong row of each question"):
        LOSSES[loss](make(), collate(rows(sides), 0))


def test_pairs_are_one_per_question_and_epoch():
    examples = [
        Example(f"{q}{k}", format_prompt(str(q)), "1" * (q + k + 1), k < right, f"q{q}")
        for q, right in enumerate([2, 4, 0, 1, 3])
        for k in range(4)
    ]
    data = encode(examples, TOKENIZER, 96)
    seen = {question: set() for question in (0, 3, 4)}  # the others have one side only
    for epoch in range(40):
        found = pairs(data, 4, seed=0, epoch=epoch)
        assert found == pairs(data, 4, seed=0, epoch=epoch)
        assert sorted(map(len, found)) == [2, 4]
        drawn = [batch[at : at + 2] for batch in found for at in range(0, len(batch), 2)]
        assert sorted(data[one].question for one, _ in drawn) == [0, 3, 4]
        for right, wrong in drawn:
            assert data[right].positive and not data[wrong].positive
            assert data[right].question == data[wrong].question
            seen[data[right].question].add((right, wrong))
    assert [len(drawn) for drawn in seen.values()] == [4, 3, 3]  # every pair comes up
    assert pairs(data, 4, seed=0, epoch=0) != pairs(data, 4, seed=1, epoch=0)
