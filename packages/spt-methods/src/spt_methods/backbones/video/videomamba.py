"""VideoMamba: selective state spaces over the patches of a video.

Li et al., "VideoMamba: State Space Model for Efficient Video Understanding", ECCV 2024,
https://arxiv.org/abs/2403.06977, section 3; official code https://github.com/OpenGVLab/VideoMamba. The
block is that of Gu and Dao, https://arxiv.org/abs/2312.00752; official code
https://github.com/state-spaces/mamba, whose initial values are taken.

Deviations: no class token, which reads nothing at the head of a causal sequence; the scan is the one of
:func:`selective_scan`, in torch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spt_methods.backbones.video._features import (
    Pool,
    VideoFeatures,
    check_pool,
    check_video,
    mean_of_map,
)
from spt_methods.backbones.video.selective_scan import selective_scan

EXPAND, KERNEL = 2, 4
SHORTEST_STEP, LONGEST_STEP = 1e-3, 1e-1


class StateSpace(nn.Module):
    """Convolution, selective scan and gate in one direction, on ``(B, L, inner)``.

    Args:
        inner: Width.
        d_state: States N of each channel.
        dt_rank: Width from which step sizes are made.
    """

    def __init__(self, inner: int, d_state: int, dt_rank: int) -> None:
        super().__init__()
        self.sizes = (dt_rank, d_state, d_state)
        self.conv = nn.Conv1d(inner, inner, KERNEL, groups=inner)
        self.parameters_of = nn.Linear(inner, sum(self.sizes), bias=False)
        self.step = nn.Linear(dt_rank, inner)
        self.log_decay = nn.Parameter(torch.arange(1, d_state + 1.0).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        nn.init.uniform_(self.step.weight, -(dt_rank**-0.5), dt_rank**-0.5)
        low, high = math.log(SHORTEST_STEP), math.log(LONGEST_STEP)
        steps = torch.empty(inner).uniform_(low, high).exp()
        with torch.no_grad():
            self.step.bias.copy_(steps + (-torch.expm1(-steps)).log())  # softplus of it is `steps`

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """Of ``x`` and ``gate``, both ``(B, L, inner)``."""
        padded = F.pad(x.transpose(1, 2), (KERNEL - 1, 0))
        x = F.silu(self.conv(padded)).transpose(1, 2)
        low_rank, b, c = self.parameters_of(x).split(self.sizes, dim=-1)
        with torch.autocast(x.device.type, enabled=False):  # exponentials of sums need float32
            wide = torch.promote_types(x.dtype, torch.float32)
            u, low_rank, b, c, weight, bias, log_decay = (
                z.to(wide)
                for z in (x, low_rank, b, c, self.step.weight, self.step.bias, self.log_decay)
            )
            delta = F.softplus(F.linear(low_rank, weight, bias))
            y = selective_scan(u, delta, -log_decay.exp(), b, c).to(x.dtype)
        return (y + self.skip * x) * F.silu(gate)


class MambaBlock(nn.Module):
    """RMS norm, one or two state spaces and a projection, around a residual.

    Args:
        dim: Width of the tokens.
        d_state: States of each channel.
        causal: Scan forwards only; else also backwards, with parameters of its own.
    """

    def __init__(self, dim: int, d_state: int, *, causal: bool) -> None:
        super().__init__()
        inner, dt_rank = EXPAND * dim, math.ceil(dim / 16)
        self.norm = nn.RMSNorm(dim, eps=1e-5)
        self.into = nn.Linear(dim, 2 * inner, bias=False)
        self.forwards = StateSpace(inner, d_state, dt_rank)
        self.backwards = None if causal else StateSpace(inner, d_state, dt_rank)
        self.out = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Of tokens ``(B, L, dim)``."""
        inner, gate = self.into(self.norm(x)).chunk(2, dim=-1)
        y = self.forwards(inner, gate)
        if self.backwards is not None:
            y = y + self.backwards(inner.flip(1), gate.flip(1)).flip(1)
        out: Tensor = x + self.out(y)
        return out


class VideoMamba(nn.Module):
    """Patches in raster order, frame after frame, through a stack of Mamba blocks.

    Args:
        img_size: Side of a frame.
        num_frames: Frames of a video.
        patch_size: Frames, rows and columns of a patch.
        embed_dim: Width D.
        depth: Blocks.
        d_state: States of each channel.
        causal: Scan forwards only: no patch then depends on a later one. The published models scan
            both ways.
        in_channels: Channels of the video.
        global_pool: ``"avg"``, or ``""`` for no pooled features.

    Attributes:
        embed_dim: Width of the features.
        num_features: The same.

    Raises:
        ValueError: If sizes do not divide or the pooling is unknown; at a call, if the video has
            another size.

    Example:
        >>> net = VideoMamba(16, 4, (2, 8, 8), embed_dim=32, depth=1)
        >>> net(torch.zeros(2, 3, 4, 16, 16)).feature_map.shape
        torch.Size([2, 32, 2, 2, 2])
    """

    def __init__(
        self,
        img_size: int = 224,
        num_frames: int = 16,
        patch_size: tuple[int, int, int] = (1, 16, 16),
        embed_dim: int = 192,
        depth: int = 24,
        d_state: int = 16,
        causal: bool = True,
        in_channels: int = 3,
        global_pool: Pool = "avg",
    ) -> None:
        super().__init__()
        check_pool(global_pool)
        self.video_size = (num_frames, img_size, img_size)
        if any(size % patch for size, patch in zip(self.video_size, patch_size, strict=True)):
            raise ValueError(f"{self.video_size} does not divide into patches of {patch_size}.")
        self.in_channels, self.global_pool = in_channels, global_pool
        self.embed_dim = self.num_features = embed_dim
        frames, rows, columns = (
            size // patch for size, patch in zip(self.video_size, patch_size, strict=True)
        )
        self.patch_embed = nn.Conv3d(in_channels, embed_dim, patch_size, patch_size)
        self.pos_embed = nn.Parameter(torch.empty(1, 1, rows * columns, embed_dim))
        self.time_embed = nn.Parameter(torch.zeros(1, frames, 1, embed_dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        blocks = [MambaBlock(embed_dim, d_state, causal=causal) for _ in range(depth)]
        with torch.no_grad():
            for block in blocks:  # as GPT-2: the residuals of all blocks add up
                block.out.weight.div_(math.sqrt(depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.RMSNorm(embed_dim, eps=1e-5)

    def forward(self, x: Tensor) -> VideoFeatures:
        """Of videos ``(B, C, T, H, W)``.

        Raises:
            ValueError: If the shape is another one.
        """
        check_video(x, self.in_channels, "VideoMamba")
        if tuple(x.shape[2:]) != self.video_size:
            raise ValueError(
                f"VideoMamba was made for videos of {self.video_size}, got {tuple(x.shape[2:])}."
            )
        patches = self.patch_embed(x)  # (B, D, T', H', W')
        tokens = patches.flatten(3).permute(0, 2, 3, 1) + self.pos_embed + self.time_embed
        tokens = tokens.flatten(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        feature_map = self.norm(tokens).transpose(1, 2).reshape(patches.shape)
        return VideoFeatures(feature_map, mean_of_map(feature_map, self.global_pool))
