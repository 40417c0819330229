"""Probes: what a frozen encoder's features tell a small head."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["cls", "mean"]


def pooled(x: Tensor, pooling: Pooling | None) -> Tensor:
    """Tokens ``(N, T, D)`` as one vector each; features ``(N, D)`` pass.

    Raises:
        ValueError: If tokens come without a pooling, or it is unknown.
    """
    if pooling not in (None, "cls", "mean"):
        raise ValueError(f"`pooling` must be 'cls', 'mean' or None, got {pooling!r}.")
    if x.ndim == 2:
        return x
    if pooling is None:
        raise ValueError(
            f"Features of shape {tuple(x.shape)} need `pooling='cls'` or `pooling='mean'`."
        )
    return x[:, 0] if pooling == "cls" else x.mean(1)


class LinearProbe(nn.Module):
    """Pool tokens, normalise, one linear layer.

    Args:
        embedding_dim: Width of the features.
        num_classes: Width of the output.
        pooling: What to do with tokens: the first, their mean, or nothing.
        norm_layer: Class of a normalisation of so many features, or ``None``.

    Example:
        >>> LinearProbe(8, 3, pooling="mean")(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        pooling: Pooling | None = "cls",
        norm_layer: type[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        pooled(torch.empty(0, embedding_dim), pooling)
        self.pooling = pooling
        self.norm = nn.Identity() if norm_layer is None else norm_layer(embedding_dim)
        self.linear = nn.Linear(embedding_dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, num_classes)`` of features ``(N, D)`` or tokens ``(N, T, D)``."""
        out: Tensor = self.linear(self.norm(pooled(x, self.pooling)))
        return out


class MultiHeadAttentiveProbe(nn.Module):
    """Each head pools all tokens by its own softmax weights; a linear layer reads all heads.

    Queries start at zero, so at first every token weighs the same; scores are scaled by the root of
    the width.

    Args:
        embedding_dim: Width of the tokens.
        num_classes: Width of the output.
        num_heads: Heads.

    Example:
        >>> MultiHeadAttentiveProbe(8, 3)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(self, embedding_dim: int, num_classes: int, num_heads: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embedding_dim)
        self.queries = nn.Parameter(torch.zeros(num_heads, embedding_dim))
        self.linear = nn.Linear(num_heads * embedding_dim, num_classes)

    def weights(self, x: Tensor) -> Tensor:
        """Weights ``(N, num_heads, T)`` of normalised tokens ``(N, T, D)``."""
        scores = self.queries @ x.mT / self.queries.shape[1] ** 0.5
        return scores.softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, num_classes)`` of tokens ``(N, T, D)``."""
        x = self.norm(x)
        out: Tensor = self.linear((self.weights(x) @ x).flatten(1))
        return out
