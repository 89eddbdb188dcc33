import json
import random
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from negdistill.data.prompts import PRESETS, format_prompt
from negdistill.training import batching
from negdistill.training.batching import (
    Encoded,
    Example,
    batches,
    collate,
    encode,
    encode_prompts,
    padding_share,
    real_text_tokenizer,
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return real_text_tokenizer(["Problem:\nSolution:\n", "1 + 2 = 3 so \\boxed{3}"] * 4, vocab_size=300)


@pytest.fixture(scope="module")
def starting() -> PreTrainedTokenizerFast:
    """A tokenizer that puts <s> before every text and its end token behind it."""
    result = real_text_tokenizer(["ab"])
    result.add_special_tokens({"bos_token": "<s>"})
    result.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", result.bos_token_id), ("</s>", result.eos_token_id)]
    )
    return result


def row(length: int, **changes) -> Encoded:
    fields = dict(id="x", input_ids=np.arange(length, dtype=np.int32) + 1, loss_mask=np.arange(length) > 1)
    return Encoded(**(fields | dict(prompt=2, length=length, positive=True, question=0) | changes))


def test_fixed_trains_the_completion_and_its_end(tokenizer):
    (found,) = encode([Example("a", format_prompt("1 + 2"), "= 3")], tokenizer, 99)
    prompt, completion = (tokenizer(text)["input_ids"] for text in ("Problem:\n1 + 2\nSolution:\n", "= 3"))
    assert found.input_ids.tolist() == [*prompt, *completion, tokenizer.eos_token_id]
    assert found.loss_mask.tolist() == [False] * len(prompt) + [True] * (len(completion) + 1)
    assert (found.prompt, found.length) == (len(prompt), len(found.input_ids))
    assert tokenizer.decode(found.input_ids) == "Problem:\n1 + 2\nSolution:\n= 3</s>"


def test_faithful_trains_prompt_and_padding_and_starts_twice(starting):
    examples = [Example("a", format_prompt("a", "faithful"), "b"), Example("b", "ab", "a" * 19)]
    short, long = encode(examples, starting, 99, "faithful")
    assert starting.decode(short.input_ids[: short.length]) == "<s>Problem:\na<s>\nb"
    assert len(short.input_ids) == len(long.input_ids) == long.length > short.length
    assert set(short.input_ids[short.length :]) == {starting.pad_token_id}
    assert short.loss_mask.tolist() == [False] + [True] * (long.length - 1)
    assert collate([short], 7)["attention_mask"].sum() == short.length


def test_the_boundary_does_not_depend_on_the_completion(tokenizer):
    texts = ["3", "\n3", " 3", "so \\boxed{3}"]
    found = encode([Example(text, "1 + 2 =", text) for text in texts], tokenizer, 99)
    assert {tuple(e.input_ids[: e.prompt]) for e in found} == {tuple(tokenizer("1 + 2 =")["input_ids"])}


def test_start_token_once_and_no_end_token_in_between(starting):
    (found,) = encode([Example("a", "ab", "ba")], starting, 99)
    assert starting.decode(found.input_ids) == "<s>abba</s>"
    assert starting.decode(encode_prompts(["ab"], starting)[0]) == "<s>ab"
    assert starting.decode(encode_prompts(["ab"], starting, special=False)[0]) == "ab"


def test_without_prompt_the_first_token_is_no_target(tokenizer):
    (found,) = encode([Example("a", "", "1 + 2")], tokenizer, 99)
    assert found.loss_mask.tolist() == [False] + [True] * (found.length - 1)


def test_braces_in_text_are_left_alone(tokenizer):
    assert format_prompt("{x} {0}") == "Problem:\n{x} {0}\nSolution:\n"
    (found,) = encode([Example("a", "p", "\\boxed{text}")], tokenizer, 99)
    assert tokenizer.decode(found.input_ids) == "p\\boxed{text}</s>"


def test_questions_are_numbered_by_key(tokenizer):
    keys = ["q", "", "q", "", "r"]
    found = encode([Example(str(i), "1", "2", question=key) for i, key in enumerate(keys)], tokenizer, 9)
    numbers = [e.question for e in found]
    assert numbers[0] == numbers[2] and len(set(numbers)) == 4


def test_completions_that_do_not_fit_are_counted(tokenizer):
    examples = [Example("a", "1", "2"), Example("b", "1", "2 " * 50)]
    with pytest.warns(UserWarning, match="1 of 2 examples left out: longer than 10 tokens"):
        assert [e.id for e in encode(examples, tokenizer, 10)] == ["a"]
    exact = len(tokenizer("1")["input_ids"]) + len(tokenizer("2")["input_ids"]) + 1
    assert encode(examples[:1], tokenizer, exact)[0].length == exact


def test_bad_examples_are_refused(tokenizer):
    with pytest.raises(
        ValueError, match="example 'long': the question has 10 tokens, max_length is 10; leave"
    ):
        encode([Example("a", "1", "2"), Example("long", "~" * 10, "2")], tokenizer, 10)
    with pytest.raises(ValueError, match="example 'a': completion must not be empty"):
        encode([Example("a", "1", "")], tokenizer, 10)
    with pytest.raises(ValueError, match="examples must not be empty"):
        encode([], tokenizer, 10)
    with pytest.raises(ValueError, match="no example fits into 10 tokens; shorten completions, or take"):
        encode([Example("a", "1", "~" * 10)], tokenizer, 10)
    with pytest.raises(ValueError, match="preset must be one of 'fixed', 'faithful'; got 'other'"):
        encode([Example("a", "1", "2")], tokenizer, 10, "other")
    with pytest.raises(ValueError, match="preset must be one of 'fixed', 'faithful'; got 'other'"):
        format_prompt("1", "other")
    endless = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(
        ValueError, match="preset 'fixed' needs an end-of-text token; set tokenizer.eos_token"
    ):
        encode([Example("a", "1", "2")], endless, 10)
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        batches([row(3)], 0, 0, 0)


def test_collate_pads_on_the_right():
    batch = collate([row(3), row(5, positive=False, question=4)], pad=9)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 9, 9], [1, 2, 3, 4, 5]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["loss_mask"].int().tolist() == [[0, 0, 1, 0, 0], [0, 0, 1, 1, 1]]
    assert batch["prompt_mask"].int().tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0]]
    assert batch["positive"].tolist() == [True, False]
    assert batch["question"].tolist() == [0, 4]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=200), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_has_every_row_once(lengths, batch_size, epoch):
    groups = batches([row(n) for n in lengths], batch_size, seed=1, epoch=epoch)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert len(groups) == -(-len(lengths) // batch_size)
    assert sorted(map(len, groups))[1:] == [batch_size] * (len(groups) - 1)


def test_epochs_and_seeds_differ_and_repeat():
    encoded = [row(n) for n in np.random.default_rng(0).integers(20, 60, 300)]
    first = batches(encoded, 16, seed=0, epoch=0)
    assert batches(encoded, 16, seed=0, epoch=0) == first
    for other in (batches(encoded, 16, seed=0, epoch=1), batches(encoded, 16, seed=1, epoch=0)):
        assert other != first
        # not the same batches in another order either: a small set is not cut alike in every epoch
        assert len({frozenset(group) for group in first} & {frozenset(group) for group in other}) <= 2


def test_short_and_long_batches_come_in_any_order():
    encoded = [row(n) for n in range(2, 402)]
    means = [np.mean(group) for group in batches(encoded, 10, seed=0, epoch=0)]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5


def test_padding_share_counts():
    encoded = [row(2), row(4), row(3)]
    assert padding_share(encoded, [[0, 1], [2]]) == pytest.approx(2 / 11)
    assert padding_share(encoded, []) == 0.0


@pytest.mark.parametrize("archive", ["GPT3.5-turbo-MATH", "GPT4-MATH"])
def test_at_most_15_percent_padding_on_the_real_rationales(data_dir, archive):
    pairs = []
    with tarfile.open(data_dir / "TDG" / f"{archive}.tar.xz") as tar:
        for member in tar:
            for line in tar.extractfile(member).read().splitlines() if member.isfile() else ():
                released = json.loads(line)
                pairs += [(released["question"], text) for text in released["generated_answer"]]
    pairs = random.Random(0).sample(pairs, 2400)
    tokenizer = real_text_tokenizer([text for _, text in pairs[:800]])
    examples = [Example(str(i), format_prompt(q), text) for i, (q, text) in enumerate(pairs)]
    encoded = encode([e for e in examples if len(e.prompt) < 4000], tokenizer, 4096)
    for batch_size in (8, 32):
        for epoch in range(2):
            assert padding_share(encoded, batches(encoded, batch_size, 0, epoch)) <= 0.15
    unsorted = [range(start, start + 32) for start in range(0, len(encoded) - 32, 32)]
    assert padding_share(encoded, unsorted) > 0.5  # what the buckets save


def test_real_text_tokenizer_is_lossless_and_compresses():
    text = "Therefore $\\frac{1}{2}$ of them, so the answer is $\\boxed{7}$. \u2212 caf\u00e9 \U0001f600"
    tokenizer = real_text_tokenizer([text] * 3, vocab_size=400)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert len(tokenizer) <= 400 and len(ids) < len(text) / 2
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


def test_presets_differ_as_documented():
    assert set(PRESETS) == {"fixed", "faithful"}
    assert PRESETS["faithful"].padding_loss and not PRESETS["fixed"].padding_loss
    assert batching.pad_id(real_text_tokenizer(["a"])) == 0
