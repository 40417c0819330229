"""Barlow Twins: redundancy reduction between two views.

Zbontar et al., ICML 2021, eq. 1. https://arxiv.org/abs/2103.03230
"""

from __future__ import annotations

from torch import Tensor, nn

from spt_losses._checks import check_not_negative, check_paired, check_several_rows
from spt_losses._distributed import num_rows
from spt_losses._moments import centered, decorrelation, variance
from spt_losses._numerics import no_autocast, widen


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
        a, b = _standardized(widen(z_i), rows), _standardized(widen(z_j), rows)
        return decorrelation(a, b, rows, diagonal=1.0, off_diagonal=lambd)


def _standardized(z: Tensor, rows: int) -> Tensor:
    z = centered(z, rows)
    return z * (variance(z, rows) + 1e-5).rsqrt()  # biased variance, as the official BatchNorm


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
