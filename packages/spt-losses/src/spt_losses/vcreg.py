"""VCReg: keep every dimension spread out and uncorrelated.

Bardes et al., "VICReg", ICLR 2022, eq. 1 to 4. https://arxiv.org/abs/2105.04906
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from spt_losses._checks import check_not_negative, check_rows, check_several_rows
from spt_losses._distributed import num_rows, world_size
from spt_losses._moments import centered
from spt_losses._numerics import no_autocast, refuse_second_derivative, widen


def vcreg_loss(
    z: Tensor, *, std_coeff: float = 25.0, cov_coeff: float = 1.0, epsilon: float = 1e-4
) -> Tensor:
    """Hinge on each dimension's deviation, and squared covariances.

    Note:
        The variance term carries the official code's factor 1/2, which the paper does not print.

    Args:
        z: Projections, shape ``(N, D)``.
        std_coeff: Weight of ``mean_d max(0, 1 - sqrt(var_d + epsilon)) / 2``, unbiased variance.
        cov_coeff: Weight of ``sum_{d != e} cov_de^2 / D``.
        epsilon: Added to the variance, under the root.

    Returns:
        Scalar over the batches of all ranks.

    Raises:
        TypeError: If ``z`` is not of a floating-point dtype.
        ValueError: If ``z`` is not 2-D, there is only one sample, or a weight is negative.

    Ranks:
        mean, variance and covariance over all ranks; batches may differ in size

    Example:
        >>> import torch
        >>> z = torch.zeros(4, 2)  # collapsed: only the hinge, (1 - sqrt(1e-4)) / 2, times 25
        >>> round(vcreg_loss(z).item(), 3)
        12.375
    """
    check_rows("z", z)
    check_not_negative(std_coeff=std_coeff, cov_coeff=cov_coeff, epsilon=epsilon)
    with no_autocast(z):
        z = widen(z)
        rows = num_rows(z)
        check_several_rows("VCReg", rows)
        return spread(z, rows, std_coeff, cov_coeff, epsilon)


def spread(z: Tensor, rows: int, std_coeff: float, cov_coeff: float, epsilon: float) -> Tensor:
    """:func:`vcreg_loss`, with the number of rows over all ranks given."""
    value: Tensor = _Spread.apply(z, rows, std_coeff, cov_coeff, epsilon)
    return value


class _Spread(torch.autograd.Function):
    """Hinge and covariances with the gradient formed in forward, which holds it and nothing else."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, rows: int, std_coeff: float, cov_coeff: float, epsilon: float
    ) -> Tensor:
        x = centered(z, rows)  # its gradient has mean 0 by itself
        products = x.mT @ x  # (D, D)
        if world_size() > 1:
            dist.all_reduce(products)
        products.div_(rows - 1)
        deviation = (products.diagonal() + epsilon).sqrt()
        products.fill_diagonal_(0.0)
        width = z.shape[1]
        value = std_coeff * F.relu(1 - deviation).mean() / 2
        value += cov_coeff / width * torch.linalg.vector_norm(products).square()
        # of the variances, and of the covariances, each of which stands in the matrix twice
        slope = torch.where(deviation < 1, -std_coeff / (4 * width * deviation), 0.0)
        products.mul_(2 * cov_coeff / width).diagonal().copy_(slope)
        ctx.save_for_backward((x @ products).mul_(2 / (rows - 1)))
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        (slope,) = ctx.saved_tensors
        if world_size() > 1:
            grad = grad.clone()
            dist.all_reduce(grad)
        return grad * slope, None, None, None, None


class VCRegLoss(nn.Module):
    """Variance and covariance terms of VICReg; see :func:`vcreg_loss`.

    Args:
        std_coeff: Weight of the variance term, at least 0.
        cov_coeff: Weight of the covariance term, at least 0.
        epsilon: Added to the variance, under the root.
    """

    def __init__(
        self, std_coeff: float = 25.0, cov_coeff: float = 1.0, epsilon: float = 1e-4
    ) -> None:
        super().__init__()
        check_not_negative(std_coeff=std_coeff, cov_coeff=cov_coeff, epsilon=epsilon)
        self.std_coeff = std_coeff
        self.cov_coeff = cov_coeff
        self.epsilon = epsilon

    def forward(self, z: Tensor) -> Tensor:
        """Loss of projections ``(N, D)``."""
        return vcreg_loss(
            z, std_coeff=self.std_coeff, cov_coeff=self.cov_coeff, epsilon=self.epsilon
        )

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"std_coeff={self.std_coeff}, cov_coeff={self.cov_coeff}"
