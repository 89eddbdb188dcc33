"""A frozen base in bfloat16 on a CPU: which processors multiply it, and plain LoRA computed in its type.

    y = W0 x                       the base's own, bfloat16
    y + s B (A x')                 A and B rounded to bfloat16 once a call, x' is x after dropout
    gradients of A and B           bfloat16 products summed in float32, added to float32 master weights

PEFT casts x to float32 for the adapters and draws dropout number by number, which takes a CPU longer than
what the adapters multiply. Here one function keeps x, a byte for each number of it, and A x'. The layers are
PEFT's own, so what is saved is a stock folder. A base in float32 is left to PEFT, number for number.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from negdistill.method.nat_unit import keep_mask
from negdistill.method.peft_loader import load_peft

MULTIPLE = 32  # lengths on a CPU are rounded up to it: blocks of few sizes, which the allocator can use again


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware, as torch sees it (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def fast_dtype() -> torch.dtype:
    """bfloat16 on CUDA and on processors that multiply it, else float32: for students from outside."""
    fast = torch.cuda.is_available() or multiplies_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def on_cpu(model: nn.Module) -> bool:
    """Whether a model's first parameter, an embedding, is bfloat16 on a CPU."""
    first = next(model.parameters())
    return first.dtype == torch.bfloat16 and first.device.type == "cpu"


def length_multiple(model: nn.Module) -> int:
    """What the lengths of batches are rounded up to: MULTIPLE for a bfloat16 model on a CPU, else 1."""
    return MULTIPLE if on_cpu(model) else 1


class Beside(torch.autograd.Function):
    """y + scaling B (A x'), and its gradients.

    x     [..., d_in], y [..., d_out], a [r, d_in], b [d_out, r]: one dtype; y is W0 x
    kept  uint8 like x, 1 where A sees x; None: everywhere. `scaling` includes 1 / share kept
    """

    @staticmethod
    def forward(ctx, x, y, kept, scaling, a, b):
        flat = x.flatten(0, -2)
        low = F.linear(flat if kept is None else flat * kept.flatten(0, -2), a).mul_(scaling)
        ctx.save_for_backward(x, kept, a, b, low)
        ctx.scaling = scaling
        return torch.addmm(y.flatten(0, -2), low, b.t()).view(y.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out):
        x, kept, a, b, low = ctx.saved_tensors
        flat, d_flat = x.flatten(0, -2), d_out.flatten(0, -2)
        d_low = (d_flat @ b).mul_(ctx.scaling)
        d_x = d_low @ a if ctx.needs_input_grad[0] else None
        if kept is not None:
            kept = kept.flatten(0, -2)
            flat, d_x = flat * kept, None if d_x is None else d_x.mul_(kept)
        d_x = None if d_x is None else d_x.view(x.shape)
        return d_x, d_out, None, None, d_low.t() @ flat, (low.t() @ d_flat).t()


def quicken(model: nn.Module) -> None:
    """Let PEFT's plain LoRA layers over a bfloat16 base compute in bfloat16, in place; others stay PEFT's."""
    plain = load_peft().tuners.lora.layer.Linear
    for layer in model.modules():
        if type(layer) is plain and layer.get_base_layer().weight.dtype == torch.bfloat16:
            layer.forward = partial(_forward, layer)


def _forward(layer: nn.Module, x: Tensor, *args: object, **kwargs: object) -> Tensor:
    """As PEFT's own forward, for what it calls vanilla LoRA."""
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or args or kwargs or set(active) & set(layer.lora_variant):
        return type(layer).forward(layer, x, *args, **kwargs)
    y = layer.base_layer(x)
    for name in active:
        a, b = (part[name].weight.to(y.dtype) for part in (layer.lora_A, layer.lora_B))
        drop = getattr(layer.lora_dropout[name], "p", 0.0) if layer.training else 0.0
        share = max(1, round((1 - drop) * 2**16))
        kept = keep_mask(x.shape, share, x.device) if share < 2**16 else None
        y = Beside.apply(x.to(y.dtype), y, kept, layer.scaling[name] * 2**16 / share, a, b)
    return y
