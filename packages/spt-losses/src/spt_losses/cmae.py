"""CMAE: the reconstruction's features pick the other crop's features out of the batch.

Huang et al., "Contrastive Masked Autoencoders are Stronger Vision Learners", 2022, eq. 5.
https://arxiv.org/abs/2207.13532
"""

from __future__ import annotations

from torch import Tensor, nn

from spt_losses._checks import check_count, check_paired, check_positive
from spt_losses._in_batch import in_batch_contrast
from spt_losses._numerics import no_autocast, unit, widen


def cmae_contrast_loss(
    query: Tensor, key: Tensor, *, temperature: float = 0.07, chunk_size: int | None = None
) -> Tensor:
    """InfoNCE of each query and its key among the keys of all ranks, in one direction.

    It is the second term of the objective; the first is :func:`mae`.

    Args:
        query: Predictions from the masked crop's features, shape ``(N, D)``; normalised here.
        key: Of the momentum branch, ``(N, D)``; normalised and detached here.
        temperature: tau, above 0.
        chunk_size: Number of rows compared at a time; value and gradient stay the same.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the queries of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If the shapes differ or a setting is out of range.

    Ranks:
        keys of all ranks; batches may differ in size

    Example:
        >>> import torch
        >>> z = torch.eye(2)
        >>> round(cmae_contrast_loss(z, z, temperature=1.0).item(), 4)  # -log(e / (e + 1))
        0.3133
    """
    check_paired(query, key, names=("query", "key"))
    check_positive("temperature", temperature)
    check_count("chunk_size", chunk_size)
    with no_autocast(query):
        q, k = unit(widen(query)), unit(widen(key.detach()))
        return in_batch_contrast(q, k.to(q.dtype), 1 / temperature, chunk_size=chunk_size)


class CMAEContrastLoss(nn.Module):
    """The contrastive term of CMAE; see :func:`cmae_contrast_loss`.

    Args:
        temperature: tau, above 0.
        chunk_size: Number of rows compared at a time; ``None`` compares all at once.
    """

    def __init__(self, temperature: float = 0.07, *, chunk_size: int | None = None) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_count("chunk_size", chunk_size)
        self.temperature = temperature
        self.chunk_size = chunk_size

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Loss of queries ``(N, D)`` and keys ``(N, D)``."""
        return cmae_contrast_loss(
            query, key, temperature=self.temperature, chunk_size=self.chunk_size
        )

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"temperature={self.temperature}"
