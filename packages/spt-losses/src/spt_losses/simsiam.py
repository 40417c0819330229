"""SimSiam: each view's prediction towards the other view's projection, without gradient.

Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021, eq. 4.
https://arxiv.org/abs/2011.10566
"""

from __future__ import annotations

from torch import Tensor, nn

from spt_losses.negative_cosine import negative_cosine_similarity


def simsiam_loss(p_i: Tensor, p_j: Tensor, z_i: Tensor, z_j: Tensor) -> Tensor:
    """Half the sum of both directions of negative cosine; projections are detached here.

    Args:
        p_i: Predictions of the first view, shape ``(N, D)``.
        p_j: Predictions of the second view, shape ``(N, D)``.
        z_i: Projections of the first view, shape ``(N, D)``.
        z_j: Projections of the second view, shape ``(N, D)``.

    Returns:
        Scalar between -1 and 1. Averaged over ranks, it is the mean over the rows of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If the shapes differ or are not ``(N, D)``.

    Ranks:
        mean over the rows of all ranks; batches may differ in size

    Example:
        >>> import torch
        >>> z = torch.eye(2)
        >>> simsiam_loss(z, z, z, z).item()
        -1.0
    """
    forth = negative_cosine_similarity(p_i, z_j.detach())
    back = negative_cosine_similarity(p_j, z_i.detach())
    return (forth + back) / 2


class SimSiamLoss(nn.Module):
    """Symmetric SimSiam objective; see :func:`simsiam_loss`."""

    def forward(self, p_i: Tensor, p_j: Tensor, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Loss of predictions and projections of two views, each ``(N, D)``."""
        return simsiam_loss(p_i, p_j, z_i, z_j)
