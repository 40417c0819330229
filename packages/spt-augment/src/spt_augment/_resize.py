"""Crop, mirror and antialiased resize, each image by its own box, with torch's filters.

Three kernels give the same result: a loop over rows through ``interpolate`` (fastest on a
processor, above all for uint8), two batched matrix products (few kernels on an accelerator), and
a sum over the taps that a compiler turns into one pass.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Interpolation = Literal["bilinear", "bicubic"]
REACH = {"bilinear": 1, "bicubic": 2}
Size = tuple[int, int]


def crop_resize(
    images: Tensor,
    boxes: Tensor,
    size: Size,
    *,
    flip: Tensor | None = None,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """Crop each image to its own box, resize it antialiased to one size, and mirror it or not.

    Args:
        images: Float or uint8 images ``(B, C, H, W)``.
        boxes: int64 ``(V * B, 4)``: top, left, height, width in pixels, inside the image; row
            ``j`` is cut from image ``j % B``, so that several views need no copies.
        size: Output height and width.
        flip: Which results are mirrored left to right, bool ``(V * B,)``.
        interpolation: ``"bilinear"`` or ``"bicubic"``.

    Returns:
        Images ``(V * B, C, *size)`` in the dtype of the input.
    """
    if images.device.type == "cpu":
        rows = range(len(boxes))
        turned = [False] * len(boxes) if flip is None else flip.tolist()
        return crop_rows(images, rows, boxes.tolist(), turned, size, interpolation)
    if flip is None:
        flip = torch.zeros(len(boxes), dtype=torch.bool, device=images.device)
    parts = zip(boxes.split(len(images)), flip.split(len(images)), strict=True)
    return torch.cat([crop_matmul(images, *part, size, interpolation) for part in parts])


def crop_rows(
    images: Tensor,
    rows: range,
    boxes: list[list[int]],
    flip: list[bool],
    size: Size,
    interpolation: Interpolation,
) -> Tensor:
    """One image after the other, on a processor; ``rows`` are taken modulo the batch."""
    out = images.new_empty(len(boxes), images.shape[1], *size)
    packed = images.dtype == torch.uint8 and images.shape[1] == 3
    wide = images if packed or images.dtype != torch.half else images.float()
    for row, (top, left, height, width), turned, result in zip(rows, boxes, flip, out, strict=True):
        cut = wide[row % len(images), :, top : top + height, left : left + width][None]
        if packed:  # torch's uint8 kernel is written for interleaved channels
            cut = cut.contiguous(memory_format=torch.channels_last)
        resized = F.interpolate(cut, size, mode=interpolation, antialias=True)[0]
        result.copy_(resized.flip(-1) if turned else resized)
    return out


def crop_matmul(
    images: Tensor, boxes: Tensor, flip: Tensor, size: Size, interpolation: Interpolation
) -> Tensor:
    """All at once: ``rows @ image @ columns.T`` with the filter weights of each image."""
    wide = torch.promote_types(images.dtype, torch.float32)
    taps = both_taps(images, size, interpolation)
    ys, wy, xs, wx = _both_axes(images, boxes, flip, size, interpolation, taps)
    rows = _dense(ys, wy, images.shape[-2]).to(wide)
    columns = _dense(xs, wx, images.shape[-1]).to(wide)
    with torch.autocast(images.device.type, enabled=False):
        return _like(rows[:, None] @ images.to(wide) @ columns[:, None].mT, images)


def crop_taps(
    images: Tensor,
    boxes: Tensor,
    flip: Tensor,
    size: Size,
    interpolation: Interpolation,
    taps: tuple[int, int],
) -> Tensor:
    """All at once, pixel by pixel: what a compiler makes one kernel of.

    ``taps`` come from :func:`both_taps`; a compiler that had to count them from the size of the
    images would compile anew for every size.
    """
    ys, wy, xs, wx = _both_axes(images, boxes, flip, size, interpolation, taps)
    sample = torch.arange(len(images), device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(images.shape[1], device=images.device).view(1, -1, 1, 1)
    out: Tensor | float = 0.0
    for k in range(ys.shape[-1]):
        line: Tensor | float = 0.0
        for j in range(xs.shape[-1]):
            pixels = images[sample, channel, ys[:, None, :, None, k], xs[:, None, None, :, j]]
            line = line + pixels.float() * wx[:, None, None, :, j]
        out = out + line * wy[:, None, :, None, k]
    assert isinstance(out, Tensor)
    return _like(out, images)


def _like(result: Tensor, images: Tensor) -> Tensor:
    """In the dtype of floats; uint8 becomes a float in [0, 1], as its own kernel clamps too."""
    if images.dtype == torch.uint8:
        return (result * (1 / 255)).clamp(0, 1)
    return result.to(images.dtype)


def both_taps(images: Tensor, size: Size, interpolation: Interpolation) -> tuple[int, int]:
    """Pixels that a result may depend on, along the height and the width."""
    reach = REACH[interpolation]
    height, width = (
        2 * math.ceil(reach * max(1.0, pixels / out)) + 1
        for pixels, out in zip(images.shape[-2:], size, strict=True)
    )
    return height, width


def _both_axes(
    images: Tensor,
    boxes: Tensor,
    flip: Tensor,
    size: Size,
    interpolation: Interpolation,
    taps: tuple[int, int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    height, width = images.shape[-2:]
    ys, wy = resize_taps(boxes[:, 0], boxes[:, 2], height, size[0], interpolation, taps[0])
    xs, wx = resize_taps(boxes[:, 1], boxes[:, 3], width, size[1], interpolation, taps[1])
    turned = flip.view(-1, 1, 1)
    return ys, wy, torch.where(turned, xs.flip(1), xs), torch.where(turned, wx.flip(1), wx)


def resize_taps(
    start: Tensor, length: Tensor, pixels: int, out: int, interpolation: Interpolation, taps: int
) -> tuple[Tensor, Tensor]:
    """Which pixels of a line an antialiased resize of its segments reads, and their weights.

    Args:
        start: First pixel of each segment, ``(B,)``.
        length: Pixels of each segment, ``(B,)``.
        pixels: Pixels of the whole line.
        out: Pixels after the resize.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
        taps: ``K``, from :func:`both_taps`.

    Returns:
        Pixels int64 and weights float32, both ``(B, out, K)``; the weights sum to 1.
    """
    reach = REACH[interpolation]
    scale = (length.to(torch.float64) / out).view(-1, 1, 1)
    zoom = scale.clamp(min=1.0)
    centre = scale * (torch.arange(out, device=start.device) + 0.5)[:, None]  # (B, out, 1)
    first = (centre - reach * zoom + 0.5).long().clamp(min=0)
    last = torch.minimum((centre + reach * zoom + 0.5).long(), length.view(-1, 1, 1))
    pixel = first + torch.arange(taps, device=start.device)  # (B, out, K), within the segment
    weights = _filter((pixel + 0.5 - centre) / zoom, interpolation)
    weights = torch.where(pixel < last, weights, 0.0)
    weights = weights / weights.sum(-1, keepdim=True)
    return (pixel + start.view(-1, 1, 1)).clamp(max=pixels - 1), weights.float()


def _filter(x: Tensor, interpolation: Interpolation) -> Tensor:
    """Triangle, or Keys' cubic with a = -0.5 as torch's antialiased kernel has it."""
    x = x.abs()
    if interpolation == "bilinear":
        return (1 - x).clamp(min=0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _dense(index: Tensor, weights: Tensor, pixels: int) -> Tensor:
    """Taps as matrices ``(B, out, pixels)``."""
    zeros = weights.new_zeros(*weights.shape[:2], pixels)
    return zeros.scatter_add_(2, index, weights)
