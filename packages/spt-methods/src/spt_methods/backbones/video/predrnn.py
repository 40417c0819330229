"""PredRNN-v2: stacked recurrent cells whose second memory climbs the stack and goes on at its foot.

Wang et al., "PredRNN: A Recurrent Neural Network for Spatiotemporal Predictive Learning", TPAMI
2022, https://arxiv.org/abs/2103.09504, eqs. 3 and 5; official code
https://github.com/thuml/predrnn-pytorch, ``core/layers/SpatioTemporalLSTMCell_v2.py``. The gradient
highway is that of PredRNN++, Wang et al., ICML 2018, https://arxiv.org/abs/1804.06300, eq. 4.

Deviations: GroupNorm over one group for LayerNorm over channels, rows and columns, so that frames of any
size fit; no decoder to the next frame.
"""

from __future__ import annotations

from typing import NamedTuple

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

FORGET_BIAS = 1.0


def _conv(inner: int, outer: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inner, outer, kernel_size, padding=kernel_size // 2, bias=False),
        nn.GroupNorm(1, outer),
    )


class CellState(NamedTuple):
    """What a cell hands on, each ``(B, D, H, W)``.

    Attributes:
        hidden: H.
        cell: C, the memory of this layer.
        memory: M, the memory that climbs the stack.
        cell_change: What was added to C.
        memory_change: What was added to M.
    """

    hidden: Tensor
    cell: Tensor
    memory: Tensor
    cell_change: Tensor
    memory_change: Tensor


class STLSTMCell(nn.Module):
    """The spatiotemporal LSTM cell, eq. 3.

    Args:
        inner: Channels of its input.
        hidden: Channels of its state.
        kernel_size: Odd.
    """

    def __init__(self, inner: int, hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.of_input = _conv(inner, 7 * hidden, kernel_size)
        self.of_hidden = _conv(hidden, 4 * hidden, kernel_size)
        self.of_memory = _conv(hidden, 3 * hidden, kernel_size)
        self.of_both = _conv(2 * hidden, hidden, kernel_size)
        self.last = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor, memory: Tensor) -> CellState:
        """One step: the input ``(B, inner, H, W)`` and the three states ``(B, hidden, H, W)``."""
        i_x, f_x, g_x, i2_x, f2_x, g2_x, o_x = self.of_input(x).chunk(7, dim=1)
        i_h, f_h, g_h, o_h = self.of_hidden(hidden).chunk(4, dim=1)
        i_m, f_m, g_m = self.of_memory(memory).chunk(3, dim=1)
        cell_change = torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h)
        cell = torch.sigmoid(f_x + f_h + FORGET_BIAS) * cell + cell_change
        memory_change = torch.sigmoid(i2_x + i_m) * torch.tanh(g2_x + g_m)
        memory = torch.sigmoid(f2_x + f_m + FORGET_BIAS) * memory + memory_change
        both = torch.cat([cell, memory], dim=1)
        gate = torch.sigmoid(o_x + o_h + self.of_both(both))
        return CellState(
            gate * torch.tanh(self.last(both)), cell, memory, cell_change, memory_change
        )


class GradientHighway(nn.Module):
    """A gated path through time beside the cells.

    Args:
        hidden: Channels.
        kernel_size: Odd.
    """

    def __init__(self, hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.of_input = _conv(hidden, 2 * hidden, kernel_size)
        self.of_highway = _conv(hidden, 2 * hidden, kernel_size)

    def forward(self, x: Tensor, highway: Tensor) -> Tensor:
        """Z of this frame, from the input and Z of the last one, ``(B, hidden, H, W)`` each."""
        p, s = (self.of_input(x) + self.of_highway(highway)).chunk(2, dim=1)
        return torch.lerp(highway, torch.tanh(p), torch.sigmoid(s))


class PredRNNv2(nn.Module):
    """Encode videos frame by frame; a frame's features depend on no later frame.

    Args:
        hidden_channels: Channels of each layer's state.
        num_layers: Cells on top of each other.
        kernel_size: Side of the convolutions, odd.
        num_frames: Longest video that is taken, since all steps are held for the gradient.
        patch_size: Squares of so many pixels become channels.
        use_ghu: Put a gradient highway between the first and the second layer.
        return_decouple_loss: Also return the mean absolute cosine between what is added to the two
            memories, eq. 5, which their training adds with a weight.
        in_channels: Channels of the video.
        global_pool: ``"avg"``, or ``""`` for no pooled features.

    Attributes:
        embed_dim: Width of the features.
        num_features: The same.

    Raises:
        ValueError: If the kernel is even, there is no second layer for the highway, or the pooling
            is unknown; at a call, if the video is too long or does not divide into patches.

    Example:
        >>> net = PredRNNv2(8, num_layers=2, patch_size=4, return_decouple_loss=True)
        >>> features = net(torch.zeros(2, 3, 5, 16, 16))
        >>> features.feature_map.shape
        torch.Size([2, 8, 5, 4, 4])
    """

    def __init__(
        self,
        hidden_channels: int = 64,
        num_layers: int = 4,
        kernel_size: int = 3,
        num_frames: int = 16,
        patch_size: int = 1,
        use_ghu: bool = True,
        return_decouple_loss: bool = False,
        in_channels: int = 3,
        global_pool: Pool = "avg",
    ) -> None:
        super().__init__()
        check_pool(global_pool)
        if kernel_size % 2 == 0:
            raise ValueError(f"`kernel_size` must be odd, got {kernel_size}.")
        if use_ghu and num_layers < 2:
            raise ValueError(f"`use_ghu` needs at least 2 layers, got {num_layers}.")
        self.in_channels, self.num_frames, self.patch_size = in_channels, num_frames, patch_size
        self.return_decouple_loss, self.global_pool = return_decouple_loss, global_pool
        self.embed_dim = self.num_features = hidden_channels
        first = in_channels * patch_size**2
        self.cells = nn.ModuleList(
            STLSTMCell(hidden_channels if layer else first, hidden_channels, kernel_size)
            for layer in range(num_layers)
        )
        self.highway = GradientHighway(hidden_channels, kernel_size) if use_ghu else None
        self.adapter = nn.Conv2d(hidden_channels, hidden_channels, 1, bias=False)
        self.adapter.requires_grad_(return_decouple_loss)

    def forward(self, x: Tensor) -> VideoFeatures:
        """Of videos ``(B, C, T, H, W)``.

        Raises:
            ValueError: If the shape does not fit.
        """
        frames = self._patches(x)  # (B, T, C p p, H / p, W / p)
        zeros = frames.new_zeros(len(frames), self.embed_dim, *frames.shape[3:])
        hidden, cell = [zeros] * len(self.cells), [zeros] * len(self.cells)
        memory, highway = zeros, zeros
        outputs, losses = [], []
        for frame in frames.unbind(1):
            below = frame
            for layer, module in enumerate(self.cells):
                state: CellState = module(below, hidden[layer], cell[layer], memory)
                hidden[layer], cell[layer], memory = state[:3]
                below = state.hidden
                if layer == 0 and self.highway is not None:
                    below = highway = self.highway(below, highway)
                if self.return_decouple_loss:
                    losses.append(self._likeness(state))
            outputs.append(hidden[-1])
        feature_map = torch.stack(outputs, dim=2)
        loss = torch.stack(losses).mean() if losses else None
        pooled = mean_of_map(feature_map, self.global_pool)
        return VideoFeatures(feature_map, pooled, decouple_loss=loss)

    def _patches(self, x: Tensor) -> Tensor:
        check_video(x, self.in_channels, "PredRNNv2")
        frames, p = x.shape[2], self.patch_size
        if frames > self.num_frames:
            raise ValueError(
                f"The video has {frames} frames, more than `num_frames` ({self.num_frames})."
            )
        if x.shape[3] % p or x.shape[4] % p:
            raise ValueError(
                f"Frames of {tuple(x.shape[3:])} do not divide into patches of {p} pixels."
            )
        return F.pixel_unshuffle(x.transpose(1, 2), p)

    def _likeness(self, state: CellState) -> Tensor:
        """Mean absolute cosine of the two changes, channel by channel."""
        changes = (state.cell_change, state.memory_change)
        a, b = (self.adapter(change).flatten(2) for change in changes)
        return F.cosine_similarity(a, b, dim=2).abs().mean()
