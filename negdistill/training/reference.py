"""Reference: what a frozen student says of whole rationales, computed once.

    base + start  --l of every rationale-->  folder/00000.safetensors ...  --rows-->  batch["reference"]
    right, wrong  --`balance` of the set-->                                --rows-->  batch["weight"]

The preference losses compare the student with what it was before they began. With adapters that start is at
hand, but a second forward at every step would cost a third of it: here it is one pass over the data, for all
epochs, kept and continued like that of the teachers (`teacher_cache`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from negdistill.method.low_precision import length_multiple
from negdistill.method.objectives import forward_targets
from negdistill.method.rivals import balance, sequence_log_probs
from negdistill.runs.digests import digest_code
from negdistill.runs.folder import Manifest
from negdistill.runs.memory import give_back_sometimes
from negdistill.training.batching import Encoded, collate, digest_encoded
from negdistill.training.identity import digest_model
from negdistill.training.teacher_cache import SHARD, frozen, in_shards


@dataclass(frozen=True, eq=False)
class Reference:
    """A `batching.Teacher`: l of each row under the frozen student.

    log_prob (rows,)     weight (rows,), KTO's, by `rivals.balance` of the rows that answer their own question
    seconds  of its pass
    """

    data: str
    key: str
    log_prob: Tensor
    weight: Tensor
    seconds: float

    def __call__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """`reference` and `weight` (B,) of these rows; one 0 for all where there are none."""
        parts = {"reference": self.log_prob, "weight": self.weight}
        return {name: part[list(rows)] if rows else torch.zeros(()) for name, part in parts.items()}


def reference(
    model: nn.Module,
    encoded: Sequence[Encoded],
    pad: int,
    folder: str | Path,
    batch_size: int = 32,
    progress: bool = True,
) -> Reference:
    """l of these rows under the model as it stands, from the folder or computed into it.

    Several processes share what is left to make; each has to call, with the same arguments. Dropout is off,
    and the model is left as it was.

    ValueError for a batch_size below 1, and for a folder that holds the reference of other rows, weights or
    settings, or one that is damaged.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    data = digest_encoded(encoded)
    inputs = {"data": data, "model": digest_model(model), "code": digest_code(__name__)}
    wanted = Manifest(inputs=inputs, parameters={"batch_size": batch_size, "shard": SHARD})

    def make(rows: list[Encoded]) -> dict[str, Tensor]:
        return {"log_prob": log_probs(model, rows, pad, batch_size)[0]}

    run, plan = in_shards(Path(folder), wanted, encoded, make, "reference" if progress else None)
    found = [load_file(run.path(f"{number:05d}.safetensors"))["log_prob"] for number in range(len(plan))]
    log_prob = torch.empty(len(encoded), dtype=found[0].dtype)
    log_prob[sum(plan, [])] = torch.cat(found)
    return Reference(data, run.manifest.key, log_prob, weights(encoded), run.manifest.seconds)


def weights(encoded: Sequence[Encoded]) -> Tensor:
    """`rivals.balance` of the rows that answer their own question, (rows,); 1 of those that do not."""
    positive, matched = (
        torch.tensor([getattr(row, name) for row in encoded]) for name in ("positive", "matched")
    )
    found = torch.ones(len(encoded))
    found[matched] = balance(positive[matched])
    return found


@torch.no_grad()
def log_probs(
    model: nn.Module, encoded: Sequence[Encoded], pad: int, batch_size: int = 32
) -> tuple[Tensor, Tensor]:
    """l and number of targets of each row, (rows,) each, on the CPU; the model is left as it was."""
    found: list[tuple[Tensor, Tensor]] = []
    multiple = length_multiple(model)
    with frozen(model) as device:
        for start in range(0, len(encoded), batch_size):
            give_back_sometimes()
            part = encoded[start : start + batch_size]
            batch = {name: tensor.to(device) for name, tensor in collate(part, pad, multiple).items()}
            seen = forward_targets(model, batch)
            found.append(sequence_log_probs(seen.log_probs, seen.row, len(part)))
    summed, tokens = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    return summed, tokens
