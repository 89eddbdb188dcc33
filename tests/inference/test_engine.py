"""The batch against model.generate, and its samples against exact probabilities."""

import pytest
import torch
from scipy import stats
from tiny import CONTEXT, PROMPTS, TOKENIZER, WORDS, generated, tiny
from transformers import (
    JambaConfig,
)

from negdistill.inference import engine as decoding
from negdistill.inference.engine import token_bytes
from negdistill.inference.sample import sample


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
