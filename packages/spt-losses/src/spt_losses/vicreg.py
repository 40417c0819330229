"""VICReg: invariance between views, variance and covariance within each.

Bardes et al., ICLR 2022, eq. 6. https://arxiv.org/abs/2105.04906
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from spt_losses._checks import check_not_negative, check_paired, check_several_rows
from spt_losses._distributed import num_rows, world_size
from spt_losses._numerics import no_autocast, widen
from spt_losses.vcreg import spread


def vicreg_loss(
    z_i: Tensor,
    z_j: Tensor,
    *,
    sim_coeff: float = 25.0,
    std_coeff: float = 25.0,
    cov_coeff: float = 1.0,
    epsilon: float = 1e-4,
) -> Tensor:
    """Squared distance of the views plus VCReg of each.

    Note:
        As in the official code, the invariance is the mean over all entries and each variance
        term is halved; the paper prints a sum over dimensions and no 1/2.

    Args:
        z_i: Projections of the first view, shape ``(N, D)``.
        z_j: Projections of the second view, shape ``(N, D)``; row ``n`` is the
            other view of ``z_i[n]``.
        sim_coeff: Weight of the invariance term.
        std_coeff: Weight of the variance terms.
        cov_coeff: Weight of the covariance terms.
        epsilon: Added to variances, under the root.

    Returns:
        Scalar; averaged over ranks, it is the loss of the batches of all ranks.

    Raises:
        TypeError: If a view is not of a floating-point dtype.
        ValueError: If the shapes differ, are not 2-D, there is only one sample, or a weight is
            negative.

    Ranks:
        mean, variance and covariance over all ranks; batches may differ in size

    Example:
        >>> import torch
        >>> z = torch.tensor([[2.0, 2.0], [2.0, -2.0], [-2.0, 2.0], [-2.0, -2.0]])
        >>> vicreg_loss(z, z).item()  # equal views, spread out, uncorrelated
        0.0
    """
    check_paired(z_i, z_j)
    check_not_negative(
        sim_coeff=sim_coeff, std_coeff=std_coeff, cov_coeff=cov_coeff, epsilon=epsilon
    )
    rows = num_rows(z_i)
    check_several_rows("VICReg", rows)
    with no_autocast(z_i):
        a, b = widen(z_i), widen(z_j)
        invariance = F.mse_loss(a, b, reduction="sum") * world_size() / (rows * a.shape[1])
        loss = sim_coeff * invariance
        for z in (a, b):
            loss = loss + spread(z, rows, std_coeff, cov_coeff, epsilon)
        return loss


class VICRegLoss(nn.Module):
    """VICReg; see :func:`vicreg_loss`.

    Args:
        sim_coeff: Weight of the invariance term, at least 0.
        std_coeff: Weight of the variance terms, at least 0.
        cov_coeff: Weight of the covariance terms, at least 0.
        epsilon: Added to variances, under the root.
    """

    def __init__(
        self,
        sim_coeff: float = 25.0,
        std_coeff: float = 25.0,
        cov_coeff: float = 1.0,
        epsilon: float = 1e-4,
    ) -> None:
        super().__init__()
        check_not_negative(
            sim_coeff=sim_coeff, std_coeff=std_coeff, cov_coeff=cov_coeff, epsilon=epsilon
        )
        self.sim_coeff = sim_coeff
        self.std_coeff = std_coeff
        self.cov_coeff = cov_coeff
        self.epsilon = epsilon

    def forward(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Loss of two views ``(N, D)`` whose rows are paired."""
        return vicreg_loss(
            z_i,
            z_j,
            sim_coeff=self.sim_coeff,
            std_coeff=self.std_coeff,
            cov_coeff=self.cov_coeff,
            epsilon=self.epsilon,
        )

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"sim_coeff={self.sim_coeff}, std_coeff={self.std_coeff}, cov_coeff={self.cov_coeff}"
