"""Students: a causal language model and its tokenizer, the embedded one or any other of transformers.

embedded    LLaMA architecture, 4 layers, width 128, 4 heads, 0.88 M parameters, context 512;
            knows single operations, stories, examples of one and two steps; was never shown the task
by name     "smollm2-135m": real, 134.5 M parameters, fetched on request (`student_files`)
otherwise   a folder or hub id with safetensors weights, or a GGUF file, dequantised once

A student as small as the embedded one computes on one thread, whatever the environment says: two are hardly
faster, their sums run in another order, and where a core is busy they wait for each other (37 times slower).
A larger one computes on as many as there are cores, or as NEGDISTILL_THREADS says: the runner shares the
cores among the chapters that run side by side.

What a student says of itself is read here, once: how long its texts may be, and which tokens end them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TokenizersBackend,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import logging

from negdistill.checks import check_choice, check_path, check_type
from negdistill.data import arithmetic_text
from negdistill.runs.folder import machine
from negdistill.training import student_files

THREADS = "NEGDISTILL_THREADS"  # of a student that is not small; the cores where it is not set
SMALL = 10_000_000  # parameters, below which one thread computes
DTYPES = ("float32", "bfloat16", "float16", "float64")
QUANTIZED = {
    "8bit": {"load_in_8bit": True},
    "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
}
# What configurations call the context, the usual name first. Some have none of these.
CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
UNLIMITED = 10**9  # tokenizers that know no limit say 10^30


class Student(NamedTuple):
    """A model in eval mode and the tokenizer that goes with it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def check_student(student: object) -> None:
    """TypeError unless it is a Student: neither its name nor its model alone."""
    check_type("student", student, Student, "a Student, as load_student() gives it")


def new_student(seed: int = 0) -> Student:
    """The embedded student before pre-training: its architecture with random weights, float32, on the CPU.

    The standard deviation of the start is 1/20 instead of 1/50: at width 128 arithmetic is then learnt in
    fewer steps.
    """
    tokenizer = arithmetic_text.tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.05,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Student(_on_threads(LlamaForCausalLM(config)).eval(), tokenizer)


def load_student(
    name: str = "embedded",
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    quantize: str | None = None,
) -> Student:
    """Load a causal language model for inference or training.

    name    "embedded", a student of `student list` that was fetched, such as "smollm2-135m", a GGUF file,
            a folder, or a hub id, owner/name; safetensors weights only, and no code from the folder or
            repository runs. Where the hub does not answer, what was loaded from it before is taken
    dtype   of torch, or the name of one in DTYPES; by default bfloat16 on CUDA and float32 elsewhere, so that
            two processors say the same. `low_precision.fast_dtype()` is what is fast here
    device  by default CUDA when there is one, the process's own of several, else the CPU
    quantize  "8bit" (LLM.int8) or "4bit" (NF4): what bitsandbytes keeps the projections in. LoRA and NAT
              train on top in full precision. Such a base is another model, with other answers
    A tokenizer without a pad token pads with its end-of-text token.
    Raises ValueError when there is no such model, or one without safetensors weights or tokenizer, one that
    needs code of its own, for an unknown dtype, for a device that is not here, and for quantize without
    bitsandbytes. TypeError for an argument of another type.
    """
    check_path("name", name)
    if isinstance(dtype, str):
        check_choice("dtype", dtype, DTYPES)
        dtype = getattr(torch, dtype)
    elif dtype is not None:
        check_type("dtype", dtype, torch.dtype, "a dtype of torch, such as torch.float16, or its name")
    if quantize is not None:
        check_choice("quantize", quantize, QUANTIZED)
        if find_spec("bitsandbytes") is None:
            raise ValueError(
                f"quantize={quantize!r} needs bitsandbytes, which is not installed; "
                "pip install bitsandbytes, or leave it out"
            )
    device = _device(device)
    if name == "embedded":
        with as_file(files("negdistill.data") / "embedded") as folder:
            return _load(str(folder), dtype, device, quantize)
    return _load(_checked(student_files.resolve(name)), dtype, device, quantize)


def _device(device: str | torch.device | None) -> torch.device:
    """The device, or what is there: of several GPUs the process's own."""
    own = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # a number that accelerate and torchrun give
    if device is None:
        return torch.device(own if torch.cuda.is_available() else "cpu")
    check_type("device", device, (str, torch.device), 'a device of torch, such as "cpu" or "cuda:0"')
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f'device must be one of torch, such as "cpu" or "cuda:0"; got {device!r}: '
            f"{str(error).partition(': ')[0]}"
        ) from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f'device must be one that is here; got {device!r}; take "cpu", or leave it out')
    return found


def context_length(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> int:
    """Longest text in tokens: the configuration's word, else the tokenizer's.

    With long-rope it is `original_max_position_embeddings`: beyond that, all that was computed before would
    have to be computed again with other factors. ValueError where neither says anything.
    """
    config = model.config.get_text_config()
    said = (getattr(config, name, None) for name in CONTEXT)
    length = next((value for value in said if isinstance(value, int) and value > 0), None)
    if length is None and tokenizer.model_max_length < UNLIMITED:
        length = int(tokenizer.model_max_length)
    if length is None:
        raise ValueError(
            f"the context of {type(model).__name__} must be known, and neither its configuration nor its "
            "tokenizer says it; set tokenizer.model_max_length, or model_max_length in tokenizer_config.json"
        )
    return min(length, rope_change(model) or length)


def rope_change(model: nn.Module) -> int | None:
    """Tokens after which a long-rope model reads all positions with other factors; None for other models."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    of_layers = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    long = [one for one in of_layers if one.get("rope_type") == "longrope"]
    return min((one["original_max_position_embeddings"] for one in long), default=None)


def end_ids(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end an answer: those of the generation settings, of the configuration, of the tokenizer.

    A chat model ends its turns with another token than texts end with. What training puts at the end of a
    text is the tokenizer's.
    """
    settings, config = getattr(model, "generation_config", None), model.config
    owners = (settings, config, config.get_text_config(), tokenizer)
    said = (getattr(owner, "eos_token_id", None) for owner in owners)
    many = (one if isinstance(one, list | tuple) else [one] for one in said if one is not None)
    return frozenset(token for one in many for token in one)


def _checked(name: str | Path) -> str:
    """The name, if it may be one: a folder that is there, or owner/name."""
    text = str(name)
    if text and Path(text).is_dir() or re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text):
        return text
    here = [path.parent.name for path in Path().glob("*/config.json")]
    named = ["embedded", *student_files.STUDENTS]
    near = get_close_matches(text, [*named, *here], 1)
    raise ValueError(
        f"name must be {', '.join(map(repr, named))}, a GGUF file, a folder or a hub id, owner/name, of a "
        "causal language model; "
        f"got {text!r}, which is no folder" + (f'; did you mean "{near[0]}"?' if near else "")
    )


def _hub_is_silent(name: str) -> bool:
    """Whether to do without the hub, which is asked once: transformers would ask for half a minute."""
    try:
        HfApi().model_info(name, timeout=5)
    except HfHubHTTPError:  # an answer, if not the one hoped for
        return False
    except Exception:  # as many classes as there are HTTP clients
        return True
    return False


def _tokenizer(name: str, **common: bool) -> PreTrainedTokenizerBase:
    """The one that lies there. For some families AutoTokenizer takes their own in place of a general one."""
    general = get_tokenizer_config(name, **common).get("tokenizer_class") == TokenizersBackend.__name__
    return (TokenizersBackend if general else AutoTokenizer).from_pretrained(name, **common)


def _load(name: str, dtype: torch.dtype | None, device: torch.device, quantize: str | None) -> Student:
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    local = Path(name).is_dir() or _hub_is_silent(name)
    common = {"trust_remote_code": False, "local_files_only": local}
    options = {"dtype": dtype, "use_safetensors": True}
    if quantize is not None:  # on the device at once: bitsandbytes quantises as it arrives there
        config = BitsAndBytesConfig(**QUANTIZED[quantize], bnb_4bit_compute_dtype=dtype)
        options |= {"quantization_config": config, "device_map": {"": device}}
    try:
        tokenizer = _tokenizer(name, **common)
        with _without_bar() if os.path.isdir(name) else nullcontext():  # a download shows how far it is
            model = AutoModelForCausalLM.from_pretrained(name, **common, **options)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            "name must be 'embedded', a folder or a hub id of a causal language model with safetensors "
            f"weights and a tokenizer; got {name!r}: {reason}"
        ) from error
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return Student(_on_threads(model if quantize else model.to(device)).eval(), tokenizer)


@contextmanager
def _without_bar() -> Iterator[None]:
    """No progress bar of transformers, as long as the block lasts."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _on_threads(model: PreTrainedModel) -> PreTrainedModel:
    """The model, and from here on as many threads as it can use."""
    wanted = os.environ.get(THREADS) or str(machine()["cores"])
    if not (wanted.isdecimal() and int(wanted)):
        raise ValueError(f"{THREADS} must be a whole number of at least 1, or not set; got {wanted!r}")
    torch.set_num_threads(1 if model.num_parameters() < SMALL else int(wanted))
    return model
