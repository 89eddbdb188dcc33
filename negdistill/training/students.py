"""Students: a causal language model and its tokenizer, the embedded one or any other of transformers.

embedded    LLaMA architecture, 4 layers, width 128, 4 heads, 0.88 M parameters, context 512;
            knows single operations, stories, examples of one and two steps; was never shown the task
otherwise   a folder or hub id with safetensors weights

A student as small as the embedded one computes on one thread, whatever the environment says: two are hardly
faster, their sums run in another order, and where a core is busy they wait for each other (37 times slower).
Loading a larger one gives PyTorch its threads back: those of the machine, or as many as OMP_NUM_THREADS says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.resources import as_file, files
from importlib.util import find_spec
from typing import NamedTuple

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from negdistill.checks import check_choice
from negdistill.data import arithmetic

THREADS = torch.get_num_threads()  # that PyTorch took when it was imported
SMALL = 10_000_000  # parameters, below which one thread computes
QUANTIZED = {
    "8bit": {"load_in_8bit": True},
    "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
}


class Student(NamedTuple):
    """A model in eval mode and the tokenizer that goes with it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def new_student(seed: int = 0) -> Student:
    """The embedded student before pre-training: its architecture with random weights, float32, on the CPU.

    The standard deviation of the start is 1/20 instead of 1/50: at width 128 arithmetic is then learnt in
    fewer steps.
    """
    tokenizer = arithmetic.tokenizer()
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
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    quantize: str | None = None,
) -> Student:
    """Load a causal language model for inference or training.

    name    "embedded", a folder, or a hub id; safetensors weights only, and no code from the repository runs
    dtype   by default bfloat16 on CUDA and float32 elsewhere
    device  by default CUDA when there is one, the process's own of several, else the CPU
    quantize  "8bit" (LLM.int8) or "4bit" (NF4): what bitsandbytes keeps the projections in. LoRA and NAT
              train on top in full precision. Such a base is another model, with other answers
    A tokenizer without a pad token pads with its end-of-text token.
    Raises ValueError when there is no such model, or one without safetensors weights or tokenizer, and for
    quantize without bitsandbytes.
    """
    if quantize is not None:
        check_choice("quantize", quantize, QUANTIZED)
        if find_spec("bitsandbytes") is None:
            raise ValueError(
                f"quantize={quantize!r} needs bitsandbytes, which is not installed; "
                "pip install bitsandbytes, or leave it out"
            )
    own = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # a number that accelerate and torchrun give
    device = torch.device(device or (own if torch.cuda.is_available() else "cpu"))
    if name == "embedded":
        with as_file(files("negdistill.data") / "embedded") as folder:
            return _load(str(folder), dtype, device, quantize)
    return _load(str(name), dtype, device, quantize)


def _load(name: str, dtype: torch.dtype | None, device: torch.device, quantize: str | None) -> Student:
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    options = {"dtype": dtype, "use_safetensors": True, "attn_implementation": "sdpa"}
    if quantize is not None:  # on the device at once: bitsandbytes quantises as it arrives there
        config = BitsAndBytesConfig(**QUANTIZED[quantize], bnb_4bit_compute_dtype=dtype)
        options |= {"quantization_config": config, "device_map": {"": device}}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        with _without_bar() if os.path.isdir(name) else nullcontext():  # a download shows how far it is
            model = AutoModelForCausalLM.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            'name must be "embedded", a folder or a hub id of a causal language model with safetensors '
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
    torch.set_num_threads(1 if model.num_parameters() < SMALL else THREADS)
    return model
