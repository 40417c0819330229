"""NNCLR: the nearest neighbour of one view picks the other view's prediction out of the batch.

Dwibedi et al., "With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of
Visual Representations", ICCV 2021, eq. 3 and Algorithm 1. https://arxiv.org/abs/2104.14548
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spt_losses._checks import (
    check_count,
    check_paired,
    check_positive,
    check_rows,
    check_same_shape,
    check_width,
)
from spt_losses._distributed import row_counts
from spt_losses._in_batch import in_batch_contrast
from spt_losses._numerics import no_autocast, unit, widen
from spt_losses.feature_queue import FeatureQueue


@torch.no_grad()
def nearest_rows(z: Tensor, support: Tensor) -> Tensor:
    """For each row of ``z``, the row of ``support`` of largest cosine.

    Args:
        z: Shape ``(N, D)``.
        support: Unit rows, shape ``(Q, D)``.

    Returns:
        Shape ``(N, D)``, without gradient.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If an input is not 2-D or the widths differ.
    """
    check_rows("z", z)
    check_rows("support", support)
    check_width("support", support, z.shape[1])
    with no_autocast(z):
        z, support = widen(z), widen(support)
        similarity = z @ support.T.to(z.dtype)  # a row's length does not change its order
        return support[similarity.argmax(1)]


def nnclr_loss(
    nn_i: Tensor,
    nn_j: Tensor,
    p_i: Tensor,
    p_j: Tensor,
    *,
    temperature: float = 0.1,
    chunk_size: int | None = None,
) -> Tensor:
    """Half the sum of the cross-entropies of neighbours among the other view's predictions.

    Args:
        nn_i: Neighbours of the first view's projections, shape ``(N, D)``, of
            :func:`nearest_rows`; normalised and detached here.
        nn_j: Neighbours of the second view's projections, shape ``(N, D)``.
        p_i: Predictions of the first view, shape ``(N, D)``; normalised here.
        p_j: Predictions of the second view, shape ``(N, D)``.
        temperature: tau of eq. 3, above 0.
        chunk_size: Number of rows compared at a time; value and gradient stay the same.

    Returns:
        Scalar. Averaged over ranks, it is the loss of the batches of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If the shapes differ or a setting is out of range.

    Ranks:
        predictions of all ranks; batches may differ in size; one support set for all

    Example:
        >>> z = torch.eye(2)
        >>> round(nnclr_loss(z, z, z, z, temperature=1.0).item(), 4)  # -log(e / (e + 1))
        0.3133
    """
    check_same_shape(nn_i=nn_i, nn_j=nn_j, p_i=p_i, p_j=p_j)
    check_paired(nn_i, p_j, names=("nn_i", "p_j"))
    check_paired(nn_j, p_i, names=("nn_j", "p_i"))
    check_positive("temperature", temperature)
    check_count("chunk_size", chunk_size)
    with no_autocast(p_i):
        counts = row_counts(p_i)
        forth, back = (
            in_batch_contrast(
                unit(widen(neighbour.detach())).to(widen(p).dtype),
                unit(widen(p)),
                1 / temperature,
                chunk_size=chunk_size,
                counts=counts,
            )
            for neighbour, p in ((nn_i, p_j), (nn_j, p_i))
        )
        return (forth + back) / 2


class NNCLRLoss(nn.Module):
    """NNCLR with its support set; see :func:`nnclr_loss` and :class:`FeatureQueue`.

    Neighbours are looked up first; in training mode the first view's projections enter the
    support set afterwards, so that none is its own neighbour.

    Args:
        length: Number of rows of the support set; the paper's best run uses 98304.
        dim: Width of projections and predictions.
        temperature: tau of eq. 3, above 0.
        accumulate: Batches per optimizer step.
        chunk_size: Number of rows compared at a time; ``None`` compares all at once.

    Example:
        >>> loss = NNCLRLoss(32, 16)
        >>> loss(*torch.randn(4, 8, 16)).shape  # z_i, z_j, p_i, p_j
        torch.Size([])
    """

    def __init__(
        self,
        length: int,
        dim: int,
        temperature: float = 0.1,
        *,
        accumulate: int = 1,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_count("chunk_size", chunk_size)
        self.temperature = temperature
        self.chunk_size = chunk_size
        self.queue = FeatureQueue(length, dim, accumulate=accumulate)

    def forward(self, z_i: Tensor, z_j: Tensor, p_i: Tensor, p_j: Tensor) -> Tensor:
        """Loss of projections (looked up, without gradient) and predictions, each ``(N, D)``."""
        support = self.queue.rows
        loss = nnclr_loss(
            nearest_rows(z_i, support),
            nearest_rows(z_j, support),
            p_i,
            p_j,
            temperature=self.temperature,
            chunk_size=self.chunk_size,
        )
        if self.training:
            self.queue.push(z_i)
        return loss

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"temperature={self.temperature}"
