"""VCReg: keep every dimension spread out and uncorrelated.

Bardes et al., "VICReg", ICLR 2022, eq. 1 to 4. https://arxiv.org/abs/2105.04906
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from spt_losses._checks import check_not_negative, check_rows, check_several_rows
from spt_losses._distributed import num_rows
from spt_losses._moments import centered, decorrelation, variance
from spt_losses._numerics import no_autocast, widen


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
        z = centered(z, rows)
        deviation = (variance(z, rows - 1) + epsilon).sqrt()
        spread = F.relu(1 - deviation).mean() / 2
        weight = cov_coeff / z.shape[1]
        covariance = decorrelation(z, None, rows - 1, diagonal=0.0, off_diagonal=weight)
        return std_coeff * spread + covariance


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
