"""NEPA: each output predicts the next patch's embedding.

"Next-Embedding Prediction Makes Strong Vision Learners", 2025, Algorithm 1.
https://arxiv.org/abs/2512.16922
"""

from __future__ import annotations

from torch import Tensor, nn

from spt_losses._checks import check_dims, check_same_shape
from spt_losses._distributed import mean_of_rows
from spt_losses._numerics import cosine, no_autocast, widen


def nepa_loss(pred: Tensor, embedding: Tensor) -> Tensor:
    """Minus the mean cosine of the output at ``t`` and the embedding at ``t + 1``.

    Args:
        pred: Outputs of a causal model, shape ``(N, T, D)``; the last one predicts nothing.
        embedding: What went in, ``(N, T, D)``; detached here.

    Returns:
        Scalar in [-1, 1]. Averaged over ranks, it is the mean over the sequences of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If the shapes differ, are not ``(N, T, D)``, or ``T < 2``.

    Ranks:
        mean over the sequences of all ranks, which may differ in number but not in length

    Example:
        >>> import torch
        >>> x = torch.randn(2, 5, 8)
        >>> round(nepa_loss(x.roll(-1, 1), x).item(), 4)
        -1.0
    """
    check_same_shape(pred=pred, embedding=embedding)
    check_dims("pred", pred, "NTD")
    check_dims("embedding", embedding, "NTD")
    if pred.shape[1] < 2:
        raise ValueError(f"`pred` must hold at least 2 tokens, got shape {tuple(pred.shape)}.")
    with no_autocast(pred):
        similarity = cosine(widen(pred)[:, :-1], widen(embedding.detach())[:, 1:])  # (N, T - 1)
        return -mean_of_rows(similarity.mean(1))


class NEPALoss(nn.Module):
    """NEPA's objective; see :func:`nepa_loss`."""

    def forward(self, pred: Tensor, embedding: Tensor) -> Tensor:
        """Loss of outputs ``(N, T, D)`` and of the embeddings that went in."""
        return nepa_loss(pred, embedding)
