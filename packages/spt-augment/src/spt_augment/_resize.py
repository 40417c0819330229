"""Crop, mirror and antialiased resize, each image by its own box, with torch's filters.

Three kernels give the same result: a loop over rows through ``interpolate`` (fastest on a
processor, above all for uint8), two batched matrix products (few kernels on an accelerator), and
two sums over taps, along the width and along the height, each of which a compiler turns into one
pass. uint8 images are rounded to whole levels after each axis, as torch's own kernel does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Interpolation = Literal["bilinear", "bicubic"]
REACH = {"bilinear": 1, "bicubic": 2}
Size = tuple[int, int]
Caller = Callable[[Callable[..., Tensor], tuple[Tensor, ...], tuple[Hashable, ...]], Tensor]


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
    """All at once: ``rows @ (image @ columns.T)`` with the filter weights of each image."""
    wide = torch.promote_types(images.dtype, torch.float32)
    across, down = _both_lines(images, boxes, flip, size, interpolation, _directly)
    rows = _dense(down, images.shape[-2]).to(wide)
    columns = _dense(across, images.shape[-1]).to(wide)
    with torch.autocast(images.device.type, enabled=False):
        narrow = images.to(wide) @ columns[:, None].mT
        if images.dtype == torch.uint8:
            narrow = _levels(narrow)
        return _like(rows[:, None] @ narrow, images.dtype)


def crop_lines(
    images: Tensor,
    boxes: Tensor,
    flip: Tensor,
    size: Size,
    interpolation: Interpolation,
    call: Caller,
) -> Tensor:
    """All at once, first along the width and then along the height, for a compiler.

    Arguments are those of :func:`crop_resize`; ``call`` runs a function of tensors. The taps are
    functions of their own, since a compiler would compute them anew for every pixel.
    """
    across, down = _both_lines(images, boxes, flip, size, interpolation, call)
    rows = torch.arange(len(boxes), device=images.device)
    narrow = call(resample, (across, rows % len(images), images), (3,))
    return call(resample, (down, rows, narrow), (2,))


def _directly(
    function: Callable[..., Tensor], tensors: tuple[Tensor, ...], fixed: tuple[Hashable, ...]
) -> Tensor:
    return function(*tensors, *fixed)


def _both_lines(
    images: Tensor,
    boxes: Tensor,
    flip: Tensor,
    size: Size,
    interpolation: Interpolation,
    call: Caller,
) -> tuple[Tensor, Tensor]:
    """What :func:`line_taps` says along the width, and along the height."""
    tall, wide = both_taps(images, size, interpolation)
    never = torch.zeros_like(flip)
    across = call(line_taps, (boxes[:, 1], boxes[:, 3], flip), (size[1], interpolation, wide))
    down = call(line_taps, (boxes[:, 0], boxes[:, 2], never), (size[0], interpolation, tall))
    return across, down


def resample(lines: Tensor, source: Tensor, images: Tensor, dim: int) -> Tensor:
    """Resize along one dimension as :func:`line_taps` says, row ``j`` from image ``source[j]``."""
    places = [source, *(torch.arange(n, device=images.device) for n in images.shape[1:])]
    grid = [place.view(-1, *[1] * (3 - axis)) for axis, place in enumerate(places)]
    along = (-1, 1, 1, lines.shape[2]) if dim == 3 else (-1, 1, lines.shape[2], 1)
    first = lines[:, 0].int().view(along)
    total: Tensor | float = 0.0
    for tap in range(lines.shape[1] - 1):
        grid[dim] = (first + tap).clamp(max=images.shape[dim] - 1).clamp(min=0)
        total = total + _pixels(images, grid).float() * lines[:, tap + 1].reshape(along)
    assert isinstance(total, Tensor)
    return _like(total, images.dtype)


def _pixels(images: Tensor, places: list[Tensor]) -> Tensor:
    """``images[places]``, for places that are known to be inside: checks cost more than reads.

    A last ``clamp(min=0)`` tells a compiler that they do not count from the end.
    """
    pixels: Tensor = torch.ops.aten._unsafe_index.Tensor(images, places)
    return pixels


def _like(result: Tensor, dtype: torch.dtype) -> Tensor:
    """In the dtype of the images, uint8 rounded to the nearest level."""
    return (_levels(result) if dtype == torch.uint8 else result).to(dtype)


def _levels(values: Tensor) -> Tensor:
    """Rounded to whole numbers from 0 to 255."""
    return values.round().clamp(0, 255)


def both_taps(images: Tensor, size: Size, interpolation: Interpolation) -> tuple[int, int]:
    """Pixels that a result may depend on, along the height and the width."""
    reach = REACH[interpolation]
    height, width = (
        2 * math.ceil(reach * max(1.0, pixels / out)) + 1
        for pixels, out in zip(images.shape[-2:], size, strict=True)
    )
    return height, width


def line_taps(
    start: Tensor, length: Tensor, turned: Tensor, out: int, interpolation: Interpolation, taps: int
) -> Tensor:
    """Which pixels of a line an antialiased resize of its segments reads, and their weights.

    Args:
        start: First pixel of each segment, ``(B,)``.
        length: Pixels of each segment, ``(B,)``.
        turned: Whether the result is mirrored, bool ``(B,)``.
        out: Pixels after the resize.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
        taps: ``K``, from :func:`both_taps`; a compiler that had to count them from the size of the
            images would compile anew for every size.

    Returns:
        float32 ``(B, 1 + K, out)``: the first pixel, and the weights from there on, which sum to 1.
    """
    reach = REACH[interpolation]
    place = torch.arange(out, device=start.device)
    place = torch.where(turned[:, None], out - 1 - place, place)
    scale = (length.to(torch.float64) / out)[:, None]
    zoom = scale.clamp(min=1.0)
    centre = scale * (place + 0.5)  # (B, out), from the start of the segment
    first = (centre - reach * zoom + 0.5).long().clamp(min=0)
    last = torch.minimum((centre + reach * zoom + 0.5).long(), length[:, None])
    pixel = first[:, None] + torch.arange(taps, device=start.device)[:, None]  # (B, K, out)
    weights = _filter((pixel + 0.5 - centre[:, None]) / zoom[:, None], interpolation)
    weights = torch.where(pixel < last[:, None], weights, 0.0)
    weights = weights / weights.sum(1, keepdim=True)
    begin = first + start[:, None]
    return torch.cat([begin[:, None].float(), weights.float()], dim=1)


def _filter(x: Tensor, interpolation: Interpolation) -> Tensor:
    """Triangle, or Keys' cubic with a = -0.5 as torch's antialiased kernel has it."""
    x = x.abs()
    if interpolation == "bilinear":
        return (1 - x).clamp(min=0)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _dense(lines: Tensor, pixels: int) -> Tensor:
    """Taps as matrices ``(B, out, pixels)``."""
    first, weights = lines[:, :1].long(), lines[:, 1:]
    taps = torch.arange(weights.shape[1], device=lines.device)[:, None]
    place = (first + taps).clamp(max=pixels - 1)
    zeros = weights.new_zeros(len(lines), pixels, lines.shape[2])
    return zeros.scatter_add_(1, place, weights).mT
