"""Convolution, norm and attention over videos that never look ahead.

Yu et al., "Language Model Beats Diffusion: Tokenizer is Key to Visual Generation" (MAGVIT-v2),
ICLR 2024, section 3.2, https://arxiv.org/abs/2310.05737; NVIDIA, "Cosmos World Foundation Model
Platform for Physical AI", 2025, section 4.1, https://arxiv.org/abs/2501.03575, official code
https://github.com/NVIDIA/Cosmos-Tokenizer.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Triple = tuple[int, int, int]


class CausalConv3d(nn.Conv3d):
    """A convolution whose frame ``t`` reads the frames up to ``t * stride``.

    In time it is padded on the left by the first frame, as Cosmos does (MAGVIT-v2 pads zeros), so
    that a still image and a still video agree; in space by zeros on all sides.

    Args:
        in_channels: Channels of the video.
        out_channels: Channels of the result.
        kernel_size: Frames, rows, columns; odd in space.
        stride: Of time, rows, columns.
        bias: Whether there is one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Triple = 3,
        stride: int | Triple = 1,
        bias: bool = True,
    ) -> None:
        kernel = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size
        space = (0, kernel[1] // 2, kernel[2] // 2)
        super().__init__(in_channels, out_channels, kernel, stride, space, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(B, C, T, H, W)``."""
        before = self.kernel_size[0] - 1
        if before:
            x = torch.cat([x[:, :, :1].expand(-1, -1, before, -1, -1), x], dim=2)
        return super().forward(x)


class GroupNormPerFrame(nn.GroupNorm):
    """GroupNorm with the statistics of each frame by itself, which no later frame can change.

    Args:
        num_channels: Channels.
        num_groups: Groups of channels; as many as divide, at most this.
    """

    def __init__(self, num_channels: int, num_groups: int = 32) -> None:
        super().__init__(math.gcd(num_groups, num_channels), num_channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(B, C, T, H, W)``."""
        b, _, t = x.shape[:3]
        frames = x.transpose(1, 2).flatten(0, 1)
        return super().forward(frames).unflatten(0, (b, t)).transpose(1, 2)


def convolution(
    inner: int, outer: int, *, factorized: bool, stride: Triple = (1, 1, 1)
) -> nn.Module:
    """3 x 3 x 3, or a 3 x 3 in space followed by a 3 in time."""
    if not factorized:
        return CausalConv3d(inner, outer, 3, stride)
    return nn.Sequential(
        CausalConv3d(inner, outer, (1, 3, 3), (1, *stride[1:])),
        CausalConv3d(outer, outer, (3, 1, 1), (stride[0], 1, 1)),
    )


class ResidualBlock3d(nn.Module):
    """Twice norm, SiLU and causal convolution, around a residual.

    Args:
        inner: Channels that come in.
        outer: Channels that go out.
        factorized: See :func:`convolution`.
    """

    def __init__(self, inner: int, outer: int, *, factorized: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            GroupNormPerFrame(inner),
            nn.SiLU(),
            convolution(inner, outer, factorized=factorized),
            GroupNormPerFrame(outer),
            nn.SiLU(),
            convolution(outer, outer, factorized=factorized),
        )
        self.skip = nn.Identity() if inner == outer else CausalConv3d(inner, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Of ``(B, inner, T, H, W)``."""
        out: Tensor = self.skip(x) + self.body(x)
        return out


class AxisAttention(nn.Module):
    """One head of attention among the places of a frame, or among the past of a place.

    Args:
        channels: Width.
        axis: ``"space"``, or ``"time"``, which is causal.
    """

    def __init__(self, channels: int, axis: Literal["space", "time"]) -> None:
        super().__init__()
        self.axis = axis
        self.norm = GroupNormPerFrame(channels)
        self.qkv = CausalConv3d(channels, 3 * channels, 1)
        self.proj = CausalConv3d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Of ``(B, C, T, H, W)``."""
        b, _, t, h, w = x.shape
        tokens = self.qkv(self.norm(x)).permute(0, 2, 3, 4, 1)  # (B, T, H, W, 3 C)
        if self.axis == "space":
            rows = tokens.reshape(b * t, h * w, -1)
        else:
            rows = tokens.permute(0, 2, 3, 1, 4).reshape(b * h * w, t, -1)
        q, k, v = rows.chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.axis == "time")
        if self.axis == "space":
            back = mixed.view(b, t, h, w, -1).permute(0, 4, 1, 2, 3)
        else:
            back = mixed.view(b, h, w, t, -1).permute(0, 4, 3, 1, 2)
        out: Tensor = x + self.proj(back)
        return out
