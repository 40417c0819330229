"""InfoNCE: pick each anchor's positive out of a list of candidates.

van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, eq. 4.
https://arxiv.org/abs/1807.03748
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spt_losses._checks import check_count, check_positive, check_rows, check_targets
from spt_losses._distributed import num_rows, world_size
from spt_losses._numerics import no_autocast, unit, widen
from spt_losses._similarity import contrast_sum


def info_nce_loss(
    anchor: Tensor,
    candidates: Tensor,
    targets: Tensor,
    *,
    mask: Tensor | None = None,
    temperature: float = 0.07,
    logit_scale: Tensor | float | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """Cross-entropy of cosine similarities between anchors and candidates.

    Args:
        anchor: Shape ``(n, D)``; normalised here.
        candidates: Shape ``(m, D)``; normalised here. To contrast with other ranks, pass
            ``gather_rows(candidates)`` and targets that count from the first rank's rows.
        targets: Index of each anchor's positive among the candidates, int64 of shape ``(n,)``.
        mask: True where a candidate is left out, bool of shape ``(n, m)``; the positive stays.
        temperature: What divides the similarities, above 0.
        logit_scale: What multiplies the similarities in the place of ``1 / temperature``, such
            as the output of ``LogitScale``.
        chunk_size: Number of anchors compared at a time; value and gradient stay the same.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the anchors of all ranks.

    Raises:
        TypeError: If a dtype is wrong.
        ValueError: If a shape, a target, the temperature or ``chunk_size`` is out of range.

    Ranks:
        mean over the anchors of all ranks, which may differ in number; the caller gathers candidates

    Example:
        >>> a = torch.eye(2)
        >>> loss = info_nce_loss(a, a, torch.arange(2), temperature=1.0)
        >>> round(loss.item(), 4)  # -log(e / (e + 1))
        0.3133
    """
    check_rows("anchor", anchor)
    check_rows("candidates", candidates)
    check_positive("temperature", temperature)
    check_count("chunk_size", chunk_size)
    check_targets("targets", targets, rows=len(anchor), classes=len(candidates))
    _check_candidates(anchor, candidates, mask)
    with no_autocast(anchor):
        a, c = unit(widen(anchor)), unit(widen(candidates))
        scale = 1 / temperature if logit_scale is None else logit_scale
        if mask is not None:
            mask = mask.scatter(1, targets[:, None], False)
        total = contrast_sum(
            a, c, (a * c[targets]).sum(1) * scale, scale, mask=mask, chunk_size=chunk_size
        )
        return total * world_size() / num_rows(a)


def _check_candidates(anchor: Tensor, candidates: Tensor, mask: Tensor | None) -> None:
    if anchor.shape[1] != candidates.shape[1]:
        raise ValueError(
            "`anchor` and `candidates` must have the same width, got "
            f"{tuple(anchor.shape)} and {tuple(candidates.shape)}."
        )
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise TypeError(f"`mask` must be of dtype torch.bool, got {mask.dtype}.")
    if mask.shape != (len(anchor), len(candidates)):
        raise ValueError(
            f"`mask` must have shape {(len(anchor), len(candidates))}, got {tuple(mask.shape)}."
        )


class InfoNCELoss(nn.Module):
    """InfoNCE between anchors and candidates; see :func:`info_nce_loss`.

    Args:
        temperature: What divides the similarities, above 0.
        chunk_size: Number of anchors compared at a time; ``None`` compares all at once.
    """

    def __init__(self, temperature: float = 0.07, *, chunk_size: int | None = None) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_count("chunk_size", chunk_size)
        self.temperature = temperature
        self.chunk_size = chunk_size

    def forward(
        self,
        anchor: Tensor,
        candidates: Tensor,
        targets: Tensor,
        mask: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
    ) -> Tensor:
        """Loss of anchors ``(n, D)`` among candidates ``(m, D)`` at ``targets`` ``(n,)``."""
        return info_nce_loss(
            anchor,
            candidates,
            targets,
            mask=mask,
            temperature=self.temperature,
            logit_scale=logit_scale,
            chunk_size=self.chunk_size,
        )

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"temperature={self.temperature}"
