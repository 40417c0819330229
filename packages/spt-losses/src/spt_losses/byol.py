"""BYOL: predict the target network's projection of the other view.

Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, eq. 2.
https://arxiv.org/abs/2006.07733
"""

from __future__ import annotations

from torch import Tensor, nn

from spt_losses._checks import check_paired
from spt_losses._distributed import mean_of_rows
from spt_losses._numerics import cosine, no_autocast, widen


def byol_loss(online_pred: Tensor, target_proj: Tensor) -> Tensor:
    """Mean squared distance of unit vectors, ``2 - 2 cos``, for one direction.

    The paper's objective is the sum of this over both directions. Nothing is detached here: pass
    the target's projection without gradient.

    Args:
        online_pred: Predictions of the online network, shape ``(N, D)``.
        target_proj: Projections of the target network for the other view, shape ``(N, D)``.

    Returns:
        Scalar between 0 and 4. Averaged over ranks, it is the mean over the rows of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If the shapes differ or are not ``(N, D)``.

    Ranks:
        mean over the rows of all ranks; batches may differ in size

    Example:
        >>> import torch
        >>> z = torch.eye(2)
        >>> byol_loss(z, -z).item()  # opposite vectors
        4.0
    """
    check_paired(online_pred, target_proj, names=("online_pred", "target_proj"))
    with no_autocast(online_pred):
        return 2 - 2 * mean_of_rows(cosine(widen(online_pred), widen(target_proj)))


class BYOLLoss(nn.Module):
    """One direction of the BYOL objective; see :func:`byol_loss`."""

    def forward(self, online_pred: Tensor, target_proj: Tensor) -> Tensor:
        """Loss of predictions ``(N, D)`` against target projections ``(N, D)``."""
        return byol_loss(online_pred, target_proj)
