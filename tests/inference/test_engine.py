"""The batch against model.generate, and its samples against exact probabilities."""

import pytest
import torch
from scipy import stats
from tiny import CONTEXT, PROMPTS, TOKENIZER, WORDS, generated, tiny
from transformers import JambaConfig, Phi3Config, Phi3ForCausalLM

from negdistill.inference import engine as decoding
from negdistill.inference.kv_cache import token_bytes
from negdistill.inference.sample import sample
from negdistill.training.students import Student, context_length, rope_change


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
    """Kind: hybrid models in a batch; as in vllm-project/vllm-metal#78."""
    model = tiny().model
    model.config = JambaConfig(num_hidden_layers=8)
    with pytest.raises(
        ValueError, match="model must keep nothing but keys and values.* use its own generate"
    ):
        token_bytes(model)
    with pytest.raises(ValueError, match="use its own generate"):  # before anything is drawn
        sample(Student(model, TOKENIZER), PROMPTS, 1, 0.0, batch_size=2, progress=False)


def test_every_id_of_the_generation_settings_ends_an_answer():
    """A chat model ends its turns with another token than the tokenizer's, often one of a list.

    Kind: a chat model that runs on past the end of its turn; as in huggingface/lighteval#1279,
    Blaizzy/mlx-vlm#2112.
    """
    student = tiny()
    free = {
        one.problem_id: one.ids for one in sample(student, PROMPTS, 1, 0.0, max_new_tokens=30, progress=False)
    }
    turn = max(free.values(), key=lambda ids: len(set(ids)))[3]  # an ordinary token that is said midway
    student.model.generation_config.eos_token_id = [TOKENIZER.eos_token_id, turn]
    cut = 0
    for one in sample(student, PROMPTS, 1, 0.0, max_new_tokens=30, batch_size=4, progress=False):
        whole = free[one.problem_id]
        stop = next(
            (place for place, token in enumerate(whole) if token in (turn, TOKENIZER.eos_token_id)), None
        )
        assert one.ids == (whole if stop is None else whole[: stop + 1])
        assert one.finished == (stop is not None)
        said = one.ids[:-1] if one.finished else one.ids  # the end is no part of the text
        assert one.text == TOKENIZER.decode(said, skip_special_tokens=True)
        cut += len(one.ids) < len(whole)
    assert cut


def test_a_long_rope_model_is_not_taken_across_its_change():
    """Kind: keys in the cache that were rotated by the short factors; as in
    microsoft/onnxruntime-genai#1161, ggml-org/llama.cpp#24875.
    """
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 24, "factor": 4.0}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    shape = {"vocab_size": len(TOKENIZER), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    ids = {
        "eos_token_id": TOKENIZER.eos_token_id,
        "pad_token_id": TOKENIZER.pad_token_id,
        "bos_token_id": None,
    }
    config = Phi3Config(
        **shape, **ids, num_attention_heads=4, max_position_embeddings=96, initializer_range=0.3,
        original_max_position_embeddings=24, rope_parameters=rope,
    )  # fmt: skip
    torch.manual_seed(0)
    student = Student(Phi3ForCausalLM(config).eval(), TOKENIZER)
    assert rope_change(student.model) == context_length(*student) == 24
    short = {key: text for key, text in PROMPTS.items() if len(TOKENIZER(text)["input_ids"]) <= 12}
    drawn = sample(student, short, 1, 0.0, max_new_tokens=12, batch_size=2, progress=False)
    assert [one.ids for one in drawn] == [generated(student.model, text, 12) for text in short.values()]
    longest = max(len(TOKENIZER(text)["input_ids"]) for text in short.values())
    message = (
        f"together they must not pass 24, where this long-rope .*; max_new_tokens may be {24 - longest},"
    )
    with pytest.raises(ValueError, match=message):
        longest_first = dict(sorted(short.items(), key=lambda pair: -len(pair[1])))
        sample(student, longest_first, 1, 0.0, max_new_tokens=24 - longest + 1, progress=False)
    with pytest.raises(ValueError, match="the context holds 24"):
        sample(student, {"long": " ".join(PROMPTS.values())}, 1, 0.0, progress=False)
