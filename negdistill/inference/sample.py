"""Sampling: many answers per prompt, from any student in any view.

    prompts, longest first     [ wave | wave | wave | . . . ]      a wave is drawn, then put on disk at once
    wave                       samples of its prompts, through the batch of `decoding`
    out_dir                    manifest.json, wave-00000.jsonl, ...; in the end samples.jsonl

    drawn = sample(student, {p.id: format_prompt(p.question) for p in problems}, n=16)
    grades = grade(problems, drawn)

In float32 on the CPU equal seeds give equal samples, whatever the batch size, the set of prompts or n: the
first 4 of 16 samples are the 4. `draws` says how rarely a token differs all the same; `log_prob` is the same
to about 1e-5. In bfloat16 another batch size gives other samples of the same distribution.

Several processes share the prompts and all get all samples, those of one process: launch them as for `train`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch
from torch import nn
from tqdm import tqdm

from negdistill.checks import SHOWN, check_each, check_flag, check_path, check_type, check_whole
from negdistill.data.formats import read_records, write_records
from negdistill.data.records import Sample
from negdistill.inference.engine import SLACK, Engine
from negdistill.inference.kv_cache import token_bytes
from negdistill.inference.rng import SamplingParams
from negdistill.method import nat
from negdistill.method.nat_unit import DualLinear
from negdistill.runs.digests import digest_code, digest_json
from negdistill.runs.files import remove
from negdistill.runs.folder import Manifest, RunFolder
from negdistill.runs.processes import SharedFolder, all_gather, held, processes, shard
from negdistill.training.batching import encode_prompts
from negdistill.training.identity import digest_student
from negdistill.training.students import check_student, context_length, rope_change

if TYPE_CHECKING:
    from negdistill.training.students import Student

SAMPLES = "samples.jsonl"
NAMED = re.compile(r"wave-\d{5,}\.jsonl")  # as `_Store.write` names a wave
WAVE = 8  # rows of a wave, in batches
MOST_ROWS = {"cpu": 256, "cuda": 512}  # of a batch; more are not faster
HALVES = re.compile("[\ud800-\udfff]")  # of characters: bytes that were no UTF-8
MEMORY = 0.4  # share of the memory that cache and logits may take

# --- public -------------------------------------------------------------------------------------------


def sample(
    student: Student,
    prompts: Mapping[str, str],
    n: int = 16,
    temperature: float = 1.0,
    max_new_tokens: int = 256,
    seed: int = 0,
    view: str | None = None,
    batch_size: int | None = None,
    out_dir: str | Path | None = None,
    progress: bool = True,
) -> list[Sample]:
    """Draw n samples of each prompt: those of one prompt together, in the order of the prompts.

    prompts         text by problem id, which names the noise, the same in every set and for every student
    temperature     0 takes the most probable token; then n is 1
    max_new_tokens  longest answer, shorter where the context ends; a long-rope model must not get that far
    view            view of a model with NAT, by default "nat"
    batch_size      rows computed together, by default what the memory holds, at most MOST_ROWS
    out_dir         folder that keeps what was drawn, which all processes see; another run there is waited
                    for. What was killed goes on, with one batch_size and CPU thread to the same bits
    TypeError for another type. ValueError for no prompt, one without tokens or room in the context, a number
    out of its range, a view that is not there or untrained, a model of other state, another run's folder.
    """
    rules = SamplingParams(n, temperature, max_new_tokens, seed)
    _check(student, prompts, batch_size, out_dir, progress)
    ids = dict(zip(prompts, encode_prompts(list(prompts.values()), student.tokenizer), strict=True))
    context = _checked_context(ids, student, max_new_tokens)
    folder = None if out_dir is None else Path(out_dir)
    with held(folder), _viewed(student.model, view) as view:
        store = _Store(folder, student, prompts, rules, view) if folder else None
        drawn = store.read() if store else {}
        order = sorted(ids, key=lambda key: (-len(ids[key]), key))
        columns = min(len(ids[order[0]]) + max_new_tokens, context) + SLACK
        waiting, made = shard([key for key in order if key not in drawn]), {}
        with _bar(n * len(drawn), n * len(waiting), progress) as bar:
            if waiting:
                rows = min(batch_size or automatic_batch_size(student, columns), n * len(ids))
                engine = Engine(student, rows, columns, context, bar)
                size = max(1, WAVE * rows // n)
            while waiting:
                wave = engine.run({key: ids[key] for key in waiting[:size]}, rules)
                if store:
                    store.write(order.index(waiting[0]), wave)
                waiting, made = waiting[size:], made | wave
        drawn |= dict(all_gather(list(made.items())))
        samples = [one for key in prompts for one in drawn[key]]
        if store:
            store.finish(samples)
    return samples


def _check(
    student: Student,
    prompts: Mapping[str, str],
    batch_size: int | None,
    out_dir: str | Path | None,
    progress: bool,
) -> None:
    check_student(student)
    check_type("prompts", prompts, Mapping, "texts by problem id")
    check_each("keys of prompts", prompts, str, "problem ids, which are texts")
    check_each("prompts", prompts.values(), str, "texts by problem id")
    if not prompts:
        raise ValueError("prompts must not be empty; there is nothing to continue")
    for key, text in prompts.items():
        if HALVES.search(text):
            raise ValueError(f"prompt {key!r} must be whole characters; got {text[:SHOWN]!r}: is it UTF-8?")
    if batch_size is not None:
        check_whole("batch_size", batch_size, 1)
    if out_dir is not None:
        check_path("out_dir", out_dir)
    check_flag("progress", progress)


def automatic_batch_size(student: Student, columns: int) -> int:
    """Rows of `columns` tokens whose cache and logits take MEMORY of the device; between 1 and MOST_ROWS."""
    device = student.model.device
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        memory -= sum(weight.nbytes for weight in student.model.parameters())
    else:
        memory = psutil.virtual_memory().total
    logits = 32 * student.model.config.get_text_config().vocab_size  # bytes of a row, with copies in float64
    row = columns * token_bytes(student.model) + logits
    return max(1, min(MOST_ROWS.get(device.type, MOST_ROWS["cpu"]), int(MEMORY * memory / row)))


def _bar(done: int, left: int, progress: bool) -> tqdm:
    quiet = not (progress and processes().is_main_process)
    return tqdm(total=done + left, initial=done, unit="sample", disable=quiet)


def _checked_context(ids: Mapping[str, Sequence[int]], student: Student, max_new_tokens: int) -> int:
    """The context in tokens, in which every prompt leaves room.

    A long-rope model must not cross the length at which all keys would be those of other factors.
    """
    context, change = context_length(*student), rope_change(student.model)
    for key, row in ids.items():
        if not row:
            raise ValueError(f"prompt {key!r} has no tokens; leave it out")
        if len(row) >= context:
            raise ValueError(
                f"prompt {key!r} takes {len(row)} tokens, the context holds {context}; "
                "shorten it or leave it out, or take fewer worked examples"
            )
        if change is not None and len(row) + max_new_tokens > change:
            raise ValueError(
                f"prompt {key!r} takes {len(row)} tokens and max_new_tokens is {max_new_tokens}; together "
                f"they must not pass {change}, where this long-rope model changes the factors of all "
                f"positions; max_new_tokens may be {change - len(row)}, or shorten the prompt"
            )
    return context


@contextmanager
def _viewed(model: nn.Module, name: str | None) -> Iterator[str | None]:
    """The model in eval mode and in the view; yields the view's name, None for a model without NAT."""
    dual = any(isinstance(module, DualLinear) for module in model.modules())
    if dual or name is not None:
        name = name or "nat"
        nat.require_trained(model, name)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with nat.view(model, name) if name else nullcontext(), nat.frozen(model) if dual else nullcontext():
            yield name
    finally:
        for module in training:
            module.training = True


# --- on disk ------------------------------------------------------------------------------------------


class _Store:
    """A folder of waves, each written at once; one file of all in the end."""

    def __init__(
        self,
        folder: Path,
        student: Student,
        prompts: Mapping[str, str],
        rules: SamplingParams,
        view: str | None,
    ) -> None:
        inputs = {
            **digest_student(student),
            "code": digest_code(__name__),
            "prompts": digest_json(list(prompts.items())),
        }
        parameters = {**asdict(rules), "view": view}
        self.manifest = Manifest(inputs=inputs, parameters=parameters, seed=rules.seed)
        self.folder = folder
        self.shared = SharedFolder(folder, self.manifest)

    def read(self) -> dict[str, list[Sample]]:
        """What was there when the processes began, by problem id."""
        drawn: dict[str, list[Sample]] = {}
        names = self.shared.run.manifest.artifacts
        for name in [SAMPLES] if SAMPLES in names else list(names):
            for one in read_records(self.shared.run.path(name), Sample):
                drawn.setdefault(one.problem_id, []).append(one)
        return drawn

    def write(self, place: int, drawn: Mapping[str, Sequence[Sample]]) -> None:
        """Keep a wave; `place` is that of its first prompt among all, so its name is its own."""
        with self.shared.own.create(f"wave-{place:05d}.jsonl") as path:
            write_records(path, [one for group in drawn.values() for one in group])

    def finish(self, samples: Sequence[Sample]) -> None:
        """Put all samples in the place of the waves."""
        with processes().main_process_first():
            if processes().is_main_process:
                self._finish(samples)

    def _finish(self, samples: Sequence[Sample]) -> None:
        if SAMPLES not in (before := self.shared.run.manifest).artifacts:
            run = RunFolder(self.folder, replace(self.manifest, seconds=before.seconds))
            with run.create(SAMPLES) as path:
                write_records(path, samples)
        for wave in self.folder.glob("wave-*.jsonl"):
            if NAMED.fullmatch(wave.name):  # not what somebody else put there
                remove(wave)
        self.shared.clear()
