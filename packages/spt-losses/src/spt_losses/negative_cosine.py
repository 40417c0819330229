"""Negative cosine similarity of paired rows.

Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021, eq. 1.
https://arxiv.org/abs/2011.10566
"""

from __future__ import annotations

from torch import Tensor, nn

from spt_losses._checks import check_paired
from spt_losses._distributed import mean_of_rows
from spt_losses._numerics import cosine, no_autocast, widen


def negative_cosine_similarity(z_i: Tensor, z_j: Tensor) -> Tensor:
    """Mean over rows of ``-cos``. Nothing is detached.

    Args:
        z_i: Shape ``(N, D)``.
        z_j: Shape ``(N, D)``; row ``n`` belongs to ``z_i[n]``.

    Returns:
        Scalar between -1 and 1. Averaged over ranks, it is the mean over the rows of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If the shapes differ or are not ``(N, D)``.

    Ranks:
        mean over the rows of all ranks; batches may differ in size

    Example:
        >>> import torch
        >>> negative_cosine_similarity(torch.eye(3), 2 * torch.eye(3)).item()
        -1.0
    """
    check_paired(z_i, z_j)
    with no_autocast(z_i):
        return -mean_of_rows(cosine(widen(z_i), widen(z_j)))


class NegativeCosineSimilarity(nn.Module):
    """Negative cosine of paired rows; see :func:`negative_cosine_similarity`."""

    def forward(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Loss of paired rows ``(N, D)``."""
        return negative_cosine_similarity(z_i, z_j)
