"""The operations of RandAugment on float batches, as torchvision defines them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep ``bits`` ``(B, 1, 1, 1)`` bits of each pixel."""
    levels = torch.exp2(bits)
    return (images * levels).floor().clamp(min=0).minimum(levels - 1) / levels


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel of each image to [0, 1]; a constant one is left alone."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    constant = low == high
    span = torch.where(constant, 1.0, high - low)
    return ((images - torch.where(constant, 0.0, low)) / span).clamp(0, 1)


def equalize(images: Tensor) -> Tensor:
    """Flatten the histogram of each channel of each image, on its 256 levels."""
    levels = (images.clamp(0, 1) * (256 - 1e-3)).long().flatten(2)  # (B, C, P)
    counts = levels.new_zeros(*levels.shape[:2], 256)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    used = counts > 0
    highest = torch.where(used, torch.arange(256, device=images.device), -1).amax(2, keepdim=True)
    step = (levels.shape[2] - counts.gather(2, highest)) // 255
    before = counts.cumsum(2) - counts
    table = (before + step // 2) // step.clamp(min=1)
    result = table.clamp(0, 255).gather(2, levels)
    result = torch.where(step > 0, result, levels)
    return (result / 255).to(images.dtype).view_as(images)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance to a smoothed image; the outermost pixels stay."""
    if min(images.shape[-2:]) <= 2:
        return images
    channels = images.shape[1]
    kernel = images.new_full((3, 3), 1 / 13)
    kernel[1, 1] = 5 / 13
    inner = F.conv2d(images, kernel.expand(channels, 1, 3, 3), groups=channels)
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = inner
    return (factor * images + (1 - factor) * smooth).clamp(0, 1)
