"""Export check: whether what was written, loaded again, answers as the fit.

    questions of the embedded benchmark --greedy--> tokens, and the logits of the first of them

The adapter on its base computes what the fit computes, so its tokens must be the same. Merged weights are
rounded once more, to the type of the base, and two branches that became one adapter are added in another
order: their logits may be a little away, and the card says how many answers are others for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from negdistill.data import arithmetic
from negdistill.data.prompts import format_prompt
from negdistill.training.batching import pad_id
from negdistill.training.students import context_length

if TYPE_CHECKING:
    from negdistill.training.students import Student

QUESTIONS, TOKENS = 16, 32  # so many greedy answers, so long at most
EXACT, ROUNDED = 1e-3, 0.1  # largest distance of merged logits, in those of the fit: float32, half precision


class Answers(NamedTuple):
    """Greedy tokens of each question, and the logits (questions, V) of the first of them, float32."""

    tokens: list[list[int]]
    logits: Tensor


@torch.no_grad()
def answers(student: Student, preset: str) -> Answers:
    """What a student answers, by the generation of transformers; the prompts are those of `preset`."""
    model, tokenizer = student
    texts = [format_prompt(one.question, preset) for one in arithmetic.generate("test", QUESTIONS)]
    room = context_length(model, tokenizer) // 2
    rows = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    ids, attention = (rows[name][:, -room:] for name in ("input_ids", "attention_mask"))
    pad = pad_id(tokenizer)
    rules = {"max_new_tokens": min(TOKENS, room), "do_sample": False, "pad_token_id": pad}
    kept = {"output_logits": True, "return_dict_in_generate": True}
    made = model.generate(input_ids=ids, attention_mask=attention, **rules, **kept)
    tokens = [_unpadded(row, pad) for row in made.sequences[:, ids.shape[1] :].tolist()]
    return Answers(tokens, made.logits[0].float())


def compare(fit: Answers, adapter: Answers, merged: Answers, dtype: torch.dtype, same: bool = True) -> str:
    """What the card says; ValueError where the adapter answers otherwise, or more than rounding differs.

    same  whether the adapter computes number for number what the fit does
    """
    if same and adapter.tokens != fit.tokens:
        raise ValueError(
            "the adapter that was written must answer as the fit, loaded again on its base; it does not; "
            "export again, and if that does not help share the fit's own folder"
        )
    counts = {}
    for name, one in {"merged model": merged, "adapter on its base": adapter}.items():
        away = ((one.logits - fit.logits).abs().max() / fit.logits.abs().max()).item()
        if not away <= (EXACT if dtype == torch.float32 else ROUNDED):
            raise ValueError(
                f"the {name} must answer as the fit; its logits are {away:.1%} away from those of the fit, "
                "more than rounding makes; share the fit's own folder"
            )
        counts[name] = sum(said != own for said, own in zip(one.tokens, fit.tokens, strict=True))
    whole, beside = counts.values()
    return (
        f"In {str(dtype).removeprefix('torch.')} {whole} of {QUESTIONS} greedy answers differ between the "
        f"merged model and the fit, and {beside or 'none'} between the adapter on its base and the fit. "
        f"These are questions of the package's own benchmark, with at most {TOKENS} tokens of answer."
    )


def _unpadded(row: list[int], pad: int) -> list[int]:
    """How long a row is filled up depends on the other rows."""
    while row and row[-1] == pad:
        row = row[:-1]
    return row
