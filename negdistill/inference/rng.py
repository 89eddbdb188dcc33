"""Draws: one token from its logits, with noise that is a pure function of what it is for.

    u      in [0, 1), a hash of (seed, prompt, sample, position)
    token  first k with p_1 + ... + p_k > u sum(p),    p = softmax(logits / temperature)

So a token depends neither on the batch nor on what else is drawn. What is left: logits of other batch shapes
differ by about 1e-6 in float32, and u falls that close to the border of two tokens about once in some hundred
thousand tokens; in bfloat16 it is about once in a hundred.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from negdistill.checks import check_number, check_whole


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to draw, as `sample.sample` takes it. ValueError for a number out of its range."""

    n: int
    temperature: float
    max_new_tokens: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("n", "max_new_tokens"):
            check_whole(name, getattr(self, name), 1)
        check_whole("seed", self.seed, 0)
        check_number("temperature", self.temperature, low=0)
        if self.temperature == 0 and self.n > 1:
            raise ValueError(f"n must be 1 at temperature 0, where all samples are equal; got {self.n}")


def noise(keys: Tensor, position: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) of 53 bits, float64 (B,), from 64-bit keys and positions, int64 (B,) each.

    The output function of SplitMix64 (Steele, Lea and Flood, 2014) at state key + position * golden ratio.
    """
    x = keys + position * -0x61C8864680B583EB
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * -0x40A7B892E31B1A47
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * -0x6B2FB644ECCEEE15
    x = x ^ (x >> 31 & (1 << 33) - 1)
    return (x >> 11 & (1 << 53) - 1).double() * 2.0**-53


def row_key(seed: int, problem_id: str, index: int) -> int:
    """The 64 bits, as a signed number, that the noise of one sample starts from."""
    digest = hashlib.sha256(f"{seed} {index} {problem_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def draw(logits: Tensor, u: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Tokens, int64 (B,), and the logarithms of their probabilities at temperature 1, float64 (B,).

    logits  (B, V), float32 or float64
    u       noise in [0, 1), float64 (B,); at temperature 0 it is not read
    """
    if temperature == 0:
        token = logits.argmax(-1, keepdim=True)
    else:
        p = torch.softmax(logits / temperature if temperature != 1 else logits, -1)
        below = p.cumsum(-1, dtype=torch.float64)
        token = torch.searchsorted(below, u[:, None] * below[:, -1:], right=True)
        token = token.clamp_(max=logits.shape[-1] - 1)
    log_prob = logits.gather(-1, token)[:, 0].double() - logits.logsumexp(-1)
    return token[:, 0], log_prob
