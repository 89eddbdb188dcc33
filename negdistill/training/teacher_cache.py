"""NCE: what the frozen teachers say about every training rationale, computed once.

    base + NAT, view neg  --p_neg--+
                                   +-->  beta per rationale          beta = tanh(mean KL(p_neg || p_nat))
    base + NAT, view nat  --p_nat--+-->  log p_nat per target token

    cache = teacher_cache(model, encoded, pad, "runs/teacher")      # the model carries NAT
    detach(model)                                                   # the same base learns
    train(lora, tokenizer, examples, config, "distillation", teacher=cache.teacher("paper"))

Both depend on frozen models only, so one pass over the data serves every epoch, row and weighting. A pass
that was killed continues where it stopped, to the same numbers. A small vocabulary is kept in full; of a
large one the `top_k` most likely tokens and the mass of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from negdistill.checks import check_number, check_whole
from negdistill.method.low_precision import length_multiple
from negdistill.method.nat import require_trained, view
from negdistill.method.nce import calibration_beta, kd_weights
from negdistill.method.objectives import forward_logits
from negdistill.runs.digests import digest_code, digest_json
from negdistill.runs.folder import Manifest, RunFolder
from negdistill.runs.memory import give_back_sometimes
from negdistill.runs.processes import SharedFolder, held, processes, shard
from negdistill.training.batching import Encoded, collate, digest_encoded
from negdistill.training.identity import digest_model

TOP_K = 128
SHARD = 512  # rows of one file: what a killed pass loses at most


class Remainder(NamedTuple):
    """Mass of p_nat outside of the tokens that are kept, per target: mean and largest, in [0, 1].

    The target distribution of `nce.distilled` differs from p_nat by at most this much (total variation),
    and so the gradient for the logits of a target by at most twice this, in the sum of absolute values.
    """

    mean: float
    largest: float


@dataclass(frozen=True, eq=False)
class TeacherCache:
    """beta and p_nat of every row, as they lie in a folder.

    data         `digest_encoded` of the rows
    key          of all that the numbers follow from
    beta         (rows,) in [0, 1]
    temperature  of the distributions; beta has none
    seconds      that the pass took
    """

    data: str
    key: str
    beta: Tensor
    temperature: float
    seconds: float
    _shards: list[dict[str, Tensor]]
    _places: dict[int, tuple[int, slice]]  # of each row: number of its shard, lines there

    def log_probs(self, row: int) -> tuple[Tensor, Tensor | None]:
        """log p_nat at each target of a row, and the tokens that are kept: (T, V) and None, or (T, k + 1) and
        (T, k) long, the last column being the log of the mass outside of them.
        """
        shard, lines = self._places[row]
        ids = self._shards[shard].get("ids")
        return self._shards[shard]["log_probs"][lines], None if ids is None else ids[lines].long()

    @cached_property
    def remainder(self) -> Remainder:
        """How much the approximation leaves out; nothing where the vocabulary is kept in full."""
        if "ids" not in self._shards[0]:
            return Remainder(0.0, 0.0)
        rest = torch.cat([shard["log_probs"][:, -1].exp() for shard in self._shards])
        return Remainder(rest.double().mean().item(), rest.max().item())

    def teacher(self, mode: str = "paper", mixing: float = 0.5, seed: int = 0) -> CachedTeacher:
        """What `train` calls. `mode` and `seed` as in `kd_weights`, `mixing` as in `nce.distilled`.

        ValueError for a mixing outside of [0, 1].
        """
        check_number("mixing", mixing, 0, 1)
        key = digest_json([self.key, mode, mixing, seed])
        return CachedTeacher(self.data, key, self, kd_weights(self.beta, mode, seed), mixing)


@dataclass(frozen=True, slots=True, eq=False)
class CachedTeacher:
    """A `batching.Teacher` that reads from a cache; weight (rows,) as `kd_weights` gives them."""

    data: str
    key: str
    cache: TeacherCache
    weight: Tensor
    mixing: float

    def __call__(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Tensors of a batch, see `objectives.distillation`."""
        found = [self.cache.log_probs(row) for row in rows or [0]]
        end = None if rows else 0  # no rows: tensors of their kind, without lines
        batch = {
            "teacher_log_probs": torch.cat([log_probs for log_probs, _ in found])[:end],
            "weight": self.weight[list(rows)],
            "mixing": torch.tensor(self.mixing, dtype=torch.float64),
            "temperature": torch.tensor(self.cache.temperature, dtype=torch.float64),
        }
        if found[0][1] is not None:
            batch["teacher_ids"] = torch.cat([ids for _, ids in found])[:end]
        return batch


def teacher_cache(
    model: nn.Module,
    encoded: Sequence[Encoded],
    pad: int,
    folder: str | Path,
    top_k: int = TOP_K,
    temperature: float = 1.0,
    batch_size: int = 32,
    progress: bool = True,
) -> TeacherCache:
    """The teachers' numbers for these rows, eq-beta among them, from the folder or computed into it.

    Several processes that were started together share the files that are left to make; each has to call, with
    the same arguments. Another run that makes them is waited for.

    model        carries NAT with a trained negative branch, as `load_nat` leaves it; it is not changed
    encoded      rows as `batching.encode` gives them; `pad` as `pad_id`
    top_k        tokens of p_nat to keep where the vocabulary has more than 2 top_k, else it is kept in full,
                 which takes no more space
    temperature  of the distributions, greater than 0
    batch_size   rows computed together; decides the last digits

    ValueError for numbers out of range, a view that was never trained, and a folder that holds the cache of
    other rows, adapters or settings, or one that is damaged.
    """
    for name, value in (("top_k", top_k), ("batch_size", batch_size)):
        check_whole(name, value, 1)
    check_number("temperature", temperature, above=0)
    for name in ("neg", "nat"):
        require_trained(model, name)
    data = digest_encoded(encoded)
    inputs = {"data": data, "model": digest_model(model), "code": digest_code(__name__)}
    parameters = {"top_k": top_k, "temperature": temperature, "batch_size": batch_size, "shard": SHARD}

    def make(rows: list[Encoded]) -> dict[str, Tensor]:
        return _shard(model, rows, pad, top_k, temperature, batch_size)

    wanted = Manifest(inputs=inputs, parameters=parameters)
    run, plan = in_shards(Path(folder), wanted, encoded, make, "teachers" if progress else None)
    return _read(run, plan, encoded, data, temperature)


def in_shards(
    folder: Path,
    wanted: Manifest,
    encoded: Sequence[Encoded],
    make: Callable[[list[Encoded]], dict[str, Tensor]],
    label: str | None,
) -> tuple[RunFolder, list[list[int]]]:
    """What `make` says of all rows, SHARD of them to a file; returns the folder and the rows of each file.

    label  beside the bar on stderr; None: no bar. ValueError for a folder of something else than is wanted.
    """
    # rows of like length together; the plan is fixed, so that a continued pass meets the same batches
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row].input_ids))
    plan = [order[start : start + SHARD] for start in range(0, len(order), SHARD)]
    names = [f"{number:05d}.safetensors" for number in range(len(plan))]
    quiet = label is None or not processes().is_main_process
    with held(folder):
        shared = SharedFolder(folder, wanted)
        made = shared.run.manifest.artifacts
        todo = shard([number for number, name in enumerate(names) if name not in made])
        rows = sum(len(plan[number]) for number in todo)
        with tqdm(total=rows, unit="rationale", desc=label, disable=quiet) as bar:
            for number in todo:
                with shared.own.create(names[number]) as path:
                    save_file(make([encoded[row] for row in plan[number]]), path)
                bar.update(len(plan[number]))
        return shared.collect(), plan


def _read(
    run: RunFolder, plan: list[list[int]], encoded: Sequence[Encoded], data: str, temperature: float
) -> TeacherCache:
    """The cache from its files, their checksums compared; what is not looked at stays on disk."""
    shards = [load_file(run.path(f"{number:05d}.safetensors")) for number in range(len(plan))]
    sorted_beta = torch.cat([shard["beta"] for shard in shards])
    beta = torch.empty_like(sorted_beta)
    beta[sum(plan, [])] = sorted_beta
    places: dict[int, tuple[int, slice]] = {}
    for number, rows in enumerate(plan):
        end = 0
        for row in rows:
            start, end = end, end + int(encoded[row].loss_mask.sum())
            places[row] = (number, slice(start, end))
    return TeacherCache(data, run.manifest.key, beta, temperature, run.manifest.seconds, shards, places)


@contextmanager
def frozen(model: nn.Module) -> Iterator[torch.device]:
    """Within the block the model is in eval mode and computes as in training, in bfloat16 autocast on CUDA.

    Yields its device.
    """
    device, training = next(model.parameters()).device, model.training
    model.eval()
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            yield device
    finally:
        model.train(training)


@torch.no_grad()
def _shard(
    model: nn.Module, rows: list[Encoded], pad: int, top_k: int, temperature: float, batch_size: int
) -> dict[str, Tensor]:
    """beta (rows,), log_probs (targets, V or k + 1), and ids (targets, k) int32 where not all are kept."""
    found: dict[str, list[Tensor]] = {"beta": [], "log_probs": [], "ids": []}
    multiple = length_multiple(model)
    with frozen(model) as device:
        for start in range(0, len(rows), batch_size):
            give_back_sometimes()
            part = rows[start : start + batch_size]
            batch = {name: tensor.to(device) for name, tensor in collate(part, pad, multiple).items()}
            counts = [int(row.loss_mask.sum()) for row in part]
            logits = []
            for name in ("neg", "nat"):
                with view(model, name):
                    logits.append(forward_logits(model, batch).logits.split(counts))
            for pair in zip(*logits, strict=True):  # one row at a time: no float32 copy of the whole batch
                neg, nat = (one.to(torch.promote_types(one.dtype, torch.float32)) for one in pair)
                neg, tempered = neg.log_softmax(1), nat
                nat = nat.log_softmax(1)
                mask = torch.ones(1, len(nat), dtype=torch.bool, device=device)
                found["beta"].append(calibration_beta(neg[None], nat[None], mask))
                if temperature != 1:
                    nat = (tempered / temperature).log_softmax(1)
                for name, kept in zip(("log_probs", "ids"), _top(nat, top_k), strict=False):
                    found[name].append(kept.cpu())
    return {name: torch.cat(pieces).cpu() for name, pieces in found.items() if pieces}


def _top(log_probs: Tensor, k: int) -> tuple[Tensor, ...]:
    """All of (T, V); or the k largest and the log of the mass of the others (T, k + 1), and ids (T, k)."""
    if log_probs.shape[1] <= 2 * k:
        return (log_probs,)
    values, ids = log_probs.topk(k, dim=1)
    rest = log_probs.scatter(1, ids, float("-inf")).logsumexp(1, keepdim=True)
    return torch.cat([values, rest], 1), ids.int()
