"""Few-shot: worked examples before the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from negdistill.data.prompts import PRESETS
from negdistill.training.batching import Example, encode_prompts
from negdistill.training.settings import Settings
from negdistill.training.students import context_length

if TYPE_CHECKING:
    from negdistill.training.students import Student


def few_shot_prefix(examples: Sequence[Example], student: Student, config: Settings) -> str:
    """`shots` worked examples of different questions, drawn with the seed, in at most half of the context.

    An example may take an equal share of that half; ValueError where fewer than `shots` do.
    """
    half = context_length(*student) // 2
    completion = PRESETS[config.preset].completion
    chosen: dict[str, str] = {}
    for place in np.random.default_rng(config.train.seed).permutation(len(examples)):
        if len(chosen) == config.shots:
            break
        example = examples[place]
        text = f"{example.prompt}{completion.format(text=example.completion)}\n\n"
        fits = len(encode_prompts([text], student.tokenizer)[0]) <= half // config.shots
        if fits and example.question not in chosen:
            chosen[example.question] = text
    if len(chosen) < config.shots:
        raise ValueError(
            f"shots must leave half of the context free, and {config.shots} equal shares of {half} tokens "
            f"hold {len(chosen)} worked examples; got {config.shots}; take fewer"
        )
    return "".join(chosen.values())
