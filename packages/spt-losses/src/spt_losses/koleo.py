"""KoLeo: spread unit vectors by pushing each away from its nearest neighbour.

Sablayrolles et al., "Spreading vectors for similarity search", ICLR 2019, eq. 3.
https://arxiv.org/abs/1806.03198
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spt_losses._checks import check_count, check_rows, check_several_rows
from spt_losses._distributed import gather_rows, mean_of_rows, rank, row_counts
from spt_losses._numerics import no_autocast, unit, widen
from spt_losses._row_blocks import rows_per_block

EPS = 1e-8  # in the difference and in the logarithm, as in the official code of DINOv2


def koleo_loss(z: Tensor, *, top_k: int = 1) -> Tensor:
    """``-mean log(|x - x_nn| + eps)`` over unit rows and their nearest other rows.

    The choice of neighbours has no gradient; both ends of each pair have, unless they are equal.

    Args:
        z: Features, shape ``(N, D)``; normalised here.
        top_k: Nearest rows of each; 1 in DINOv2, more in DINOv3.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the rows of all ranks.

    Raises:
        TypeError: If ``z`` is not of a floating-point dtype.
        ValueError: If ``z`` is not of shape ``(N, D)``, or there are not more than ``top_k`` rows over
            all ranks.

    Ranks:
        neighbours and mean over the rows of all ranks, which may differ in number; the official
        code of DINOv2 looks for neighbours on each device alone

    Example:
        >>> round(koleo_loss(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item(), 4)  # -log 2
        -0.6931
    """
    check_rows("z", z)
    check_count("top_k", top_k)
    counts = row_counts(z)
    check_several_rows("KoLeo", sum(counts), at_least=top_k + 1)
    with no_autocast(z):
        x = unit(widen(z))
        everyone = gather_rows(x, counts)
        nearest = _nearest(x, everyone, sum(counts[: rank()]), top_k)
        neighbours = everyone.index_select(0, nearest.flatten()).view(len(x), top_k, -1)
        difference = x.unsqueeze(1) - neighbours  # (N, k, D)
        distance = torch.linalg.vector_norm(difference + EPS, dim=2)
        # a duplicate lies in no direction; with eps alone its gradient would leave float16
        least = 1.01 * EPS * math.sqrt(x.shape[1])
        distance = torch.where(distance > least, distance, distance.detach())
        return -mean_of_rows((distance + EPS).log().mean(1), counts)


@torch.no_grad()
def _nearest(x: Tensor, everyone: Tensor, first: int, top_k: int) -> Tensor:
    """Indices ``(N, k)`` of the most similar other rows; ``x`` begins at row ``first`` of all."""
    own = first + torch.arange(len(x), device=x.device).unsqueeze(1)
    size = rows_per_block(x, len(everyone), elements=2**20)
    blocks = zip(x.split(size), own.split(size), strict=True)
    return torch.cat([_nearest_of(rows, itself, everyone, top_k) for rows, itself in blocks])


def _nearest_of(rows: Tensor, itself: Tensor, everyone: Tensor, top_k: int) -> Tensor:
    """:func:`_nearest` for a block of rows, whose similarities alone are held."""
    similarity = (rows @ everyone.T).scatter_(1, itself, -torch.inf)  # (block, all rows)
    if top_k == 1:  # found much faster than by sorting
        return similarity.argmax(1, keepdim=True)
    return similarity.topk(top_k, dim=1).indices


class KoLeoLoss(nn.Module):
    """Spreading term of DINOv2 and DINOv3; see :func:`koleo_loss`.

    Args:
        top_k: Nearest rows of each.
    """

    def __init__(self, top_k: int = 1) -> None:
        super().__init__()
        check_count("top_k", top_k)
        self.top_k = top_k

    def forward(self, z: Tensor) -> Tensor:
        """Loss of features ``(N, D)``."""
        return koleo_loss(z, top_k=self.top_k)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"top_k={self.top_k}"
