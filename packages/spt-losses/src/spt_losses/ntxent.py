"""NT-Xent: each view against its partner among all other views of the batch.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations",
ICML 2020, eq. 1 and Algorithm 1. https://arxiv.org/abs/2002.05709
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spt_losses._checks import check_paired, check_positive
from spt_losses._distributed import gather_rows, rank, row_counts, world_size


def ntxent_loss(z_i: Tensor, z_j: Tensor, *, temperature: float = 0.5) -> Tensor:
    """Contrast two views of each sample against the views of all other samples.

    Anchors are the views of this rank, candidates those of all ranks; only the anchor
    itself is left out. The maths runs in float32 or wider, whatever the autocast state.

    Args:
        z_i: Projections of the first view, shape ``(N, D)``; normalised here.
        z_j: Projections of the second view, shape ``(N, D)``; row ``n`` is the other
            view of ``z_i[n]``.
        temperature: tau of eq. 1, above 0.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the views of all ranks.

    Raises:
        TypeError: If a view is not of a floating-point dtype.
        ValueError: If the shapes differ or are not ``(N, D)``, the temperature is not
            above 0, or there is only one sample and hence no negative.

    Example:
        >>> z = torch.eye(2)  # two samples, both views equal
        >>> round(ntxent_loss(z, z, temperature=1.0).item(), 4)  # -log(e / (e + 2))
        0.5514
    """
    check_paired(z_i, z_j)
    check_positive("temperature", temperature)
    with torch.autocast(z_i.device.type, enabled=False):
        wide = torch.promote_types(z_i.dtype, torch.float32)
        z = torch.stack([F.normalize(v.to(wide), dim=1) for v in (z_i, z_j)], dim=1)  # (N, 2, D)
        counts = row_counts(z)
        if sum(counts) < 2:
            raise ValueError(
                "NT-Xent needs at least 2 samples over all ranks, got 1: a single sample has "
                "no negative. Raise the batch size."
            )
        anchors = z.flatten(0, 1)  # (2N, D), the two views of a sample side by side
        candidates = gather_rows(z, counts).flatten(0, 1)  # (2M, D), M samples on all ranks
        own = 2 * sum(counts[: rank()]) + torch.arange(len(anchors), device=z.device)
        logits = anchors @ candidates.T / temperature  # (2N, 2M)
        logits = logits.scatter(1, own[:, None], -torch.inf)
        loss = F.cross_entropy(logits, own ^ 1, reduction="sum")
        return loss * world_size() / (2 * sum(counts))


class NTXEntLoss(nn.Module):
    """NT-Xent of SimCLR; see :func:`ntxent_loss`.

    Args:
        temperature: tau of eq. 1, above 0. The paper uses 0.1 on ImageNet and 0.5 on CIFAR-10.

    Example:
        >>> loss = NTXEntLoss(temperature=0.5)
        >>> loss(torch.randn(8, 16), torch.randn(8, 16)).shape
        torch.Size([])
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        self.temperature = temperature

    def forward(self, z_i: Tensor, z_j: Tensor) -> Tensor:
        """Loss of two views ``(N, D)`` whose rows are paired."""
        return ntxent_loss(z_i, z_j, temperature=self.temperature)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"temperature={self.temperature}"
