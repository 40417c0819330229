"""The head of DINO and its successors: an MLP, unit vectors, and their cosines with prototypes.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, appendix C.
https://arxiv.org/abs/2104.14294; official code https://github.com/facebookresearch/dino.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Gain = Literal["fixed", "free", "none"]


class Prototypes(nn.Module):
    """Unit vectors against learned prototypes, a linear layer with weight normalisation.

    Args:
        dim: Width of the input.
        number: How many prototypes, K.
        gain: Length of the prototypes: ``"fixed"`` at 1, so that logits are cosines, as DINO;
            ``"free"``, learned as in DINO's ViT-S recipe and DINOv2; ``"none"``, a plain linear
            layer, as DINOv3.

    Attributes:
        weight: Directions, shape ``(K, dim)``.
        gain: Lengths, shape ``(K, 1)``, unless ``"none"``.

    Raises:
        ValueError: If ``gain`` is unknown.
    """

    def __init__(self, dim: int, number: int, gain: Gain = "fixed") -> None:
        super().__init__()
        if gain not in ("fixed", "free", "none"):
            raise ValueError(f"`gain` must be 'fixed', 'free' or 'none', got {gain!r}.")
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(number, dim), std=0.02))
        self.gain: nn.Parameter | None = None
        if gain != "none":
            self.gain = nn.Parameter(torch.ones(number, 1), requires_grad=gain == "free")

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(..., K)`` of vectors ``(..., dim)``, normalised here."""
        x = F.normalize(x, dim=-1)
        if self.gain is None:
            return F.linear(x, self.weight)
        return F.linear(x, self.gain * F.normalize(self.weight, dim=1))


class PrototypeHead(nn.Module):
    """Linear layers with GELU between them down to a bottleneck, then prototypes.

    Args:
        in_channels: Width of the features.
        n_prototypes: K.
        hidden_dim: Width of the hidden layers.
        bottleneck_dim: Width of the unit vectors.
        n_layers: Linear layers before the prototypes.
        gain: See :class:`Prototypes`.
        batch_norm: BatchNorm after the hidden layers, as with convolutional networks.
        n_patch_prototypes: Prototypes of patches, of their own as in iBOT's separate heads; patches
            share those of images if ``None``.

    Attributes:
        mlp: The linear layers.
        last_layer: The prototypes; frozen in the first epoch by :class:`FrozenPrototypes`.
        patch_layer: The prototypes of patches, or ``None`` where they are shared.

    Example:
        >>> PrototypeHead(16, 64, hidden_dim=32, bottleneck_dim=8)(torch.randn(4, 16)).shape
        torch.Size([4, 64])
    """

    def __init__(
        self,
        in_channels: int,
        n_prototypes: int = 65536,
        *,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        n_layers: int = 3,
        gain: Gain = "fixed",
        batch_norm: bool = False,
        n_patch_prototypes: int | None = None,
    ) -> None:
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"`n_layers` must be >= 1, got {n_layers}.")
        layers: list[nn.Module] = []
        for _ in range(n_layers - 1):
            layers.append(nn.Linear(in_channels, hidden_dim))
            layers += [nn.BatchNorm1d(hidden_dim)] if batch_norm else []
            layers.append(nn.GELU())
            in_channels = hidden_dim
        layers.append(nn.Linear(in_channels, bottleneck_dim))
        self.mlp = nn.Sequential(*layers)
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = Prototypes(bottleneck_dim, n_prototypes, gain)
        self.patch_layer: Prototypes | None = None
        if n_patch_prototypes is not None:
            self.patch_layer = Prototypes(bottleneck_dim, n_patch_prototypes, gain)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(..., K)`` of images' features ``(..., in_channels)``."""
        out: Tensor = self.last_layer(self.mlp(x))
        return out

    def forward_patches(self, x: Tensor) -> Tensor:
        """Logits ``(..., K')`` of patches' features ``(..., in_channels)``."""
        layer = self.last_layer if self.patch_layer is None else self.patch_layer
        out: Tensor = layer(self.mlp(x))
        return out
