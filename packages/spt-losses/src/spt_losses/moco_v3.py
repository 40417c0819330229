"""MoCo v3: predictions of one view pick the other view's momentum keys out of the batch.

Chen, Xie and He, "An Empirical Study of Training Self-Supervised Vision Transformers",
ICCV 2021, eq. 1 and Algorithm 1. https://arxiv.org/abs/2104.02057
"""

from __future__ import annotations

from torch import Tensor, nn

from spt_losses._checks import check_count, check_paired, check_positive, check_same_shape
from spt_losses._distributed import row_counts
from spt_losses._in_batch import in_batch_contrast
from spt_losses._numerics import no_autocast, unit, widen


def moco_v3_loss(
    q_i: Tensor,
    q_j: Tensor,
    k_i: Tensor,
    k_j: Tensor,
    *,
    temperature: float = 0.2,
    chunk_size: int | None = None,
) -> Tensor:
    """``2 * temperature`` times the sum of both directions' cross-entropies.

    Args:
        q_i: Predictions of the first view, shape ``(N, D)``; normalised here, as all inputs.
        q_j: Predictions of the second view, shape ``(N, D)``.
        k_i: Momentum projections of the first view, shape ``(N, D)``; detached here.
        k_j: Momentum projections of the second view, shape ``(N, D)``; detached here.
        temperature: tau in the paper, above 0.
        chunk_size: Number of rows compared at a time; value and gradient stay the same.

    Returns:
        Scalar. Averaged over ranks, it is the loss of the batches of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If the shapes differ or a setting is out of range.

    Ranks:
        keys of all ranks; batches may differ in size

    Example:
        >>> import torch
        >>> z = torch.eye(2)
        >>> round(moco_v3_loss(z, z, z, z, temperature=1.0).item(), 4)  # 4 * 0.3133
        1.253
    """
    check_same_shape(q_i=q_i, q_j=q_j, k_i=k_i, k_j=k_j)
    check_paired(q_i, k_j, names=("q_i", "k_j"))
    check_paired(q_j, k_i, names=("q_j", "k_i"))
    check_positive("temperature", temperature)
    check_count("chunk_size", chunk_size)
    with no_autocast(q_i):
        counts = row_counts(q_i)
        forth, back = (
            in_batch_contrast(
                unit(widen(q)),
                unit(widen(k.detach())),
                1 / temperature,
                chunk_size=chunk_size,
                counts=counts,
            )
            for q, k in ((q_i, k_j), (q_j, k_i))
        )
        return 2 * temperature * (forth + back)


class MoCoV3Loss(nn.Module):
    """Symmetric contrastive loss of MoCo v3; see :func:`moco_v3_loss`.

    Args:
        temperature: tau in the paper, above 0.
        chunk_size: Number of rows compared at a time; ``None`` compares all at once.
    """

    def __init__(self, temperature: float = 0.2, *, chunk_size: int | None = None) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_count("chunk_size", chunk_size)
        self.temperature = temperature
        self.chunk_size = chunk_size

    def forward(self, q_i: Tensor, q_j: Tensor, k_i: Tensor, k_j: Tensor) -> Tensor:
        """Loss of predictions and momentum projections of two views, each ``(N, D)``."""
        return moco_v3_loss(
            q_i, q_j, k_i, k_j, temperature=self.temperature, chunk_size=self.chunk_size
        )

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"temperature={self.temperature}"
