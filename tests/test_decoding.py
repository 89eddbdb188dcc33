"""The batch against model.generate, and its samples against exact probabilities."""

from typing import NamedTuple

import pytest
import torch
from scipy import stats
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    JambaConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from negdistill import arithmetic, decoding
from negdistill.decoding import token_bytes
from negdistill.sample import sample

TOKENIZER = arithmetic.tokenizer()
CONTEXT = 96
WORDS = "Ada has 7 books. Ben finds 15 more. How many are there? ".split(" ")
PROMPTS = {f"q{i}": " ".join(WORDS[: 2 + 3 * i % 11] * (1 + i % 3)) for i in range(9)}


class Tiny(NamedTuple):
    model: torch.nn.Module
    tokenizer: object


def tiny(kind="llama", dtype=torch.float32):
    """A random model whose next token is neither certain nor quite open."""
    shape = {
        "vocab_size": len(TOKENIZER),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "initializer_range": 0.3,
    }
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    ids = {
        "bos_token_id": None,
        "eos_token_id": TOKENIZER.eos_token_id,
        "pad_token_id": TOKENIZER.pad_token_id,
    }
    room = {"max_position_embeddings": CONTEXT}
    torch.manual_seed(0)
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape, **heads, **room, **ids))
    elif kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape, **heads, **room, **ids))
    elif kind == "mistral":  # attends to the last five tokens only
        model = MistralForCausalLM(
            MistralConfig(**shape, **heads, **room, **ids, head_dim=8, sliding_window=5)
        )
    else:
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(TOKENIZER), n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT,
                initializer_range=0.3, **ids,
            )
        )  # fmt: skip
    return Tiny(model.to(dtype).eval(), TOKENIZER)


def generated(model, prompt, limit):
    """The greedy tokens of one prompt, as transformers generates them."""
    ids = torch.tensor([TOKENIZER(prompt)["input_ids"]])
    end, pad = TOKENIZER.eos_token_id, TOKENIZER.pad_token_id
    limit = min(limit, CONTEXT - ids.shape[1])
    config = GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=end, pad_token_id=pad)
    return tuple(model.generate(ids, generation_config=config)[0, ids.shape[1] :].tolist())


def test_samples_follow_the_exact_distribution():
    """Two tokens of one prompt: the first and every pair against the softmax of the model."""
    student = tiny()
    ids = torch.tensor([TOKENIZER(PROMPTS["q1"])["input_ids"]])
    with torch.no_grad():
        first = student.model(ids).logits[0, -1].double().softmax(-1)
        top = first.topk(5).indices
        pairs = torch.cat([ids.expand(5, -1), top[:, None]], 1)
        second = student.model(pairs).logits[:, -1].double().softmax(-1)
    drawn = sample(student, {"q1": PROMPTS["q1"]}, n=6000, max_new_tokens=2, batch_size=500, progress=False)

    def check(found, p):
        counts = torch.bincount(torch.tensor(found), minlength=len(p)).double().numpy()
        expected = p.numpy() * len(found)
        big = expected >= 5
        counts = [*counts[big], counts[~big].sum()]
        expected = [*expected[big], expected[~big].sum()]
        assert len(counts) > 5 and stats.chisquare(counts, expected).pvalue > 0.001

    check([one.ids[0] for one in drawn], first)
    for token, p in zip(top.tolist()[:2], second[:2], strict=True):
        check([one.ids[1] for one in drawn if one.ids[0] == token], p)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "mistral"])
def test_greedy_equals_generate(kind, monkeypatch):
    student = tiny(kind)
    expected = [generated(student.model, prompt, 30) for prompt in PROMPTS.values()]
    assert len(set(expected)) > 4 and max(map(len, expected)) == 30
    monkeypatch.setattr(decoding, "SLACK", 1)  # the columns move
    monkeypatch.setattr(decoding, "PREFILL", 50)  # several groups of prompts
    monkeypatch.setattr(decoding, "ASIDE", 1.2)  # rows are put aside
    for batch_size in (1, 2, 4, 9):
        drawn = sample(student, PROMPTS, 1, 0.0, max_new_tokens=30, batch_size=batch_size, progress=False)
        assert [one.ids for one in drawn] == expected


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_context_ends_an_answer(kind):
    student = tiny(kind)
    long = TOKENIZER.decode(TOKENIZER(" ".join(WORDS * 20))["input_ids"][: CONTEXT - 4])
    room = CONTEXT - len(TOKENIZER(long)["input_ids"])
    assert 0 < room < 8
    prompts = {"long": long, **PROMPTS}
    drawn = sample(student, prompts, 1, 0.0, max_new_tokens=50, batch_size=4, progress=False)
    assert [one.ids for one in drawn] == [generated(student.model, text, 50) for text in prompts.values()]
    assert drawn[0].tokens <= room < max(one.tokens for one in drawn)


def test_bytes_of_a_token():
    # keys and values, layers, heads, width, bytes of float32
    assert token_bytes(tiny().model) == 2 * 2 * 2 * 8 * 4
    assert token_bytes(tiny("gpt2", torch.float64).model) == 2 * 2 * 4 * 8 * 8


def test_a_model_with_another_state_is_refused():
    model = tiny().model
    model.config = JambaConfig(num_hidden_layers=8)
    with pytest.raises(
        ValueError, match="model must keep nothing but keys and values.* use its own generate"
    ):
        token_bytes(model)
