"""Images as rows of patches, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def patchify(x: Tensor, patch_size: int | Sequence[int]) -> Tensor:
    """Cut the last dimensions into patches.

    Args:
        x: Shape ``(..., S_1, ..., S_k)``.
        patch_size: Sides ``(p_1, ..., p_k)`` of a patch; a number stands for two equal sides.

    Returns:
        Shape ``(..., patches, p_1 * ... * p_k)``, patches in row-major order. ``(C, p, p)`` on images
        ``(B, C, H, W)`` gives ``(B, patches, C * p * p)``, channels first within a patch.

    Raises:
        ValueError: If a side does not divide, or there are fewer dimensions than sides.

    Example:
        >>> import torch
        >>> patchify(torch.zeros(2, 3, 8, 8), (3, 4, 4)).shape
        torch.Size([2, 4, 48])
    """
    sides = _sides(patch_size)
    k = len(sides)
    sizes = x.shape[-k:]
    if x.ndim < k or any(size % side for size, side in zip(sizes, sides, strict=True)):
        raise ValueError(
            f"`patch_size` {sides} must divide the last {k} dimensions, got {tuple(x.shape)}."
        )
    lead = x.shape[: x.ndim - k]
    counts = [size // side for size, side in zip(sizes, sides, strict=True)]
    split = [n for pair in zip(counts, sides, strict=True) for n in pair]
    places = [len(lead) + 2 * i for i in range(k)]
    order = [*range(len(lead)), *places, *(place + 1 for place in places)]
    return (
        x.reshape(*lead, *split).permute(order).reshape(*lead, math.prod(counts), math.prod(sides))
    )


def unpatchify(
    patches: Tensor, patch_size: int | Sequence[int], grid_size: Sequence[int] | None = None
) -> Tensor:
    """Put patches together again; the inverse of :func:`patchify`.

    Args:
        patches: Shape ``(..., patches, p_1 * ... * p_k)``.
        patch_size: As for :func:`patchify`.
        grid_size: Number of patches along each dimension. If left out, the grid is taken to be
            uniform, after a leading dimension of one patch for ``(C, p, p)``.

    Returns:
        Shape ``(..., S_1, ..., S_k)``.

    Raises:
        ValueError: If the patches do not fit the grid or the size, or no uniform grid exists.
    """
    sides = _sides(patch_size)
    *lead, number, width = patches.shape
    counts = tuple(grid_size) if grid_size is not None else _uniform_grid(number, len(sides))
    if math.prod(counts) != number or len(counts) != len(sides) or math.prod(sides) != width:
        raise ValueError(
            f"Patches of shape {tuple(patches.shape)} do not fit `patch_size` {sides} on a grid of "
            f"{counts}; give `grid_size`."
        )
    k = len(sides)
    x = patches.reshape(*lead, *counts, *sides)
    first = len(lead)
    order = [*range(first), *(first + i + j * k for i in range(k) for j in range(2))]
    sizes = [count * side for count, side in zip(counts, sides, strict=True)]
    return x.permute(order).reshape(*lead, *sizes)


def _sides(patch_size: int | Sequence[int]) -> tuple[int, ...]:
    sides = (patch_size, patch_size) if isinstance(patch_size, int) else tuple(patch_size)
    if not sides or min(sides) < 1:
        raise ValueError(f"`patch_size` must hold sides >= 1, got {patch_size}.")
    return sides


def _uniform_grid(number: int, k: int) -> tuple[int, ...]:
    """As many patches along each axis; along the last two where the first is the channels."""
    free = 2 if k == 3 else k
    side = round(number ** (1 / free))
    if side**free != number:
        raise ValueError(f"{number} patches form no uniform grid; give `grid_size`.")
    return (1,) * (k - free) + (side,) * free
