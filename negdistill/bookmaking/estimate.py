"""Estimate: tokens, time and memory of a profile before anything is run, from parameters and shapes alone.

    tokens of a step = rows a step x tokens of a row; rows a step = batch_size x gradient_accumulation_steps
    FLOPs of training = 4 N per token (2 N forward, 2 N back through frozen weights), of an answer 2 N
    memory = weights + 16 bytes for each number that is trained + activations and logits of one batch

N counts the parameters of the base. Nothing is loaded, no hub is asked: shapes come from a configuration that
is at hand, or from SHAPES. `dry_run` marks what is estimated; what was measured is in book/scale.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config

from negdistill.bookmaking.planning import Job
from negdistill.checks import check_choice
from negdistill.data.tasks import load_task
from negdistill.inference.ranker import LOSSES
from negdistill.method.projections import projections, widths
from negdistill.training.method_table import METHODS, trainings
from negdistill.training.settings import Settings, settings
from negdistill.training.students import load_student

_LLAMA = {"max_position_embeddings": 2048, "tie_word_embeddings": False}
SHAPES: Mapping[str, PretrainedConfig] = {  # of students that a profile names, for machines without them
    "huggyllama/llama-7b": LlamaConfig(**_LLAMA),
    "Qwen/Qwen2.5-0.5B": Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=151_936,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
    ),
    "smollm2-135m": LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49_152,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
}
CHARACTERS = 2.7  # a token, measured on the released rationales with a byte-level BPE of 32,000
SAMPLE = 200  # questions and rationales that lengths are measured on
GIB = 2**30
OWN = ":"  # in the name of a method: "module:Name", see `method_table.find_method`
SUSTAINED = 300e12  # FLOP/s: a guess at what a GPU of 80 GB reaches in bfloat16


class Shape(NamedTuple):
    """Of a student: parameters, what LoRA and NAT train, layers, width, vocabulary, bytes of a weight."""

    parameters: int
    lora: int
    nat: int
    layers: int
    width: int
    vocabulary: int
    weight_bytes: int


class Work(NamedTuple):
    """What a notebook does: optimiser steps, and answers of at most answer_tokens tokens."""

    steps: int
    answers: int


def _trainings(method: str) -> int:
    """As `method_table.trainings`; ValueError for a method whose module would have to be imported."""
    if OWN in method:
        raise ValueError(f"{method} is a method of your own, and a dry run imports no code of yours")
    return trainings(method)


@lru_cache(maxsize=8)
def _meta(student: str) -> torch.nn.Module:
    """The student without weights; ValueError where its configuration is not at hand."""
    if student == "embedded":
        config = load_student("embedded").model.config
    elif student in SHAPES:
        config = SHAPES[student]
    else:
        try:
            config = AutoConfig.from_pretrained(student, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"student must be at hand, or one of {', '.join(map(repr, SHAPES))}, to be estimated; "
                f"got {student!r}"
            ) from error
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def shape_of(student: str, recipe: Settings) -> Shape:
    """Numbers of a student under a recipe; ValueError where its configuration is not at hand."""
    model, nat = _meta(student), recipe.nat
    text = model.config.get_text_config()
    sizes = [widths(module) for module in projections(model, nat.target_modules).values()]
    lora = nat.r * sum(d_in + d_out for d_in, d_out in sizes)
    unit = nat.unit_dim * sum(d_in + 3 * d_out for d_in, d_out in sizes)
    size = sum(parameter.numel() for parameter in model.parameters())
    weight = 4 if student == "embedded" else 2
    return Shape(size, lora, lora + unit, text.num_hidden_layers, text.hidden_size, text.vocab_size, weight)


def memory(shape: Shape, rows: int, tokens: int) -> int:
    """Bytes of a NAT training step of `rows` rows of `tokens` tokens.

    Activations: about 34 numbers of the model's width for each token and layer, kept in the weights' type;
    logits twice in float32, of 1,024 tokens at a time.
    """
    kept = 34 * shape.width * shape.layers * rows * tokens * shape.weight_bytes
    logits = 2 * 4 * shape.vocabulary * min(rows * tokens, 1024)
    return shape.parameters * shape.weight_bytes + 16 * shape.nat + kept + logits


def work(job: Job, rows: int) -> Work | None:
    """Steps, of `rows` rows each, and answers of a notebook by its parameters; None for one without any.

    The notebook's metadata declares both: {"negdistill": {"work": {"steps": terms, "answers": terms}}}. A
    term is a product, the terms are added. A factor is a whole number, or

        name                     a parameter: its number, or how many its list or mapping holds
        any of name              1 where the parameter is not empty, else 0
        nonzero of name          how many numbers of its list are not 0
        trainings of name        all trainings that the methods of its list take, with what these use
        most trainings of name   those of the method that takes the most
        epoch                    steps of a pass over the rationales of one kind, half of all
        shifted sets             those named by the parameter `shifted`, else all that the task has

    ValueError for any other factor.
    """
    totals = (
        sum(prod(_factor(job, factor, rows) for factor in term) for term in job.work.get(kind, ()))
        for kind in ("steps", "answers")
    )
    return Work(*totals) if job.work else None


def _factor(job: Job, factor: int | str, rows: int) -> int:
    p = job.parameters
    if isinstance(factor, int):
        return factor
    if factor == "epoch":
        return -(-p["questions"] * p["samples"] // (2 * rows))
    if factor == "shifted sets":
        return len(p["shifted"] or load_task(p["task"]).shifted)
    kind, _, name = factor.rpartition(" of ")
    check_choice(f"work of {job.name}", name, p)
    if kind:
        counts = {
            "any": lambda value: bool(value),
            "nonzero": lambda values: sum(map(bool, values)),
            "trainings": lambda methods: sum(map(_trainings, methods)),
            "most trainings": lambda methods: max(map(_trainings, methods)),
        }
        check_choice(f"work of {job.name}", kind, counts)
        return int(counts[kind](p[name]))
    return len(p[name]) if isinstance(p[name], list | dict) else p[name]


@lru_cache(maxsize=8)
def row_tokens(task: str, teacher: str, student: str) -> int:
    """Mean tokens of a question and a rationale: counted for the embedded student, else from characters.

    ValueError or FileNotFoundError where the task's data is not at hand.
    """
    world = load_task(task)
    problems = world.questions("train", SAMPLE if world.generated else None)[:SAMPLE]
    said = world.rationales(problems, teacher, 1)
    question = {problem.id: problem.question for problem in problems}  # some may have no rationale
    texts = [f"{question[one.problem_id]} {one.text}" for one in said]
    if student == "embedded":
        return round(sum(map(len, load_student(student).tokenizer(texts)["input_ids"])) / len(texts))
    return round(sum(map(len, texts)) / len(texts) / CHARACTERS)


def recipe_of(job: Job) -> Settings:
    """The settings of a notebook's trainings; ValueError where they refuse a value of its parameters."""
    p = job.parameters
    try:
        return settings(p["recipe"], **{"batch_size": p["batch_size"], **p["changes"]})
    except TypeError as error:
        raise ValueError(f"changes of {job.name}: {error}; leave it out to keep the recipe's") from error


class Estimate(NamedTuple):
    """Of a notebook: steps of `rows` rows of `length` tokens, answers, tokens trained, FLOPs, hours, GiB."""

    steps: int
    rows: int
    length: int
    answers: int
    tokens: int
    flops: float
    hours: float
    gib: float


def estimate(job: Job) -> Estimate | None:
    """What a notebook costs; None for one that trains nothing. Hours are those at SUSTAINED FLOP/s.

    ValueError or FileNotFoundError where the shape of the student or the data of the task is not at hand.
    """
    p = job.parameters
    if "recipe" not in p:
        return None
    recipe = recipe_of(job)
    rows = recipe.train.batch_size * recipe.train.gradient_accumulation_steps
    todo = work(job, rows)
    if todo is None:
        raise ValueError(f"{job.source} must declare its work, since it has a recipe: see `estimate.work`")
    shape = shape_of(p["student"], recipe)
    length = row_tokens(p["task"], (p.get("teachers") or [p["teacher"]])[0], p["student"])
    tokens, drawn = todo.steps * rows * length, todo.answers * p["answer_tokens"]
    flops = 4.0 * shape.parameters * tokens + 2.0 * shape.parameters * drawn
    gib = memory(shape, recipe.train.batch_size, length) / GIB
    return Estimate(todo.steps, rows, length, todo.answers, tokens, flops, flops / SUSTAINED / 3600, gib)


def check(job: Job) -> None:
    """ValueError for a parameter whose value the notebook would refuse."""
    p = job.parameters
    if "recipe" in p:
        recipe_of(job)
        load_task(p["task"], p["grading"])
    for name in ("methods", "deciding", "rows", "enlarged", "students", "voters"):
        for method in p.get(name, []):
            if OWN not in method:  # a module, which only a run imports
                check_choice(f"{name} of {job.name}", method, METHODS)
    for loss in [*p.get("losses", []), *([p["loss"]] if "loss" in p else [])]:
        check_choice(f"loss of {job.name}", loss, LOSSES)


@contextmanager
def _seen_from(folder: Path) -> Iterator[None]:
    """Files and modules as a notebook in that folder sees them, within the block."""
    sys.path.insert(0, str(folder))
    try:
        with chdir(folder):
            yield
    finally:
        sys.path.remove(str(folder))


def dry_run(jobs: Sequence[Job]) -> Iterator[str]:
    """Lines that say what `pipeline.run` would do: inputs, outputs, estimates of tokens, FLOPs and memory.

    ValueError, before the first line, for a parameter whose value a notebook would refuse.
    """
    for job in jobs:
        with _seen_from(job.source.parent):
            check(job)
    for job in jobs:
        p, needs = job.parameters, f", results of {', '.join(job.needs)}" if job.needs else ""
        yield f"{job.name}"
        if "task" in p:
            teachers = p.get("teachers") or [p["teacher"]]
            yield f"  reads   task {p['task']}, teacher {', '.join(teachers)}, student {p['student']}{needs}"
        writes = [f"{job.target.parent.name}/{job.target.name}"]
        writes += [str(p["run_dir"])] if "run_dir" in p else []
        yield f"  writes  {', '.join(writes)}"
        try:
            with _seen_from(job.source.parent):
                found = estimate(job)
        except (ValueError, FileNotFoundError) as error:
            seen = "; paths are seen from notebooks/" if isinstance(error, FileNotFoundError) else ""
            yield f"  cost    not estimated: {error}{seen}"
            continue
        if found is not None:
            size = f"{found.rows} rows of about {found.length} tokens, {found.tokens / 1e6:,.1f} M tokens"
            yield f"  cost    {found.steps:,} steps of {size}; {found.answers:,} answers"
            hours = f"{found.hours:,.2g} hours at {SUSTAINED / 1e12:.0f} TFLOP/s, "
            hours = "" if p["student"] == "embedded" else hours
            yield f"          estimated: {found.flops / 1e15:,.3g} PFLOP, {hours}{found.gib:,.2g} GiB"
