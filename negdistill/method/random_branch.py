"""A control: NAT over a negative branch of noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from negdistill.method.nat import dual_layers, fill, require_trained


@torch.no_grad()
def randomize_negative(model: nn.Module, seed: int = 0) -> None:
    """Replace every negative pair by Gaussian noise of the same size: the same norms of A- and of B- A-.

    The control for what a negative adapter knows. Raises ValueError where the negative branch is empty.
    """
    require_trained(model, "neg")
    generator = torch.Generator().manual_seed(seed)
    for layer in dual_layers(model).values():
        a, b = layer.lora_A["neg"].weight, layer.lora_B["neg"].weight
        new_a, new_b = (torch.randn(w.shape, generator=generator, dtype=w.dtype).to(w.device) for w in (a, b))
        new_a *= a.norm() / new_a.norm()
        new_b *= _product_norm(a, b) / _product_norm(new_a, new_b)
        fill(layer, "neg", (new_a, new_b))


def _product_norm(a: Tensor, b: Tensor) -> Tensor:
    """Frobenius norm of B A, from r x r matrices."""
    return ((b.t() @ b) * (a @ a.t())).sum().sqrt()
