"""Layers that heads are made of."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm1dNoBias(nn.BatchNorm1d):
    """BatchNorm whose shift stays 0, as the last layer of SimCLR's head."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.bias.requires_grad_(False)


class L2Norm(nn.Module):
    """Unit rows."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape as ``x`` ``(..., D)``."""
        return F.normalize(x, dim=-1)


class Normalize(nn.Module):
    """A tensor over its root mean square."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape as ``x``; the squares of its entries have mean 1."""
        return x * (x.numel() ** 0.5 / x.norm().clamp(min=1e-12))
