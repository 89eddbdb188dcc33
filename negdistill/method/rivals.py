"""Rivals: what else is done with wrong answers, as pure functions of what a model says of whole rationales.

    l = sum over tokens of log p(y_t | x, y_<t)     L = l / tokens     d = l - l of a frozen reference
    + right, - wrong, s = sigmoid, sg = without gradient

    preference   - log s(beta (d+ - d-)) + nll (-L+)                                   DPO, of a pair
    prospect     + : w (1 - s(beta (d - z0)))       - : w (1 - s(beta (z0 - d)))       KTO, w from `balance`
    weighted     + : -wr L                          - : ww L                           REDI
                 (.1, 1) and (0, 1) are W-REINFORCE and NSR on what a teacher wrote
    tapered      + : -l                             - : sg[min(1, exp d)] l            TOPR
    gain_weight  sg[clamp(alpha (1 - s(beta (L - earlier L))), low, high)]             GLOW, times -L
    unlikelihood of a rationale                     - : -log(1 - exp l)

The reference is the student as it was before this training; of TOPR it stands in for the teacher, whose
probabilities are not known. Sources: Rafailov et al. 2023, Pang et al. 2024 (the likelihood beside DPO),
Ethayarajh et al. 2024, Xu et al. 2025 (REDI), Zhu et al. 2025 (NSR, W-REINFORCE), Le Roux et al. 2025 (TOPR),
GLOW (arXiv 2601.04992). B rationales, P pairs, N target tokens of a batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from negdistill.method.losses import log_one_minus

LARGEST = 4 / 3  # of KTO's right rationales to its wrong ones, weighed; 1 is the smallest


def sequence_log_probs(log_probs: Tensor, row: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """l and tokens of each rationale, (rows,) each; 0 and 0 for one without targets.

    log_probs (N,) of the targets, at most 0; row (N,) long, the rationale that each belongs to.
    """
    zeros = log_probs.new_zeros(rows)
    return zeros.index_add(0, row, log_probs), zeros.index_add(0, row, torch.ones_like(log_probs))


def pair_places(positive: Tensor, question: Tensor) -> tuple[Tensor, Tensor]:
    """Where the right and where the wrong rationale of each question stands, long (P,) each.

    positive (B,) bool, question (B,) long. ValueError unless each question has one of either.
    """
    right, wrong = (
        torch.argsort(question.masked_fill(hide, -1))[hide.sum() :] for hide in (~positive, positive)
    )
    if not torch.equal(question[right], question[wrong]):
        raise ValueError(
            "a batch must hold one right and one wrong row of each question: order them with `pairs`, "
            'shared two by two (together=2); or take a loss of single rows, as "mse" or "bce"'
        )
    return right, wrong


def preference(right: Tensor, wrong: Tensor, beta: float = 0.1) -> Tensor:
    """DPO of each pair, (P,), at least 0 and log 2 at the start: d of its right and its wrong rationale (P,).

    beta  above 0: how far the student may leave the reference for the same loss, the less the larger
    """
    return -F.logsigmoid(beta * (right - wrong))


def prospect(
    gain: Tensor,
    positive: Tensor,
    z0: Tensor | float = 0.0,
    beta: float = 0.1,
    weight: Tensor | float = 1.0,
) -> Tensor:
    """KTO of each rationale, (B,), between 0 and its weight: d as `gain` (B,), positive (B,) bool.

    z0      () the point of reference, from `reference_point`; 0: apo_zero_unpaired
    weight  of each, (B,), at least 0: lambda of right and of wrong ones, from `balance`; or one for all
    """
    signed = torch.where(positive, gain - z0, z0 - gain)
    return weight * torch.sigmoid(-beta * signed)


def balance(positive: Tensor) -> Tensor:
    """KTO's weight of each rationale of a training set, (n,): lambda_D of right ones, lambda_U of wrong ones.

    positive (n,) bool. Ethayarajh et al. want lambda_D n_D / (lambda_U n_U) in [1, 4/3]. The side that is too
    light for it is raised to the nearer end and the other one keeps 1, as trl advises. Both keep 1 where the
    counts are in that range, and where one side is empty.
    """
    right = int(positive.sum())
    wrong = len(positive) - right
    if not (right and wrong):
        return torch.ones(len(positive))
    return torch.where(positive, max(1.0, wrong / right), max(1.0, right / wrong / LARGEST))


def reference_point(mismatched: Tensor) -> Tensor:
    """z0 of KTO: max(0, mean) of d over rationales of other questions (M,), without gradient: (); 0 for none.

    Where M is 0 the mean would be 0 / 0, and every loss with it.
    """
    return (mismatched.detach().sum() / max(1, len(mismatched))).clamp(min=0)


def weighted(mean_log_prob: Tensor, positive: Tensor, right: float = 1.0, wrong: float = 1.0) -> Tensor:
    """REDI of each rationale, (B,): L raised for right ones with weight `right`, lowered for wrong ones.

    The mean over rationales is half of the paper's over pairs: Adam does not see the factor, clipping does.
    mean_log_prob L (B,), at most 0; positive (B,) bool. Not bounded below where `wrong` is above 0.
    """
    return torch.where(positive, -right, wrong).to(mean_log_prob.dtype) * mean_log_prob


def tapered(log_prob: Tensor, reference: Tensor, positive: Tensor) -> Tensor:
    """TOPR of each rationale, (B,): l (B,), l of the reference (B,), positive (B,) bool.

    A wrong rationale that has become less likely than it was weighs less, so it is not pushed for ever.
    """
    taper = (log_prob.detach() - reference).exp().clamp(max=1)
    return torch.where(positive, -torch.ones_like(taper), taper) * log_prob


def gain_weight(
    earlier: Tensor,
    present: Tensor,
    alpha: float = 1.0,
    beta: float = 20.0,
    low: float = 0.5,
    high: float = 5.0,
) -> Tensor:
    """GLOW's weight of each rationale, (B,) in [low, high], without gradient, from its losses -L (B,) each.

    earlier  of the epoch before; NaN, where there is none, gives 1. What still gets better weighs less.
    """
    progress = torch.sigmoid(beta * (earlier - present.detach()))
    weight = (alpha * (1 - progress)).clamp(low, high)
    return torch.where(earlier.isnan(), torch.ones_like(weight), weight)


def rationale_unlikelihood(log_prob: Tensor) -> Tensor:
    """-log(1 - P) of whole rationales, from l (B,) at most 0: (B,), at least 0.

    P is a product over tokens: of a rationale of some length both the loss and its gradient are next to 0.
    """
    return -log_one_minus(log_prob)
