"""Second moments of features over all ranks, each D x D matrix built once."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from spt_losses._distributed import sum_over_ranks, world_size
from spt_losses._numerics import no_autocast, refuse_second_derivative


def centered(z: Tensor, rows: int) -> Tensor:
    """``z`` minus its mean over the rows of all ranks; ``rows`` counts them."""
    return z - sum_over_ranks(z.sum(0)) / rows


def variance(z: Tensor, divisor: int) -> Tensor:
    """Sum of squares over the rows of all ranks over ``divisor``, for centred ``z``."""
    return sum_over_ranks(z.square().sum(0)) / divisor


class _Decorrelation(torch.autograd.Function):
    """Squared distance of a moment matrix from a diagonal one; its gradient takes its place."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor | None, divisor: int, diagonal: float, off_diagonal: float
    ) -> Tensor:
        moments = a.mT @ (a if b is None else b)  # (..., D, D)
        if world_size() > 1:
            dist.all_reduce(moments)
        moments.div_(divisor)
        diagonals = moments.diagonal(dim1=-2, dim2=-1)
        error = diagonals - 1
        diagonals.zero_()
        value = off_diagonal * torch.linalg.vector_norm(moments).square()
        moments.mul_(2 * off_diagonal / divisor)
        diagonals.copy_(error * (2 * diagonal / divisor))
        ctx.save_for_backward(a, moments, *([] if b is None else [b]))
        return value + diagonal * error.square().sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        a, slope, *other = ctx.saved_tensors
        if world_size() > 1:
            grad = grad.clone()
            dist.all_reduce(grad)
        with no_autocast(a):
            if not other:  # slope is symmetric
                return 2 * grad * (a @ slope), None, None, None, None
            return grad * (other[0] @ slope.mT), grad * (a @ slope), None, None, None


def decorrelation(
    a: Tensor, b: Tensor | None, divisor: int, *, diagonal: float, off_diagonal: float
) -> Tensor:
    """Penalty on ``C = a^T b / divisor``, summed over the rows of all ranks.

    Args:
        a: Features of one side, shape ``(..., N, D)``; leading dimensions are problems of their
            own, whose penalties are added.
        b: Features of the other, of the same shape; ``None`` stands for ``a``.
        divisor: What the sum over rows is divided by.
        diagonal: Weight of ``sum_d (C_dd - 1)^2``.
        off_diagonal: Weight of ``sum_{d != e} C_de^2``.

    Returns:
        Scalar, the same on every rank.
    """
    value: Tensor = _Decorrelation.apply(a, b, divisor, diagonal, off_diagonal)
    return value
