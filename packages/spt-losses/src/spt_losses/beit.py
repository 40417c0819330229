"""BEiT: classify the visual token of every masked patch; iGPT classifies the next one.

Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022, eq. 4.
https://arxiv.org/abs/2106.08254
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from spt_losses._checks import check_floating, check_targets
from spt_losses._distributed import num_rows, world_size
from spt_losses._numerics import no_autocast, widen


def visual_token_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy of the tokens, mean over the places of all ranks.

    Args:
        logits: At the places that are predicted, shape ``(M, V)``; ``M`` may be 0 on a rank.
        tokens: Their tokens, int64 of shape ``(M,)``.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the places of all ranks; 0 if there are none.

    Raises:
        TypeError: If a dtype is wrong.
        ValueError: If a shape or a token is out of range.

    Ranks:
        mean over the places of all ranks, which may differ in number

    Example:
        >>> import torch
        >>> round(visual_token_loss(torch.zeros(3, 4), torch.arange(3)).item(), 4)  # log 4
        1.3863
    """
    check_floating("logits", logits)
    if logits.ndim != 2 or logits.shape[1] < 1:
        raise ValueError(
            "`logits` must have shape (M, V), the predicted places alone, got "
            f"{tuple(logits.shape)}."
        )
    check_targets("tokens", tokens, rows=len(logits), classes=logits.shape[1])
    with no_autocast(logits):
        total = F.cross_entropy(widen(logits), tokens, reduction="sum")
        return total * world_size() / max(num_rows(logits), 1)


class BEiTLoss(nn.Module):
    """BEiT's objective; see :func:`visual_token_loss`."""

    def forward(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Loss of logits ``(M, V)`` at masked patches and their tokens ``(M,)``."""
        return visual_token_loss(logits, tokens)
