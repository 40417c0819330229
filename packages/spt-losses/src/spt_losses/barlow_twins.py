"""Barlow Twins: redundancy reduction between two views.

Zbontar et al., ICML 2021, eq. 1. https://arxiv.org/abs/2103.03230
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from spt_losses._checks import check_not_negative, check_paired, check_several_rows
from spt_losses._distributed import num_rows, sum_over_ranks, world_size
from spt_losses._numerics import no_autocast, refuse_second_derivative, widen


def barlow_twins_loss(z_i: Tensor, z_j: Tensor, *, lambd: float = 5e-3) -> Tensor:
    """Pull the cross-correlation matrix of two views towards the identity.

    Note:
        Views are standardised as by the official code's affine-free BatchNorm: biased variance,
        1e-5 under the root, statistics of all ranks. The paper's pseudo-code divides by the
        unbiased deviation, which keeps the diagonal below 1 and the loss above 0.

    Args:
        z_i: Projections of the first view, shape ``(N, D)``.
        z_j: Projections of the second view, shape ``(N, D)``; row ``n`` is the
            other view of ``z_i[n]``.
        lambd: Weight of the off-diagonal term, at least 0; lambda in eq. 1.

    Returns:
        Scalar over the batches of all ranks. Zero when every dimension agrees
        across views and is uncorrelated with the others.

    Raises:
        TypeError: If a view is not of a floating-point dtype.
        ValueError: If the shapes differ, are not 2-D, or there is only one sample.

    Ranks:
        statistics and correlation over all ranks; batches may differ in size

    Example:
        >>> import torch
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> round(barlow_twins_loss(z, -z).item(), 2)  # both diagonal entries are -1
        8.0
    """
    check_paired(z_i, z_j)
    check_not_negative(lambd=lambd)
    with no_autocast(z_i):
        rows = num_rows(z_i)
        check_several_rows("Barlow Twins", rows)
        value: Tensor = _BarlowTwins.apply(widen(z_i), widen(z_j), rows, lambd)
        return value


class _BarlowTwins(torch.autograd.Function):
    """The loss from raw projections; standardised views are made anew where they are needed.

    Means over the batch that the gradient of a standardisation subtracts follow from the
    correlations: that of the gradient is 0, that of its product with the view a sum over a row.
    """

    @staticmethod
    def forward(ctx: Any, z_i: Tensor, z_j: Tensor, rows: int, lambd: float) -> Tensor:
        of_i, of_j = _statistics(z_i, rows), _statistics(z_j, rows)
        c = _standardized(z_i, *of_i).mT @ _standardized(z_j, *of_j)  # (D, D)
        if world_size() > 1:
            dist.all_reduce(c)
        c.div_(rows)
        diagonal = c.diagonal().clone()
        c.fill_diagonal_(0.0)
        squares_i, squares_j = (torch.linalg.vector_norm(c, dim=d).square() for d in (1, 0))
        value = (diagonal - 1).square().sum() + lambd * squares_i.sum()
        own = 2 / rows * (diagonal - 1)  # the slope of the diagonal entries
        slope = c.mul_(2 * lambd / rows)
        slope.diagonal().copy_(own)
        means = (2 * lambd / rows * s + own * diagonal for s in (squares_i, squares_j))
        ctx.save_for_backward(z_i, z_j, slope, *of_i, *of_j, *means)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        z_i, z_j, slope, mean_i, inverse_i, mean_j, inverse_j, along_i, along_j = ctx.saved_tensors
        if world_size() > 1:
            grad = grad.clone()
            dist.all_reduce(grad)
        with no_autocast(z_i):
            grad_i = _standardized(z_j, mean_j, inverse_j) @ slope.mT
            y_i = _standardized(z_i, mean_i, inverse_i)
            grad_i.addcmul_(y_i, along_i, value=-1).mul_(inverse_i * grad)
            grad_j = y_i @ slope
            del y_i  # one view at a time
            y_j = _standardized(z_j, mean_j, inverse_j)
            grad_j.addcmul_(y_j, along_j, value=-1).mul_(inverse_j * grad)
            return grad_i, grad_j, None, None


def _statistics(z: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Mean, and one over the deviation, over all ranks."""
    mean = sum_over_ranks(z.sum(0)) / rows
    squares = sum_over_ranks(torch.linalg.vector_norm(z - mean, dim=0).square())
    # biased variance and eps under the root, as the official BatchNorm
    return mean, (squares / rows + 1e-5).rsqrt()


def _standardized(z: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    return (z - mean).mul_(inverse)


class BarlowTwinsLoss(nn.Module):
    """Barlow Twins; see :func:`barlow_twins_loss`.

    Args:
        lambd: Weight of the off-diagonal term, at least 0. The official code uses 0.0051.
    """

    def __init__(self, lambd: float = 5e-3) -> None:
        super().__init__()
        check_not_negative(lambd=lambd)
        self.lambd = lambd

    def forward(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Loss of two views ``(N, D)`` whose rows are paired."""
        return barlow_twins_loss(z_i, z_j, lambd=self.lambd)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"lambd={self.lambd}"
