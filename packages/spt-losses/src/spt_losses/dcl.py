"""Decoupled contrastive learning: NT-Xent without the positive in its denominator.

Yeh et al., "Decoupled Contrastive Learning", ECCV 2022, eq. 6.
https://arxiv.org/abs/2110.06848
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spt_losses._checks import check_count, check_paired, check_positive, check_several_rows
from spt_losses._distributed import gather_rows, rank, row_counts, world_size
from spt_losses._numerics import no_autocast, unit, widen
from spt_losses._similarity import contrast_sum


def dcl_loss(
    z_i: Tensor,
    z_j: Tensor,
    *,
    temperature: float = 0.1,
    sigma: float | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """Log-sum-exp over the other samples' views minus the similarity of the positive.

    Note:
        The weights of the weighted form are differentiated, as the paper's formula is;
        ``lightly`` takes them as constants, with the same value.

    Args:
        z_i: Projections of the first view, shape ``(N, D)``; normalised here.
        z_j: Projections of the second view, shape ``(N, D)``; row ``n`` is the other view of
            ``z_i[n]``.
        temperature: tau in the paper, above 0.
        sigma: If given, positives are weighted by ``2 - exp(cos / sigma) / mean exp(cos /
            sigma)``, the negative von Mises-Fisher weights of the paper, which uses 0.5.
        chunk_size: Number of anchors compared at a time; value and gradient stay the same.

    Returns:
        Scalar, the mean over both views of all samples; may be negative. Averaged over ranks, it
        is the loss of the batches of all ranks.

    Raises:
        TypeError: If a view is not of a floating-point dtype.
        ValueError: If the shapes differ or are not ``(N, D)``, a setting is out of range, or
            there is only one sample and hence no negative.

    Ranks:
        candidates and weights of all ranks; batches may differ in size

    Example:
        >>> z = torch.eye(2)  # two samples, both views equal: log(1 + 1) - 1
        >>> round(dcl_loss(z, z, temperature=1.0).item(), 4)
        -0.3069
    """
    check_paired(z_i, z_j)
    check_positive("temperature", temperature)
    if sigma is not None:
        check_positive("sigma", sigma)
    check_count("chunk_size", chunk_size)
    with no_autocast(z_i):
        z = unit(torch.stack([widen(z_i), widen(z_j)], dim=1))  # (N, 2, D)
        counts = row_counts(z)
        check_several_rows("Decoupled contrastive learning", sum(counts))
        z_first, z_second = z.unbind(1)
        cosine = (z_first * z_second).sum(1)  # (N,)
        weight = 1.0 if sigma is None else _weights(cosine, sigma, counts)
        anchors = z.flatten(0, 1)  # (2N, D), the two views of a sample side by side
        candidates = gather_rows(anchors, [2 * n for n in counts])  # (2M, D), M samples in all
        first = 2 * (sum(counts[: rank()]) + torch.arange(len(z), device=z.device))
        pairs = torch.stack([first, first + 1], dim=1).repeat_interleave(2, dim=0)  # (2N, 2)
        total = contrast_sum(
            anchors,
            candidates,
            (weight * cosine / temperature).repeat_interleave(2),
            1 / temperature,
            hidden=pairs,
            chunk_size=chunk_size,
        )
        return total * world_size() / (2 * sum(counts))


def _weights(cosine: Tensor, sigma: float, counts: list[int]) -> Tensor:
    everyone = gather_rows(cosine, counts) / sigma
    return 2 - len(everyone) * (cosine / sigma - everyone.logsumexp(0)).exp()


class DCLLoss(nn.Module):
    """Decoupled contrastive loss; see :func:`dcl_loss`.

    Args:
        temperature: tau in the paper, above 0.
        sigma: Width of the weights of the weighted form; ``None`` weighs all positives alike.
        chunk_size: Number of anchors compared at a time; ``None`` compares all at once.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        sigma: float | None = None,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        if sigma is not None:
            check_positive("sigma", sigma)
        check_count("chunk_size", chunk_size)
        self.temperature = temperature
        self.sigma = sigma
        self.chunk_size = chunk_size

    def forward(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Loss of two views ``(N, D)`` whose rows are paired."""
        return dcl_loss(
            z_i,
            z_j,
            temperature=self.temperature,
            sigma=self.sigma,
            chunk_size=self.chunk_size,
        )

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"temperature={self.temperature}, sigma={self.sigma}"
