"""CLIP: images and texts pick each other out of the batch.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
ICML 2021, figure 3. https://arxiv.org/abs/2103.00020
"""

from __future__ import annotations

from torch import Tensor, nn

from spt_losses._checks import check_count, check_paired, check_positive
from spt_losses._distributed import row_counts
from spt_losses._in_batch import in_batch_contrast
from spt_losses._numerics import no_autocast, unit, widen


def clip_loss(
    feats_i: Tensor,
    feats_j: Tensor,
    *,
    temperature: float = 0.07,
    logit_scale: Tensor | float | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """Half the sum of the two cross-entropies of a matrix of cosine similarities.

    Args:
        feats_i: Features of the first kind, shape ``(N, D)``; normalised here.
        feats_j: Features of the second kind, shape ``(N, D)``; row ``n`` belongs to
            ``feats_i[n]``.
        temperature: What divides the similarities, above 0.
        logit_scale: What multiplies the similarities in the place of ``1 / temperature``, such
            as the output of ``LogitScale``.
        chunk_size: Number of rows compared at a time; value and gradient stay the same.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the pairs of all ranks.

    Raises:
        TypeError: If a side is not of a floating-point dtype.
        ValueError: If the shapes differ or a setting is out of range.

    Ranks:
        candidates of all ranks; batches may differ in size

    Example:
        >>> import torch
        >>> x = torch.eye(2)
        >>> round(clip_loss(x, x, temperature=1.0).item(), 4)  # -log(e / (e + 1))
        0.3133
    """
    check_paired(feats_i, feats_j, names=("feats_i", "feats_j"))
    check_positive("temperature", temperature)
    check_count("chunk_size", chunk_size)
    scale = 1 / temperature if logit_scale is None else logit_scale
    with no_autocast(feats_i):
        x, y = unit(widen(feats_i)), unit(widen(feats_j))
        counts = row_counts(x)
        forth = in_batch_contrast(x, y, scale, chunk_size=chunk_size, counts=counts)
        back = in_batch_contrast(y, x, scale, chunk_size=chunk_size, counts=counts)
        return (forth + back) / 2


class CLIPLoss(nn.Module):
    """Symmetric contrastive loss of CLIP; see :func:`clip_loss`.

    Args:
        temperature: What divides the similarities when no scale is given, above 0.
        chunk_size: Number of rows compared at a time; ``None`` compares all at once.
    """

    def __init__(self, temperature: float = 0.07, *, chunk_size: int | None = None) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_count("chunk_size", chunk_size)
        self.temperature = temperature
        self.chunk_size = chunk_size

    def forward(
        self, feats_i: Tensor, feats_j: Tensor, logit_scale: Tensor | float | None = None
    ) -> Tensor:
        """Loss of paired features ``(N, D)``; ``logit_scale`` multiplies the similarities."""
        return clip_loss(
            feats_i,
            feats_j,
            temperature=self.temperature,
            logit_scale=logit_scale,
            chunk_size=self.chunk_size,
        )

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"temperature={self.temperature}"
