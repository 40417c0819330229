"""Sinkhorn-Knopp: soft assignments that use all prototypes equally.

Cuturi, "Sinkhorn Distances", NeurIPS 2013; as in SwAV, Caron et al., NeurIPS 2020, section 3.1.
https://arxiv.org/abs/2006.09882
"""

from __future__ import annotations

import torch
from torch import Tensor

from spt_losses._checks import check_count, check_dims, check_positive
from spt_losses._distributed import max_over_ranks, sum_over_ranks
from spt_losses._numerics import no_autocast, widen
from spt_losses._row_blocks import row_blocks


@torch.no_grad()
def sinkhorn_knopp(
    teacher_output: Tensor,
    teacher_temp: float,
    num_samples: int | Tensor | None = None,
    n_iterations: int = 3,
) -> Tensor:
    """Normalise ``exp(x / T)`` over prototypes and samples in turn, samples last.

    No temperature overflows, and the device is never waited for.

    Args:
        teacher_output: Scores, shape ``(N, K)``; a rank may hold none.
        teacher_temp: T, above 0; epsilon in SwAV.
        num_samples: Number of samples over all ranks. It cancels and is accepted for the sake of
            callers of the official codes.
        n_iterations: Rounds, at least 1.

    Returns:
        Shape ``(N, K)``, rows of sum 1, without gradient, in float32 or wider.

    Raises:
        TypeError: If the scores are not of a floating-point dtype.
        ValueError: If they are not of shape ``(N, K)`` or a setting is out of range.

    Ranks:
        one problem over the samples of all ranks, which may differ in number

    Example:
        >>> sinkhorn_knopp(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), 0.1)
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """
    if teacher_output.ndim != 2 or len(teacher_output):
        check_dims("teacher_output", teacher_output, "NK")
    check_positive("teacher_temp", teacher_temp)
    check_count("n_iterations", n_iterations)
    with no_autocast(teacher_output):
        return balanced(widen(teacher_output) / teacher_temp, n_iterations)


@torch.no_grad()
def balanced(log_scores: Tensor, n_iterations: int) -> Tensor:
    """Sinkhorn's normalisation of ``exp(log_scores)`` ``(N, K)``, which it overwrites; rows of sum 1.

    The first round takes logarithms, since the scores may span any range. After it a prototype's
    largest entry is at least 1 / (N K), in every round, so that the others need none.
    """
    if not n_iterations:
        return log_scores.exp_()
    mass = _log_mass_of_prototypes(log_scores)
    for part in row_blocks(log_scores):
        part.copy_((part - mass).softmax(dim=1))
    for _ in range(n_iterations - 1):
        mass = sum_over_ranks(log_scores.sum(0, keepdim=True))
        for part in row_blocks(log_scores):
            part.div_(mass)
            part.div_(part.sum(1, keepdim=True))
    return log_scores


def _log_mass_of_prototypes(log_scores: Tensor) -> Tensor:
    """Log-sum-exp over the samples of all ranks, shape ``(1, K)``."""
    if len(log_scores):
        largest = log_scores.amax(0, keepdim=True)
    else:
        largest = log_scores.new_full((1, log_scores.shape[1]), -torch.inf)
    largest = max_over_ranks(largest)
    total = torch.zeros_like(largest)
    for part in row_blocks(log_scores):
        total += (part - largest).exp_().sum(0, keepdim=True)
    return largest + sum_over_ranks(total).log()
