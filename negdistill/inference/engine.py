"""Decoding: a batch whose rows enter and leave on their own, over one cache.

    columns of the cache   . . p p p p c c c c | .      p prompt, c drawn; all rows write the same column
                           p p p p p p c c e . | .      e end of text: the row leaves,
                           . . . . . p p p p c | .      a waiting prompt takes its place

A prompt is computed once; its keys and values are copied to its n rows. Attention costs every row as much as
the longest, so a row that outgrows the others is put aside, and computed again when all prompts have entered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import Cache

from negdistill.data.records import Sample
from negdistill.inference.kv_cache import (
    Layer,
    Window,
    forward,
    plain,
    prefill,
    require_keys_only,
)
from negdistill.inference.rng import SamplingParams, draw, noise, row_key
from negdistill.runs.memory import give_back
from negdistill.training.batching import pad_id
from negdistill.training.students import end_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from negdistill.training.students import Student

PREFILL = 2048  # tokens of prompts computed together
SLACK = 64  # columns beyond the longest row, so that the cache is moved rarely
ASIDE = 1.75  # times the mean length: longer rows wait until all prompts have entered


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
        give_back()  # before the cache takes what the memory holds
        self.model = plain(student.model)
        self.tokenizer: PreTrainedTokenizerBase = student.tokenizer
        self.pad, self.ends = pad_id(self.tokenizer), end_ids(self.model, self.tokenizer)
        self.rows, self.columns, self.context, self.bar = rows, columns, context, bar
        self.window, self.cache = Window(), Cache(layers=[])
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
        self.state |= {"start": whole() + w.stop, "text": whole(min(rules.max_new_tokens, self.context) + 1)}
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
        logits = forward(self.model, tokens, columns, start, self.context, self.cache)
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
                self.logits, self.prompts = prefill(self.model, [text.ids for text in group], self.pad)
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
                self.cache.layers.append(Layer(w, *(source.keys.new_zeros(shape) for shape in shapes)))
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
