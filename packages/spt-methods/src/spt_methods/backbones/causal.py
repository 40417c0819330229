"""Who may look at whom in an autoregressive transformer, and one that looks backwards only.

El-Nouby et al., "Scalable Pre-training of Large Autoregressive Image Models", ICML 2024, section 3.2
(attention to a whole prefix). https://arxiv.org/abs/2401.08541; official code
https://github.com/apple/ml-aim, ``PrefixCausalAttention``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spt_methods.backbones.vit_tokens import ViTTokens


def blocked_future(
    length: int,
    prefix_length: Tensor | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """True where a query (row) may not look at a key (column): at the future beyond the prefix.

    The only place that makes such masks. True blocks, as in all our blocks; functions of torch and of
    timm take True for "may look", so they are given ``~blocked``.

    Args:
        length: Tokens.
        prefix_length: Tokens at the start that everybody may look at, int64 of shape ``(B,)``.
        device: Where to make it; that of ``prefix_length`` if there is one.

    Returns:
        Shape ``(length, length)``, or ``(B, 1, length, length)`` with prefixes.

    Example:
        >>> blocked_future(3).int().tolist()
        [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
        >>> blocked_future(3, torch.tensor([2]))[0, 0].int().tolist()
        [[0, 0, 1], [0, 0, 1], [0, 0, 0]]
    """
    device = device if prefix_length is None else prefix_length.device
    place = torch.arange(length, device=device)
    future = place > place[:, None]
    if prefix_length is None:
        return future
    beyond = place >= prefix_length[:, None]  # (B, length)
    return (future & beyond[:, None]).unsqueeze(1)


class Sequence(NamedTuple):
    """A causal pass.

    Attributes:
        embedding: Mean of the patches' outputs, shape ``(B, D)``.
        inputs: Tokens before the first block, prefix first, shape ``(B, T, D)``.
        outputs: Tokens after the last norm, shape ``(B, T, D)``.
    """

    embedding: Tensor
    inputs: Tensor
    outputs: Tensor


class PrefixViT(ViTTokens):
    """A :class:`ViTTokens` that can see an image as AIM does: a prefix both ways, the rest backwards."""

    def prefix_outputs(self, images: Tensor, prefix_length: Tensor | None = None) -> list[Tensor]:
        """The tokens after each block, before the norm, each ``(B, T, D)``.

        Args:
            images: Shape ``(B, C, H, W)``.
            prefix_length: Tokens that every token sees, int64 of shape ``(B,)``; all if ``None``.
        """
        x, rope = self._embed(images, None, None)
        if prefix_length is None:
            return self.blocks_of(x, rope)
        return self.blocks_of(x, rope, blocked_future(x.shape[1], prefix_length))


class CausalViT(ViTTokens):
    """A :class:`ViTTokens` whose tokens see themselves and those before them, always.

    Prefix tokens come first, then the patches in raster order. The embedding is the mean over
    patches, whatever the transformer pools: its class token sees nothing but itself.
    """

    def sequence(self, images: Tensor) -> Sequence:
        """What went in and what came out, token by token, of images ``(B, C, H, W)``."""
        inputs, rope = self._embed(images, None, None)
        outputs = self.norm(self.blocks_of(inputs, rope)[-1])
        return Sequence(self.pool(outputs), inputs, outputs)

    def blocks_of(
        self, x: Tensor, rope: Tensor | None = None, blocked: Tensor | None = None
    ) -> list[Tensor]:
        """As :meth:`ViTTokens.blocks_of`, with the future blocked unless ``blocked`` says what is."""
        if blocked is None:
            blocked = blocked_future(x.shape[1], device=x.device)
        return super().blocks_of(x, rope, blocked)

    def pool(self, tokens: Tensor) -> Tensor:
        """The mean over patches, shape ``(B, D)``, of tokens after the norm."""
        return tokens[:, self.num_prefix_tokens :].mean(1)
