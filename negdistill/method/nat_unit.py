"""The integrate unit of NAT and the projection that carries it.

    h+ = W0 x + s+ B+ A+ x        h- = W0 x + s- B- A- x        s = lora_alpha / r
    alpha = softmax of (W_Q x) . (W_K h+), (W_Q x) . (W_K h-)   corrected by [+0.5, -0.5]
    out = W0 x + alpha+ V(h+) + alpha- V(h-)                    V(h) = W_2 gelu(W_1 h)

(arXiv 2312.12832, dynamic integration.) x [B, T, d_in]; out [B, T, d_out]; W_Q [u, d_in]; W_K and W_1
[u, d_out]; W_2 [d_out, u]; u = unit_dim. W0 x includes the bias of W0. The GELU is the exact (erf) one, and
the scores are not scaled.

`integrate_plain` is this, line by line. `Integrate` computes the same numbers, up to rounding, without h+, h-
and W_Q x, in half the time and with a third of what is kept for backward. With a = A x of each branch:

    score- - score+ = (N x) . [a+, a-]                          N = [-s+ W_K B+, s- W_K B-]^T W_Q
    alpha- = sigmoid(score- - score+) - 1/2                     alpha+ = 1 - alpha-
    z = W_1 W0 x + s W_1 B a   of each branch
    out = W0 x + W_2 (gelu(z+) + alpha- (gelu(z-) - gelu(z+)))

W_K W0 x cancels. N [r+ + r-, d_in] and W_1 B [u, r] are made once per call, so that per token only W_1 and
W_2 are wide products. Kept for backward: x, W0 x, W_1 W0 x, four ranks and one number a token, and with
dropout one byte for each number of x.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from negdistill.checks import check_choice, check_flag, check_number, check_whole, own_numbers
from negdistill.method.projections import widths

VIEWS = ("base", "pos", "neg", "nat")
BRANCHES = ("pos", "neg")
MIXES = ("unit", "sum")
UNIT = ("query", "key", "value_in", "value_out")  # W_Q, W_K, W_1, W_2
UNIT_SETTINGS = ("unit_dim", "shift", "train_neg", "mix")  # fields of NATConfig that a plain LoRA lacks


def integrate_plain(
    x: Tensor, w0_x: Tensor, pos: Tensor, neg: Tensor, w_q: Tensor, w_k: Tensor, w_1: Tensor, w_2: Tensor
) -> tuple[Tensor, Tensor]:
    """The integrate unit as the paper writes it (eq-branches, eq-alpha and eq-nat of book/method.md).

    x [B, T, d_in]; w0_x = W0 x [B, T, d_out]; pos = s+ B+ A+ x and neg = s- B- A- x [B, T, d_out];
    w_q [u, d_in]; w_k, w_1 [u, d_out]; w_2 [d_out, u] -> out [B, T, d_out], alpha- in [-0.5, 0.5] [B, T, 1],
    in the dtype that all have

    It stays what it is compared with, formulas alone: of shapes or dtypes that do not go together torch says
    so, as RuntimeError.
    """
    h_pos, h_neg = w0_x + pos, w0_x + neg
    query = x @ w_q.t()
    scores = [(query * (h @ w_k.t())).sum(-1, keepdim=True) for h in (h_pos, h_neg)]
    alpha_pos, alpha_neg = torch.cat(scores, -1).softmax(-1).split(1, -1)
    alpha_pos, alpha_neg = alpha_pos + 0.5, alpha_neg - 0.5
    value_pos, value_neg = (F.gelu(h @ w_1.t()) @ w_2.t() for h in (h_pos, h_neg))
    return w0_x + alpha_pos * value_pos + alpha_neg * value_neg, alpha_neg


@dataclass(frozen=True, slots=True)
class NATConfig:
    """What to attach. Raises ValueError for a value out of range.

    r               rank of the positive pair; the negative pair keeps the rank it was trained with
    lora_alpha      s+ = lora_alpha / r
    dropout         on the input of A+ while training, in [0, 1); A- reads x as it is (released: masked too)
    target_modules  names of the projections, each the last part or parts of a module's name
    unit_dim        width u of query, key and value

    For ablations; the defaults are the paper's:
    shift           what the softmax weight of h- is lowered by, in [0, 1]: alpha- in [-shift, 1 - shift]
    train_neg       whether the negative pair is trained too, from where it is; an empty one stays empty
    mix             "unit"; or "sum", without a unit: out = W0 x + s+ B+ A+ x + s- B- A- x, which starts at h-
    """

    r: int = 8
    lora_alpha: float = 16
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    unit_dim: int = 128
    shift: float = 0.5
    train_neg: bool = False
    mix: str = "unit"

    def __post_init__(self) -> None:
        for name in ("r", "unit_dim"):
            check_whole(name, getattr(self, name), 1)
        check_number("lora_alpha", self.lora_alpha, above=0)
        check_number("dropout", self.dropout)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {self.dropout!r}")
        check_number("shift", self.shift, 0, 1)
        own_numbers(self, "r", "lora_alpha", "dropout", "unit_dim", "shift")
        check_flag("train_neg", self.train_neg)
        check_choice("mix", self.mix, MIXES)
        names = self.target_modules
        if isinstance(names, str) or not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError(f'target_modules must be names such as ("q_proj", "v_proj"); got {names!r}')
        object.__setattr__(self, "target_modules", tuple(names))


@dataclass(eq=False)
class NATState:
    """What all DualLinear of one model share.

    thawed  parameters that were trainable before the unit was attached
    view    what forward computes
    alpha   where the weights of h- are collected by layer name, if they are
    folds   where what `DualLinear.folded` returns is kept by layer name and dtype, if it is
    """

    config: NATConfig
    thawed: list[nn.Parameter]
    view: str = "nat"
    alpha: dict[str, list[Tensor]] | None = None
    folds: dict[tuple[str, torch.dtype], tuple[Tensor, ...]] | None = None


class Integrate(torch.autograd.Function):
    """out and alpha- from x and W0 x, and their gradients: eq-alpha and eq-nat of book/method.md.

    x      [..., d_in]
    y      W0 x [..., d_out]
    kept   uint8 like x, 1 where A+ sees x while training; None: everywhere
    scale  1 / share that is kept
    reads  [A+; A-; N], [2 (r+ + r-), d_in]
    mixes  [-s+ W_1 B+, s- W_1 B-], [u, r+ + r-]
    n_pos  r+
    w1, w2 [u, d_out], [d_out, u]
    shift  of NATConfig, the 1/2 in alpha-

    All but `kept` have one dtype. Returns out [..., d_out] and alpha- [..., 1], in [-shift, 1 - shift],
    float32 or wider, without gradient. Plain autograd would also keep z, gelu(z), their sum, a dropped x.
    """

    @staticmethod
    def forward(ctx, x, y, kept, scale, reads, mixes, n_pos, w1, w2, shift):
        flat, base = x.flatten(0, -2), y.flatten(0, -2)
        read = F.linear(flat, reads)
        low, scores = read.chunk(2, dim=1)
        if kept is not None:
            low[:, :n_pos] = F.linear(flat * kept.flatten(0, -2), reads[:n_pos]) * scale
        wide = torch.promote_types(x.dtype, torch.float32)
        alpha = (low * scores).sum(1, keepdim=True, dtype=wide).sigmoid() - shift
        shared = F.linear(base, w1)
        z_pos, z_neg = Integrate.branches(shared, low, mixes, n_pos)
        mixed = torch.lerp(F.gelu(z_pos), F.gelu(z_neg), alpha.to(x.dtype))
        out = torch.addmm(base, mixed, w2.t())
        ctx.scale, ctx.n_pos, ctx.shift = scale, n_pos, shift
        ctx.save_for_backward(x, y, kept, reads, mixes, w1, w2, read, alpha, shared)
        alpha = alpha.view(*x.shape[:-1], 1)
        ctx.mark_non_differentiable(alpha)
        return torch.ops.aten._unsafe_view(out, y.shape), alpha  # no view: blocks may add to it in place

    @staticmethod
    def branches(shared, low, mixes, n_pos):
        """z+ and z-, [tokens, u] each."""
        z_pos = torch.addmm(shared, low[:, :n_pos], mixes[:, :n_pos].t(), alpha=-1)
        return z_pos, torch.addmm(shared, low[:, n_pos:], mixes[:, n_pos:].t())

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out, _):
        x, y, kept, reads, mixes, w1, w2, read, alpha, shared = ctx.saved_tensors
        n_pos, scale = ctx.n_pos, ctx.scale
        flat, base, d_out = x.flatten(0, -2), y.flatten(0, -2), d_out.flatten(0, -2)
        low, scores = read.chunk(2, dim=1)
        z_pos, z_neg = Integrate.branches(shared, low, mixes, n_pos)
        g_pos, g_neg, weight = F.gelu(z_pos), F.gelu(z_neg), alpha.to(x.dtype)
        d_w2 = d_out.t() @ torch.lerp(g_pos, g_neg, weight)
        d_mixed = d_out @ w2
        d_alpha = (d_mixed * (g_neg - g_pos)).sum(1, keepdim=True, dtype=alpha.dtype)
        centred = alpha - (0.5 - ctx.shift)  # sigmoid(s) - 1/2
        d_score = (d_alpha * (0.25 - centred * centred)).to(x.dtype)  # derivative of sigmoid(s)
        d_g_neg = d_mixed * weight
        d_z_pos = torch.ops.aten.gelu_backward(d_mixed - d_g_neg, z_pos)
        d_z_neg = torch.ops.aten.gelu_backward(d_g_neg, z_neg)
        d_shared = d_z_pos + d_z_neg
        d_low = torch.cat([-(d_z_pos @ mixes[:, :n_pos]), d_z_neg @ mixes[:, n_pos:]], dim=1)
        d_mixes = torch.cat([-(d_z_pos.t() @ low[:, :n_pos]), d_z_neg.t() @ low[:, n_pos:]], dim=1)
        d_read = torch.cat([torch.addcmul(d_low, d_score, scores), d_score * low], dim=1)
        d_x, d_reads = Integrate.backward_reads(
            flat, kept, scale, n_pos, reads, d_read, ctx.needs_input_grad[0]
        )
        d_x = None if d_x is None else d_x.view(x.shape)
        d_y = torch.addmm(d_out, d_shared, w1).view(y.shape) if ctx.needs_input_grad[1] else None
        return d_x, d_y, None, None, d_reads, d_mixes, None, d_shared.t() @ base, d_w2, None

    @staticmethod
    def backward_reads(flat, kept, scale, n_pos, reads, d_read, needs_x):
        """Gradients of x, if wanted, and of `reads`; A+ saw the kept part of x only."""
        if kept is None:
            return (d_read @ reads if needs_x else None), d_read.t() @ flat
        kept, d_pos, d_rest = kept.flatten(0, -2), d_read[:, :n_pos] * scale, d_read[:, n_pos:]
        d_reads = torch.cat([d_pos.t() @ (flat * kept), d_rest.t() @ flat])
        return (
            torch.addmm(d_pos @ reads[:n_pos] * kept, d_rest, reads[n_pos:]) if needs_x else None
        ), d_reads


def keep_mask(shape: torch.Size, share: int, device: torch.device) -> Tensor:
    """uint8 [*shape], 1 with probability share / 65536, share in 1 ... 65535.

    Sixteen random bits a number: exact for that share, and a quarter of the time of `bernoulli_` on a CPU.
    """
    bits = torch.randint(-(2**63), 2**63 - 1, ((shape.numel() + 3) // 4,), device=device)
    return (bits.view(torch.int16)[: shape.numel()].view(shape) < share - 2**15).view(torch.uint8)


class DualLinear(nn.Module):
    """A frozen projection with a positive and a negative LoRA pair, and the unit that weighs them.

    Freshly made, all four views give W0 x exactly: A-, B-, B+ and W_2 are zero (the others start as nn.Linear
    does). The base is only called, so it may be quantised. What is added is float32, or float64 on a float64
    base; the nat view computes in the dtype of W0 x, which is the base's or autocast's.

    base_layer   nn.Linear, a quantised layer like it, or Conv1D of transformers: d_in -> d_out
    neg_r        rank of the negative pair, at least 1; neg_scaling: its s-
    name, state  the layer's full name in its model, and what all layers share, the NATConfig among it

    Equations: eq-branches, eq-alpha and eq-nat of book/method.md. `attach` makes these layers and checks what
    it is given. x of another width is a RuntimeError of torch.
    """

    def __init__(
        self, base_layer: nn.Module, neg_r: int, neg_scaling: float, name: str, state: NATState
    ) -> None:
        super().__init__()
        config, weight, (d_in, d_out) = state.config, base_layer.weight, widths(base_layer)
        self.name, self.state, self.dropout = name, state, config.dropout
        self.share = max(1, round((1 - config.dropout) * 2**16))  # of 65536, what dropout keeps
        self.scaling = {"pos": config.lora_alpha / config.r, "neg": neg_scaling}
        kind = {"bias": False, "dtype": torch.float64 if weight.dtype == torch.float64 else torch.float32}
        zeros = partial(nn.utils.skip_init, nn.Linear, **kind)
        self.lora_A = nn.ModuleDict({"pos": nn.Linear(d_in, config.r, **kind), "neg": zeros(d_in, neg_r)})
        self.lora_B = nn.ModuleDict({"pos": zeros(config.r, d_out), "neg": zeros(neg_r, d_out)})
        self.query = nn.Linear(d_in, config.unit_dim, **kind)
        self.key = nn.Linear(d_out, config.unit_dim, **kind)
        self.value_in = nn.Linear(d_out, config.unit_dim, **kind)
        self.value_out = zeros(config.unit_dim, d_out)
        for linear in (self.lora_A["neg"], *self.lora_B.values(), self.value_out):
            nn.init.zeros_(linear.weight)
        self.to(weight.device).train(base_layer.training)
        self.base_layer = base_layer  # last: it stays where and as it is

    def forward(self, x: Tensor) -> Tensor:
        """x [..., d_in] -> [..., d_out] in the view that the model is in."""
        y = self.base_layer(x)
        if self.state.view == "base":
            return y
        if self.state.view != "nat":
            return self.add(self.state.view, x, y)
        if self.state.config.mix == "sum":
            return self.add("neg", x, self.add("pos", x, y))
        return self.integrate(x, y)

    def add(self, branch: str, x: Tensor, y: Tensor) -> Tensor:
        """h+ or h- from x and W0 x, computed as PEFT does: eq-branches of book/method.md."""
        a, b = self.lora_A[branch], self.lora_B[branch]
        x = F.dropout(x.to(a.weight.dtype), self.dropout, self.training and branch == "pos")
        return (y + b(a(x)) * self.scaling[branch]).to(y.dtype)

    def fold(self) -> tuple[Tensor, Tensor]:
        """`reads` and `mixes` of Integrate."""
        signed = (
            self.lora_B[branch].weight * sign * self.scaling[branch]
            for branch, sign in (("pos", -1), ("neg", 1))
        )
        b = torch.cat(list(signed), dim=1)
        n = (self.key.weight @ b).t() @ self.query.weight
        return torch.cat([self.lora_A["pos"].weight, self.lora_A["neg"].weight, n]), self.value_in.weight @ b

    def folded(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """`reads`, `mixes`, `w1` and `w2` of Integrate; within `nat.frozen` they are made once."""
        folds, key = self.state.folds, (self.name, dtype)
        if folds is not None and key in folds:
            return folds[key]
        matrices = (*self.fold(), self.value_in.weight, self.value_out.weight)
        made = tuple(matrix.to(dtype) for matrix in matrices)  # folded in full precision, cast once
        if folds is not None:
            folds[key] = made
        return made

    def integrate(self, x: Tensor, y: Tensor) -> Tensor:
        """The nat view, eq-nat: W0 x plus what the unit reads off both branches."""
        drops = self.training and self.share < 2**16
        kept = keep_mask(x.shape, self.share, x.device) if drops else None
        with torch.autocast(x.device.type, enabled=False):
            reads, mixes, w1, w2 = self.folded(y.dtype)
            n_pos = len(self.lora_A["pos"].weight)
            weights = (reads, mixes, n_pos, w1, w2, self.state.config.shift)
            out, alpha = Integrate.apply(x.to(y.dtype), y, kept, 2**16 / self.share, *weights)
        if self.state.alpha is not None:
            self.state.alpha.setdefault(self.name, []).append(alpha)
        return out
