"""Identity: digests of all in a student or an objective that a result depends on.

    model       every weight, the configuration, scale and dropout of adapters, the ids that end an answer
    tokenizer   vocabulary, normaliser, splitting, special tokens, chat template, length of the longest text
    objective   its source and the values that it carries along

Two models of equal weights differ where one rotates its positions by another base, so both are read.
"""

from __future__ import annotations

import dis
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from negdistill.method.objectives import NEEDS_REFERENCE, NEEDS_TEACHER, OBJECTIVES, Objective
from negdistill.runs.digests import digest_json, digest_weights
from negdistill.runs.own_code import digest_own
from negdistill.training.batching import Encoded, Teacher, digest_encoded
from negdistill.training.steps import Order, TrainConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from negdistill.training.students import Student

_NAMES = {
    "_name_or_path",
    "transformers_version",
    "dtype",
    "torch_dtype",
}  # change no result
_STATE = ("padding", "truncation")  # of a tokenizer: how it was last called


def digest_model(model: nn.Module) -> str:
    """sha256 of a model, with its adapters if it carries any."""
    values = [digest_weights(model.named_parameters()), _config(model), _adapters(model)]
    return digest_json([*values, _ends(model)])


def digest_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of how a tokenizer turns text into tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    core = json.loads(backend.to_str()) if backend is not None else tokenizer.get_vocab()
    core = {name: value for name, value in core.items() if name not in _STATE}
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items()}
    said = (getattr(tokenizer, name, None) for name in ("chat_template", "model_max_length"))
    return digest_json([core, special, *said])


def digest_student(student: Student) -> dict[str, str]:
    """What a result of a student follows from, for a manifest's inputs: student and tokenizer."""
    return {"student": digest_model(student.model), "tokenizer": digest_tokenizer(student.tokenizer)}


def digest_objective(objective: Callable) -> str:
    """sha256 of a function: its name, source and defaults, what it or a partial of it carries along, and the
    modules of one's own that it was imported from, or of one in a notebook or script what its code names
    there; ValueError as `digest_own`."""
    return digest_json(_carried(objective, frozenset()))


def _carried(function: Callable, within: frozenset[Callable]) -> list:
    if isinstance(function, partial):
        filled = repr(function.args), repr(sorted(function.keywords.items()))
        return ["partial", _carried(function.func, within), *filled]
    if not inspect.isroutine(function):  # an object that can be called
        kind, values = type(function), repr(sorted(vars(function).items()))
        beside = digest_own(kind, kind.__module__, kind.__qualname__)
        return [kind.__qualname__, _source(kind), values, beside]
    cells = [repr(cell.cell_contents) for cell in getattr(function, "__closure__", None) or ()]
    defaults = [repr(getattr(function, name, None)) for name in ("__defaults__", "__kwdefaults__")]
    module, name = function.__module__, function.__qualname__
    inner = inspect.unwrap(function)  # of a cached one, what it caches
    if module == "__main__" and inner not in within and inspect.isfunction(inner):
        beside = _named(inner, within | {inner})
    else:
        beside = digest_own(function, module or "", name)
    return [module, name, _source(function), defaults, cells, beside]


def _named(function: Callable, within: frozenset[Callable]) -> list:
    """What the code of a function names in its notebook or script, and what is there."""
    todo, names = [function.__code__], set()
    while todo:
        code = todo.pop()
        read = (one for one in dis.get_instructions(code) if one.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
        names |= {one.argval for one in read}
        todo += [one for one in code.co_consts if inspect.iscode(one)]  # of what is defined in it
    there = {name: function.__globals__[name] for name in sorted(names & set(function.__globals__))}
    return [[name, _shown(value, within)] for name, value in there.items()]


def _shown(value: object, within: frozenset[Callable]) -> object:
    """A value as it is in every Python that runs the same code: no address, no order of a set."""
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, (list, tuple)):
        return [_shown(one, within) for one in value]
    if isinstance(value, Mapping):
        return [[repr(name), _shown(one, within)] for name, one in value.items()]
    if inspect.isroutine(value) or isinstance(value, partial):
        return _carried(value, within)
    if inspect.ismodule(value):
        return value.__name__
    if inspect.isclass(value):
        return [value.__qualname__, _source(value)]
    return type(value).__qualname__ if type(value).__repr__ is object.__repr__ else repr(value)


def _source(thing: object) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):  # typed at a prompt, or built in
        return repr(getattr(getattr(thing, "__code__", None), "co_code", ""))


def _config(model: nn.Module) -> object:
    config = getattr(model, "config", None)
    return None if config is None else _without_names(json.loads(config.to_json_string()))


def _without_names(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_names(inner) for name, inner in value.items() if name not in _NAMES}
    return [_without_names(inner) for inner in value] if isinstance(value, list) else value


def _adapters(model: nn.Module) -> list:
    """Scale, dropout and unit of every adapted layer, of PEFT or of NAT."""
    found: list = []
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            unit = getattr(getattr(module, "state", None), "config", None)
            found.append([name, repr(getattr(module, "scaling", None)), repr(unit)])
        if isinstance(module, nn.Dropout):
            found.append([name, module.p])
    return found


def _ends(model: nn.Module) -> object:
    return getattr(getattr(model, "generation_config", None), "eos_token_id", None)


def run_key(
    model: nn.Module,
    encoded: Sequence[Encoded],
    config: TrainConfig,
    objective: Objective,
    teacher: Teacher | None,
    order: Order,
    code: str,
) -> dict[str, object]:
    """What makes a run this run, part by part; the checkpoint of a run with another key is refused.

    code  digest of what computes it
    """
    name = objective_name(objective)
    needed = name in NEEDS_TEACHER or name in NEEDS_REFERENCE
    if name in OBJECTIVES and needed != (teacher is not None):
        raise ValueError(f"objective {name!r} needs {'a' if teacher is None else 'no'} teacher")
    data = digest_encoded(encoded)
    if teacher is not None and teacher.data != data:
        raise ValueError("teacher must be made for these examples in this order; it was made for others")
    trained = digest_json([name for name, p in model.named_parameters() if p.requires_grad])
    settings = {k: v for k, v in asdict(config).items() if k not in ("progress", "checkpoint_every")}
    key = {"data": data, "model": digest_model(model), "trained": trained, "code": code}
    key |= {"objective": digest_objective(objective), "order": digest_objective(order), **settings}
    return key if teacher is None else key | {"teacher": teacher.key}


def objective_name(objective: Objective) -> str:
    """In OBJECTIVES, else that of the function, also of one with some arguments filled in."""
    if named := [name for name, known in OBJECTIVES.items() if known is objective]:
        return named[0]
    while isinstance(objective, partial):
        objective = objective.func
    return getattr(objective, "__name__", type(objective).__name__)
