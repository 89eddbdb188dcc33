"""Batching: a prompt and a completion become tokens, rows of similar length become a batch.

    tokens     p p p p p c c c c e . .      p prompt, c completion, e end of text, . padding
    attention  1 1 1 1 1 1 1 1 1 1 0 0
    loss       0 0 0 0 0 1 1 1 1 1 0 0      preset "fixed": the completion and its end
    loss       0 1 1 1 1 1 1 1 1   1 1      preset "faithful": everything, no end of text

Prompt and completion are tokenised apart, so the boundary between them never depends on the text after it.
What the released code did otherwise is one row of `PRESETS`, not a second code path.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from negdistill.checks import check_choice, check_whole
from negdistill.data.prompts import PRESETS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

WINDOW = 64  # batches that are sorted by length together: less padding when larger, more chance when smaller
JITTER = 0.05  # relative error of the lengths sorted by, so that small sets are not cut alike in every epoch


@dataclass(frozen=True, slots=True)
class Example:
    """One training text.

    id          named in error messages
    prompt      text that is given, as `format_prompt` makes it
    completion  text to learn, without prefix or end-of-text token
    positive    whether its final answer is right; objectives that read negatives look at it
    question    key that all rationales of one question share; "" makes the example its own question
    """

    id: str
    prompt: str
    completion: str
    positive: bool = True
    question: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """An example as tokens.

    input_ids  int32 (T,)   loss_mask  bool (T,), True where the token is a target; never at position 0
    prompt     number of prompt tokens     length  number of tokens before padding, at most T
    question   number of the question, equal for equal keys
    matched    whether the completion answers this prompt; see `mismatched`
    """

    id: str
    input_ids: np.ndarray
    loss_mask: np.ndarray
    prompt: int
    length: int
    positive: bool
    question: int
    matched: bool = True


def encode_prompts(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, special: bool = True
) -> list[list[int]]:
    """Token ids of each text, not padded.

    special  whether the special tokens stand that the tokenizer puts in front; its end token never does
    """
    rows = tokenizer(list(texts), add_special_tokens=special, padding=False, truncation=False, verbose=False)
    end = tokenizer.eos_token_id
    return [row[:-1] if end is not None and row and row[-1] == end else row for row in rows["input_ids"]]


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id to pad with: the tokenizer's own, else 0."""
    return 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def encode(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int, preset: str = "fixed"
) -> list[Encoded]:
    """Tokenise examples; `max_length` is the context in tokens.

    An example whose completion does not fit is left out, and one warning counts them: half a rationale would
    teach to stop without an answer. ValueError for a question that does not fit by itself (the context must
    hold the prompt and one token more), an empty completion, a missing end-of-text token, and nothing left.
    """
    check_choice("preset", preset, PRESETS)
    rules = PRESETS[preset]
    if rules.end_of_text and tokenizer.eos_token_id is None:
        raise ValueError(f"preset {preset!r} needs an end-of-text token; set tokenizer.eos_token")
    if not examples:
        raise ValueError("examples must not be empty; there is nothing to learn from")
    for example in examples:
        if not example.completion:
            raise ValueError(f"example {example.id!r}: completion must not be empty; leave it out")
    end = [tokenizer.eos_token_id] if rules.end_of_text else []
    prompts = encode_prompts([example.prompt for example in examples], tokenizer)
    texts = [rules.completion.format(text=example.completion) for example in examples]
    completions = encode_prompts(texts, tokenizer, special=rules.second_start)
    questions: dict[str, int] = {}
    encoded: list[Encoded] = []
    for example, prompt, completion in zip(examples, prompts, completions, strict=True):
        if len(prompt) >= max_length:
            raise ValueError(
                f"example {example.id!r}: the question has {len(prompt)} tokens, max_length is {max_length}; "
                "leave it out, or take a student with a longer context"
            )
        ids = np.array([*prompt, *completion, *end], dtype=np.int32)
        if len(ids) > max_length:
            continue
        mask = np.arange(len(ids)) >= (1 if rules.prompt_loss else max(len(prompt), 1))
        key = f"question {example.question}" if example.question else f"example {len(questions)}"
        number = questions.setdefault(key, len(questions))
        encoded.append(Encoded(example.id, ids, mask, len(prompt), len(ids), example.positive, number))
    if not encoded:
        raise ValueError(
            f"no example fits into {max_length} tokens; shorten completions, or take a student with a "
            "longer context"
        )
    if dropped := len(examples) - len(encoded):
        warnings.warn(
            f"{dropped} of {len(examples)} examples left out: longer than {max_length} tokens", stacklevel=2
        )
    return _pad_all(encoded, pad_id(tokenizer)) if rules.padding_loss else encoded


def _pad_all(encoded: list[Encoded], pad: int) -> list[Encoded]:
    """Pad every row to the longest of the set, padding being a target."""
    width = max(row.length for row in encoded)

    def widen(row: Encoded) -> Encoded:
        extra = width - row.length
        ids = np.pad(row.input_ids, (0, extra), constant_values=pad)
        mask = np.pad(row.loss_mask, (0, extra), constant_values=True)
        return Encoded(row.id, ids, mask, row.prompt, row.length, row.positive, row.question)

    return [widen(row) for row in encoded]


def digest_encoded(encoded: Iterable[Encoded]) -> str:
    """sha256 of all rows in their order, tokens, masks and names."""
    digest = hashlib.sha256()
    for row in encoded:
        digest.update(f"{row.id} {row.prompt} {row.length} {row.positive} {row.question} ".encode())
        if not row.matched:
            digest.update(b"mismatched ")
        digest.update(row.input_ids.tobytes() + row.loss_mask.tobytes())
    return digest.hexdigest()


def batches(encoded: Sequence[Encoded], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Row numbers of each batch of one epoch: every row once, ceil(n / batch_size) batches.

    Rows are shuffled, windows of about `WINDOW` batches are sorted by length up to `JITTER`, and the batches
    are shuffled. All of it depends on `seed` and `epoch` only, so a run can be resumed at any step.
    """
    check_whole("batch_size", batch_size, 1)
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(encoded))
    guess = [len(encoded[i].input_ids) for i in order] * random.uniform(1 - JITTER, 1 + JITTER, len(order))
    count = -(-len(order) // batch_size)
    window = np.arange(len(order)) // batch_size * max(1, round(count / WINDOW)) // max(1, count)
    order = order[np.lexsort((guess, window))]
    cuts = [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]
    return [cuts[i] for i in random.permutation(len(cuts))]


def pairs(encoded: Sequence[Encoded], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """As `batches`: a right and a wrong row of each question that has both, side by side, anew each epoch."""
    sides: dict[int, tuple[list[int], list[int]]] = {}
    for place, row in enumerate(encoded):
        sides.setdefault(row.question, ([], []))[not row.positive].append(place)
    random = np.random.default_rng([seed, epoch, 1])
    drawn = [[int(random.choice(side)) for side in both] for both in sides.values() if all(both)]
    longest = [max((encoded[place] for place in pair), key=lambda row: row.length) for pair in drawn]
    cuts = batches(longest, max(1, batch_size // 2), seed, epoch)
    return [[place for number in cut for place in drawn[number]] for cut in cuts]


def mismatched(encoded: Sequence[Encoded], seed: int, max_length: int) -> list[Encoded]:
    """Each prompt with the completion of another question, drawn with the seed, cut at `max_length` tokens.

    ValueError where all rows belong to one question.
    """
    if len({row.question for row in encoded}) < 2:
        raise ValueError("rationales must belong to two questions at least, to be exchanged; take more")
    random, made = np.random.default_rng([seed, 2]), []
    for own in encoded:
        other = own
        while other.question == own.question:
            other = encoded[random.integers(len(encoded))]
        ids, mask = (
            np.concatenate([mine[: own.prompt], theirs[other.prompt : other.length]])[:max_length]
            for mine, theirs in ((own.input_ids, other.input_ids), (own.loss_mask, other.loss_mask))
        )
        made.append(
            replace(
                own, id=f"{own.id}, {other.id}", input_ids=ids, loss_mask=mask, length=len(ids), matched=False
            )
        )
    return made


def beside(encoded: Sequence[Encoded], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """As `batches` of the first half of the rows, each followed by its counterpart of the second half.

    For rows and what `mismatched` makes of them: batch_size counts the former.
    """
    half = len(encoded) // 2
    cuts = batches(encoded[:half], batch_size, seed, epoch)
    return [[place for row in cut for place in (row, row + half)] for cut in cuts]


def shared(rows: Sequence[int], rank: int, world: int, together: int = 1) -> list[int]:
    """The part of a batch that process `rank` of `world` computes; `together` neighbours stay together."""
    groups = [rows[start : start + together] for start in range(0, len(rows), together)]
    return [row for group in groups[rank::world] for row in group]


def padding_share(encoded: Sequence[Encoded], groups: Iterable[Sequence[int]]) -> float:
    """Share of the tokens of these batches that is padding, in [0, 1)."""
    used = total = 0
    for group in groups:
        used += sum(encoded[i].length for i in group)
        total += len(group) * max(len(encoded[i].input_ids) for i in group)
    return 1 - used / total if total else 0.0


def collate(rows: Sequence[Encoded], pad: int, multiple: int = 1) -> dict[str, torch.Tensor]:
    """Stack rows, padded on the right to the longest of them, rounded up to a multiple.

    Returns input_ids, attention_mask: long (B, T); loss_mask, prompt_mask: bool (B, T); positive: bool (B,);
    question: long (B,); matched: bool (B,). `loss_mask[b, t]` says that token t is a target, predicted from
    position t - 1.
    """
    width = -(-max(len(row.input_ids) for row in rows) // multiple) * multiple
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    loss = np.zeros((len(rows), width), dtype=bool)
    for b, row in enumerate(rows):
        ids[b, : len(row.input_ids)] = row.input_ids
        loss[b, : len(row.loss_mask)] = row.loss_mask
    position = np.arange(width)
    lengths = np.array([row.length for row in rows])[:, None]
    prompts = np.array([row.prompt for row in rows])[:, None]
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy((position < lengths).astype(np.int64)),
        "loss_mask": torch.from_numpy(loss),
        "prompt_mask": torch.from_numpy(position < prompts),
        "positive": torch.tensor([row.positive for row in rows]),
        "question": torch.tensor([row.question for row in rows]),
        "matched": torch.tensor([row.matched for row in rows]),
    }


class Teacher(Protocol):
    """Tensors that join a batch: what `objectives.distillation` learns from, besides the text.

    data  `digest_encoded` of the rows that it was made for     key  what made it, and how it weighs the rows
    Called with row numbers, it returns what belongs to the batch of these rows.
    """

    data: str
    key: str

    def __call__(self, rows: Sequence[int]) -> dict[str, torch.Tensor]: ...


def real_text_tokenizer(texts: Iterable[str], vocab_size: int = 32_000) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on `texts`: what token counts of real text are measured with.

    It has LLaMA's vocabulary size but is no copy of its tokenizer; a small text gives a smaller vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>")
