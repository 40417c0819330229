"""NT-Xent: each view against its partner among all other views of the batch.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations",
ICML 2020, eq. 1 and Algorithm 1. https://arxiv.org/abs/2002.05709
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spt_losses._checks import check_count, check_paired, check_positive, check_several_rows
from spt_losses._distributed import gather_rows, rank, row_counts, world_size
from spt_losses._numerics import no_autocast, unit, widen
from spt_losses._similarity import contrast_sum


def ntxent_loss(
    z_i: Tensor, z_j: Tensor, *, temperature: float = 0.5, chunk_size: int | None = None
) -> Tensor:
    """Contrast two views of each sample against the views of all other samples.

    Anchors are the views of this rank, candidates those of all ranks; only the anchor
    itself is left out. The maths runs in float32 or wider, whatever the autocast state.

    Note:
        The official code adds the means of the two directions, which is twice this value.

    Args:
        z_i: Projections of the first view, shape ``(N, D)``; normalised here.
        z_j: Projections of the second view, shape ``(N, D)``; row ``n`` is the other
            view of ``z_i[n]``.
        temperature: tau of eq. 1, above 0.
        chunk_size: Number of anchors compared at a time, for batches whose matrix of
            similarities does not fit; value and gradient stay the same.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the views of all ranks.

    Raises:
        TypeError: If a view is not of a floating-point dtype.
        ValueError: If the shapes differ or are not ``(N, D)``, the temperature is not
            above 0, or there is only one sample and hence no negative.

    Ranks:
        candidates of all ranks; batches may differ in size

    Example:
        >>> z = torch.eye(2)  # two samples, both views equal
        >>> round(ntxent_loss(z, z, temperature=1.0).item(), 4)  # -log(e / (e + 2))
        0.5514
    """
    check_paired(z_i, z_j)
    check_positive("temperature", temperature)
    check_count("chunk_size", chunk_size)
    with no_autocast(z_i):
        z = unit(torch.stack([widen(z_i), widen(z_j)], dim=1))  # (N, 2, D)
        counts = row_counts(z)
        check_several_rows("NT-Xent", sum(counts))
        anchors = z.flatten(0, 1)  # (2N, D), the two views of a sample side by side
        candidates = gather_rows(anchors, [2 * n for n in counts])  # (2M, D), M samples in all
        own = 2 * sum(counts[: rank()]) + torch.arange(len(anchors), device=z.device)
        first, second = z.unbind(1)
        positives = (first * second).sum(1).repeat_interleave(2) / temperature  # (2N,)
        total = contrast_sum(
            anchors,
            candidates,
            positives,
            1 / temperature,
            hidden=own[:, None],
            chunk_size=chunk_size,
        )
        return total * world_size() / (2 * sum(counts))


class NTXEntLoss(nn.Module):
    """NT-Xent of SimCLR; see :func:`ntxent_loss`.

    Args:
        temperature: tau of eq. 1, above 0. The paper uses 0.1 on ImageNet and 0.5 on CIFAR-10.
        chunk_size: Number of anchors compared at a time; ``None`` compares all at once.

    Example:
        >>> loss = NTXEntLoss(temperature=0.5)
        >>> loss(torch.randn(8, 16), torch.randn(8, 16)).shape
        torch.Size([])
    """

    def __init__(self, temperature: float = 0.5, *, chunk_size: int | None = None) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_count("chunk_size", chunk_size)
        self.temperature = temperature
        self.chunk_size = chunk_size

    def forward(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Loss of two views ``(N, D)`` whose rows are paired."""
        return ntxent_loss(z_i, z_j, temperature=self.temperature, chunk_size=self.chunk_size)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"temperature={self.temperature}"
