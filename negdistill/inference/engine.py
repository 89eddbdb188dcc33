"""Decoding: a batch whose rows enter and leave on their own, over one cache.

    columns of the cache   . . p p p p c c c c | .      p prompt, c drawn; all rows write the same column
                           p p p p p p c c e . | .      e end of text: the row leaves,
                           . . . . . p p p p c | .      a waiting prompt takes its place

A prompt is computed once; its keys and values are copied to its n rows. Attention costs every row as much as
the longest, so a row that outgrows the others is put aside, and computed again when all prompts have entered.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from negdistill.data.records import Sample
from negdistill.inference.rng import SamplingParams, draw, noise, row_key
from negdistill.method.low_precision import on_cpu
from negdistill.training.batching import pad_id
from negdistill.training.students import end_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from negdistill.training.students import Student

PREFILL = 2048  # tokens of prompts computed together
SLACK = 64  # columns beyond the longest row, so that the cache is moved rarely
ASIDE = 1.75  # times the mean length: longer rows wait until all prompts have entered

# --- cache and forward --------------------------------------------------------------------------------


@dataclass(slots=True)
class _Window:
    """What all layers agree on: rows [0, rows) are in use, columns [first, stop) are written."""

    rows: int = 0
    first: int = 0
    stop: int = 0


class _Layer(DynamicLayer):
    """Keys and values of one layer, (rows, heads, columns, d), written in place at the common column."""

    def __init__(self, window: _Window, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.window, self.keys, self.values, self.is_initialized = window, keys, values, True

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        w = self.window
        self.keys[: w.rows, :, w.stop] = keys[:, :, 0]
        self.values[: w.rows, :, w.stop] = values[:, :, 0]
        used = slice(w.first, w.stop + 1)
        return self.keys[: w.rows, :, used], self.values[: w.rows, :, used]

    def get_seq_length(self) -> int:
        return self.window.stop - self.window.first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0


def plain(model: nn.Module) -> nn.Module:
    """The base of a PEFT model, in which its layers sit and whose own forward needs no wrapper."""
    return getattr(model, "get_base_model", lambda: model)()


def require_keys_only(model: nn.Module) -> None:
    """ValueError for a model that keeps anything but keys and values of each token."""
    kinds = {type(layer) for layer in DynamicCache(config=model.config.get_text_config()).layers}
    if other := kinds - {DynamicLayer, DynamicSlidingWindowLayer}:
        raise ValueError(
            f"model must keep nothing but keys and values of each token; {type(plain(model)).__name__} has "
            f"{min(kind.__name__ for kind in other)}; use its own generate"
        )


def token_bytes(model: nn.Module) -> int:
    """Bytes of the keys and values of one token; ValueError as `require_keys_only`."""
    require_keys_only(model)
    layers = _prefill(plain(model), [[0]], 0)[1].layers
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)


@cache
def _takes(kind: type[nn.Module]) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters)


def _prefill(model: nn.Module, rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Cache]:
    """Logits (B, V) after each row; keys and values of all columns, in the last of which the rows stand."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=model.device)
    start = torch.tensor([width - len(row) for row in rows], device=model.device)
    cache = DynamicCache()
    return _forward(model, ids, torch.arange(width, device=model.device), start, width, cache), cache


@torch.no_grad()
def _forward(
    model: nn.Module, ids: Tensor, columns: Tensor, start: Tensor, context: int, cache: Cache
) -> Tensor:
    """Logits (B, V) of the last column. ids (B, T) stand in the last T of the columns; row b begins in column
    start[b]."""
    takes = _takes(type(model))
    inputs = {"attention_mask": (columns >= start[:, None]).long()}
    if "position_ids" in takes:
        inputs["position_ids"] = (columns[-ids.shape[1] :] - start[:, None]).clamp(0, context - 1)
    if "logits_to_keep" in takes:
        # an index gives a copy, one after another in memory: of a slice, torch multiplies a copy of the whole
        # output layer for each row where that is frozen
        last = torch.tensor([ids.shape[1] - 1], device=ids.device)
        inputs["logits_to_keep"] = last if on_cpu(model) else 1
    logits = model(input_ids=ids, past_key_values=cache, use_cache=True, **inputs).logits[:, -1]
    return logits if logits.dtype == torch.float64 else logits.float()


# --- engine -------------------------------------------------------------------------------------------


class _Text(NamedTuple):
    """What waits: a prompt and its samples, or one sample that was put aside."""

    problem_id: str
    prompt: Sequence[int]
    samples: Sequence[int]
    drawn: tuple[int, ...] = ()
    log_prob: float = 0.0

    @property
    def ids(self) -> list[int]:
        return [*self.prompt, *self.drawn]


class _Job(NamedTuple):
    """What a row does; `start` is its first column."""

    text: _Text
    sample: int
    start: int


class Engine:
    """Rows of a batch that enter and leave on their own."""

    def __init__(self, student: Student, rows: int, columns: int, context: int, bar: tqdm) -> None:
        require_keys_only(student.model)
        self.model = plain(student.model)
        self.tokenizer: PreTrainedTokenizerBase = student.tokenizer
        self.pad, self.ends = pad_id(self.tokenizer), end_ids(self.model, self.tokenizer)
        self.rows, self.columns, self.context, self.bar = rows, columns, context, bar
        self.window, self.cache = _Window(), Cache(layers=[])
        self.device = self.model.device
        self.end = torch.tensor(sorted(self.ends), dtype=torch.long, device=self.device)

    @torch.no_grad()
    def run(self, prompts: Mapping[str, Sequence[int]], rules: SamplingParams) -> dict[str, list[Sample]]:
        """Samples by problem id; the longest prompt comes first."""
        self.rules, self.longest = rules, max(map(len, prompts.values()))
        self.queue = deque(_Text(key, ids, range(rules.n)) for key, ids in prompts.items())
        self.ready: deque[tuple[_Text, int, int]] = (
            deque()
        )  # with sample, and place in the group computed last
        self.aside: list[_Text] = []
        rows = min(self.rows, rules.n * len(prompts))
        w = self.window
        w.rows, w.first, w.stop = rows, self.longest, self.longest

        def whole(*shape: int) -> Tensor:
            return torch.zeros(rows, *shape, dtype=torch.long, device=self.device)

        self.state = {name: whole() for name in ("key", "token", "count", "limit", "alive")}
        self.state |= {"start": whole() + w.stop, "text": whole(rules.max_new_tokens + 1)}
        self.state["log_prob"] = whole().double()
        self.jobs: list[_Job | None] = [None] * rows
        self.found: dict[str, list[Sample | None]] = {key: [None] * rules.n for key in prompts}
        while self.queue or self.ready or self.aside or any(self.jobs):
            if not (self.queue or self.ready):
                self.queue.extend(sorted(self.aside, key=lambda text: -len(text.ids)))
                self.aside = []
            free = self.jobs.count(None)
            if (self.queue or self.ready) and free >= max(1, w.rows // 8):
                self._put_aside()
                self._enter()
            elif free > w.rows // 4 and not (self.queue or self.ready):
                self._close_ranks()
            if any(self.jobs):
                self._step()
        return self.found

    def _step(self) -> None:
        """One token for every row, those that wait to be replaced included."""
        w, s = self.window, self.state
        if w.stop == self.columns:
            self._move()
        columns = torch.arange(w.first, w.stop + 1, device=self.device)
        tokens, start = s["token"][: w.rows, None], s["start"][: w.rows]
        logits = _forward(self.model, tokens, columns, start, self.context, self.cache)
        w.stop += 1
        self._take(torch.arange(w.rows, device=self.device), logits)

    def _take(self, rows: Tensor, logits: Tensor) -> None:
        """Draw the next token of the rows (B,) from logits (B, V); rows that have ended leave."""
        s = self.state
        u = noise(s["key"][rows], s["count"][rows])
        token, log_prob = draw(logits, u, self.rules.temperature)
        s["text"][rows, s["count"][rows]] = token
        s["token"][rows], alive = token, s["alive"][rows]
        s["count"][rows] += alive
        s["log_prob"][rows] += log_prob
        ended = (s["count"][rows] >= s["limit"][rows]) | torch.isin(token, self.end)
        left = rows[ended & alive.bool()]
        if len(left):
            self._leave(left)

    def _leave(self, rows: Tensor) -> None:
        """Rows (B,) that have ended become samples."""
        jobs, ids, log_probs = self._free(rows)
        said = [own[:-1] if own[-1] in self.ends else own for own in ids]  # an end need not be special
        texts = self.tokenizer.batch_decode(
            said, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        for (who, sample, _), own, text, log_prob in zip(jobs, ids, texts, log_probs, strict=True):
            self.found[who.problem_id][sample] = Sample(
                who.problem_id, sample, text, "student", own, log_prob, finished=own[-1] in self.ends
            )
        self.bar.update(len(ids))

    def _put_aside(self) -> None:
        """Rows that are much longer than the mean wait, once each, as long as prompts wait."""
        lengths = {row: self.window.stop - job.start for row, job in enumerate(self.jobs) if job}
        most = ASIDE * sum(lengths.values()) / max(1, len(lengths))
        long = [row for row, length in lengths.items() if length > most and not self.jobs[row].text.drawn]
        if long:
            jobs, ids, log_probs = self._free(torch.tensor(long, device=self.device))
            for (text, sample, _), drawn, log_prob in zip(jobs, ids, log_probs, strict=True):
                self.aside.append(text._replace(samples=[sample], drawn=drawn, log_prob=log_prob))
                self.longest = max(self.longest, len(text.prompt) + len(drawn))

    def _free(self, rows: Tensor) -> tuple[list[_Job], list[tuple[int, ...]], list[float]]:
        """Give rows (B,) free; returns their jobs, tokens drawn and log-probabilities."""
        s, w = self.state, self.window
        jobs = [self.jobs[row] for row in rows.tolist()]
        counts, texts = s["count"][rows].tolist(), s["text"][rows].tolist()
        ids = [tuple(text[:count]) for text, count in zip(texts, counts, strict=True)]
        for row in rows.tolist():
            self.jobs[row] = None
        s["alive"][rows], s["start"][rows] = 0, w.stop
        w.first = min((job.start for job in self.jobs if job), default=w.stop)
        return jobs, ids, s["log_prob"][rows].tolist()

    def _enter(self) -> None:
        """Waiting samples take the free rows; what they begin with is computed as it is needed."""
        s, w, rules = self.state, self.window, self.rules
        while (self.queue or self.ready) and None in self.jobs:
            if not self.ready:
                size = max(1, min(PREFILL // len(self.queue[0].ids), self.rows))
                group = [self.queue.popleft() for _ in range(min(size, len(self.queue)))]
                self.logits, self.prompts = _prefill(self.model, [text.ids for text in group], self.pad)
                self.ready.extend((text, i, place) for place, text in enumerate(group) for i in text.samples)
            free = [row for row, job in enumerate(self.jobs) if job is None][: len(self.ready)]
            new = [self.ready.popleft() for _ in free]
            rows, place = (
                torch.tensor(values, device=self.device) for values in (free, [place for *_, place in new])
            )
            self._copy(rows, place)
            for row, (text, sample, _) in zip(free, new, strict=True):
                self.jobs[row] = _Job(text, sample, w.stop - len(text.ids))
                if text.drawn:
                    s["text"][row, : len(text.drawn)] = torch.tensor(text.drawn, device=self.device)
            values = {
                "start": [self.jobs[row].start for row in free],
                "count": [len(text.drawn) for text, *_ in new],
                "limit": [min(rules.max_new_tokens, self.context - len(text.prompt)) for text, *_ in new],
                "key": [row_key(rules.seed, text.problem_id, sample) for text, sample, _ in new],
                "log_prob": [text.log_prob for text, *_ in new],
            }
            for name, column in values.items():
                s[name][rows] = torch.tensor(column, dtype=s[name].dtype, device=self.device)
            s["alive"][rows] = 1
            w.first = min(w.first, *values["start"])
            self._take(rows, self.logits[place])

    def _copy(self, rows: Tensor, place: Tensor) -> None:
        """Keys and values of prompts `place` of the last group into the rows, up to the common column."""
        w = self.window
        for number, source in enumerate(self.prompts.layers):
            if number == len(self.cache.layers):
                shapes = [
                    (self.rows, x.shape[1], self.columns, x.shape[3]) for x in (source.keys, source.values)
                ]
                self.cache.layers.append(_Layer(w, *(source.keys.new_zeros(shape) for shape in shapes)))
            layer = self.cache.layers[number]
            columns = slice(w.stop - source.keys.shape[2], w.stop)
            layer.keys[rows, :, columns] = source.keys[place]
            layer.values[rows, :, columns] = source.values[place]

    def _move(self) -> None:
        """Columns that no row needs any more go, so that the common column can go on."""
        w = self.window
        by = min(w.first, w.stop - self.longest)
        for layer in self.cache.layers:
            for kept in (layer.keys, layer.values):
                kept[: w.rows, :, : w.stop - by] = kept[: w.rows, :, by : w.stop].clone()
        self.state["start"] -= by
        self.jobs = [job and job._replace(start=job.start - by) for job in self.jobs]
        w.first, w.stop = w.first - by, w.stop - by

    def _close_ranks(self) -> None:
        """The rows that are left move together; nothing waits any more."""
        w = self.window
        rows = [row for row, job in enumerate(self.jobs) if job]
        at = torch.tensor(rows, device=self.device)
        for layer in self.cache.layers:
            for kept in (layer.keys, layer.values):
                kept[: len(rows), :, w.first : w.stop] = kept[at, :, w.first : w.stop]
        for values in self.state.values():
            values[: len(rows)] = values[at]
        self.jobs, w.rows = [self.jobs[row] for row in rows], len(rows)
