"""Histograms of oriented gradients, cell by cell and channel by channel.

Dalal and Triggs, CVPR 2005, as the targets of MaskFeat (Wei et al., CVPR 2022, section 3.2).
https://arxiv.org/abs/2112.09133
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from spt_losses._checks import check_count, check_dims
from spt_losses._numerics import no_autocast, widen


@torch.no_grad()
def hog(images: Tensor, *, bins: int = 9, cell: int = 8, window: int | None = None) -> Tensor:
    """Histogram of gradient directions of every cell, of length 1.

    Opposite directions share a bin; magnitudes are added without interpolation between bins. A flat
    cell is 0. Scale and offset of a channel do not matter.

    Args:
        images: Shape ``(N, C, H, W)``.
        bins: Directions between 0 and pi.
        cell: Side of a cell in pixels; it divides H and W.
        window: Side of a Gaussian window in pixels (sigma is half of it) that weights magnitudes
            and is tiled over the image; none in the released models.

    Returns:
        Shape ``(N, C, bins, H / cell, W / cell)``, float32 or wider.

    Raises:
        TypeError: If ``images`` is not of a floating-point dtype.
        ValueError: If its shape does not fit or a setting is out of range.

    Example:
        >>> image = torch.arange(8.0).expand(1, 1, 8, 8)  # brighter to the right
        >>> hog(image, bins=2)[0, 0, :, 0, 0]
        tensor([0., 1.])
    """
    check_dims("images", images, "NCHW")
    check_count("bins", bins)
    for name, side in (("cell", cell), ("window", window)):
        check_count(name, side)
        if side and (images.shape[2] % side or images.shape[3] % side):
            raise ValueError(f"`{name}` {side} must divide the sides {tuple(images.shape[2:])}.")
    with no_autocast(images):
        magnitude, direction = _gradients(widen(images))
        if window:
            magnitude = magnitude * _tiled_gaussian(magnitude, window)
        index = (direction / math.pi * bins).floor().long() % bins  # (N, C, H, W)
        cells = [F.avg_pool2d(magnitude * (index == b), cell) for b in range(bins)]
        return F.normalize(torch.stack(cells, dim=2), dim=2)


def _gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Magnitude and direction (from the vertical) by 3 x 3 Sobel filters."""
    channels = x.shape[1]
    across = x.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]]).expand(channels, 1, 3, 3)
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    gx = F.conv2d(padded, across, groups=channels)
    gy = F.conv2d(padded, across.mT, groups=channels)
    return torch.hypot(gx, gy), torch.atan2(gx, gy)


def _tiled_gaussian(like: Tensor, window: int) -> Tensor:
    n = torch.arange(window, dtype=like.dtype, device=like.device) - (window - 1) / 2
    bell = (-0.5 * (n / (window // 2)).square()).exp()
    rows, columns = (side // window for side in like.shape[2:])
    return torch.outer(bell.repeat(rows), bell.repeat(columns))
