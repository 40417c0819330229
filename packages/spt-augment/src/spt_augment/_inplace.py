"""The steps of :mod:`spt_augment._colors` in place, in few passes over memory.

Each takes images ``(B, C, H, W)`` that it may write to, and numbers ``(B, 1, 1, 1)``. A choice is
a mask of floats and ``lerp``, which is exact at 0 and 1: on a processor ``where`` takes ten times
as long as an addition.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spt_augment._colors import GREY_WEIGHTS


def grey(images: Tensor) -> Tensor:
    """Grey values ``(B, 1, H, W)`` of ``(B, 3, H, W)``; a single channel is grey already.

    Raises:
        ValueError: If there are neither 1 nor 3 channels.
    """
    if images.shape[1] == 1:
        return images.clone()
    if images.shape[1] != 3:
        raise ValueError(f"A colour operation needs 1 or 3 channels, got {tuple(images.shape)}.")
    out = images[:, 0:1] * GREY_WEIGHTS[0]
    out.add_(images[:, 1:2], alpha=GREY_WEIGHTS[1])
    return out.add_(images[:, 2:3], alpha=GREY_WEIGHTS[2])


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scale pixels."""
    return images.mul_(factor).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance to each image's mean grey value."""
    mean = grey(images.mean((2, 3), keepdim=True))
    return images.mul_(factor).add_((1 - factor) * mean).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance to the grey image."""
    base = grey(images).mul_(1 - factor)
    return images.mul_(factor).add_(base).clamp_(0, 1)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by ``shift`` turns, within [-0.5, 0.5]."""
    r, g, b = images.split(1, dim=1)
    high, low = torch.maximum(r, g), torch.minimum(r, g)
    torch.maximum(high, b, out=high)
    torch.minimum(low, b, out=low)
    chroma = high - low
    # the sixth of a turn times chroma, by which channel is lowest: green, red or blue
    sector = torch.sub(r, b).add_(chroma, alpha=5)
    scratch = torch.sub(b, g).add_(chroma, alpha=3)
    mask = torch.eq(r, low, out=torch.empty_like(r))
    torch.lerp(sector, scratch, mask, out=sector)
    torch.sub(g, r, out=scratch).add_(chroma)
    torch.eq(b, low, out=mask)
    v = torch.lerp(sector, scratch, mask, out=sector)
    torch.mul(chroma, 6, out=scratch).clamp_(min=1e-20)
    v.div_(scratch).add_(shift)
    v.sub_(torch.floor(v, out=scratch)).mul_(6)
    # clamp(|v - 3| - 1, 0, 1) is clamp(|v - 3|, 1, 2) - 1; the 1 goes into the base
    low.sub_(chroma)
    high.add_(chroma)
    for plane, base, centre, sign in ((r, low, 3, 1), (g, high, 2, -1), (b, high, 4, -1)):
        torch.sub(v, centre, out=scratch).abs_().clamp_(1, 2)
        torch.addcmul(base, scratch, chroma, value=sign, out=plane)
    return images


def solarize(images: Tensor, threshold: float | Tensor) -> Tensor:
    """Invert what is at or above the threshold."""
    return images.lerp_(1 - images, torch.ge(images, threshold, out=torch.empty_like(images)))
