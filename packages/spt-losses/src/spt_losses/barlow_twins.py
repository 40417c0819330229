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
from spt_losses._row_blocks import row_blocks


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
    """The loss from raw projections; centred views are made anew, block by block, where needed.

    Deviations scale the D x D matrices and not the views. Means over the batch that the gradient of
    a standardisation subtracts follow from the correlations: that of the gradient is 0, that of its
    product with the view a sum over a row.
    """

    @staticmethod
    def forward(ctx: Any, z_i: Tensor, z_j: Tensor, rows: int, lambd: float) -> Tensor:
        mean_i, mean_j = (sum_over_ranks(z.sum(0)) / rows for z in (z_i, z_j))
        c, inverse_i, inverse_j = _moments(z_i, z_j, mean_i, mean_j, rows)
        diagonal = c.diagonal().clone()
        c.fill_diagonal_(0.0)
        squares_i, squares_j = _sums_of_squares(c)
        value = (diagonal - 1).square().sum() + lambd * squares_i.sum()
        own = 2 / rows * (diagonal - 1)  # the slope of the diagonal entries
        along_i, along_j = (
            inverse.square() * (2 * lambd / rows * squares + own * diagonal)
            for inverse, squares in ((inverse_i, squares_i), (inverse_j, squares_j))
        )
        slope = c.mul_(2 * lambd / rows)
        slope.diagonal().copy_(own)
        slope.mul_(inverse_i[:, None]).mul_(inverse_j)
        ctx.save_for_backward(z_i, z_j, slope, mean_i, mean_j, along_i, along_j)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        z_i, z_j, slope, mean_i, mean_j, along_i, along_j = ctx.saved_tensors
        if world_size() > 1:
            grad = grad.clone()
            dist.all_reduce(grad)
        with no_autocast(z_i):
            grad_i, grad_j = torch.empty_like(z_i), torch.empty_like(z_j)
            rows = zip(*map(_blocks, (z_i, z_j, grad_i, grad_j)), strict=True)
            for a, b, of_i, of_j in rows:
                torch.addcmul(-mean_i * grad, a, grad, out=of_i)  # centred view times gradient
                x_j = torch.addcmul(-mean_j * grad, b, grad)
                torch.mul(x_j, -along_j, out=of_j).addmm_(of_i, slope)
                of_i.mul_(-along_i).addmm_(x_j, slope.mT)
                del x_j  # before the next one is made
            return grad_i, grad_j, None, None


def _moments(
    z_i: Tensor, z_j: Tensor, mean_i: Tensor, mean_j: Tensor, rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Correlation matrix over all ranks, and one over the deviation in each view."""
    c = z_i.new_zeros(z_i.shape[1], z_i.shape[1])
    squares = z_i.new_zeros(2, z_i.shape[1])
    for a, b in zip(_blocks(z_i), _blocks(z_j), strict=True):
        x_i, x_j = a - mean_i, b - mean_j
        c.addmm_(x_i.mT, x_j)
        squares += torch.stack([torch.linalg.vecdot(x, x, dim=0) for x in (x_i, x_j)])
    if world_size() > 1:
        dist.all_reduce(c)
    # biased variance and eps under the root, as the official BatchNorm
    inverse_i, inverse_j = (sum_over_ranks(squares) / rows + 1e-5).rsqrt()
    return c.mul_(inverse_i[:, None] / rows).mul_(inverse_j), inverse_i, inverse_j


def _blocks(z: Tensor) -> tuple[Tensor, ...]:
    """Blocks with no fewer rows than columns, so that the D x D matrix is passed over less often."""
    return row_blocks(z, elements=max(2**18, z.shape[1] ** 2))


def _sums_of_squares(c: Tensor) -> tuple[Tensor, Tensor]:
    """Over the entries of each row, and of each column; no second matrix is built."""
    of_rows, of_columns = [], torch.zeros_like(c[0])
    for block in row_blocks(c, elements=max(2**15, c.numel() // 8)):
        squares = block.square()
        of_rows.append(squares.sum(1))
        of_columns += squares.sum(0)
    return torch.cat(of_rows), of_columns


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
