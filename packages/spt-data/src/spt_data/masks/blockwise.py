"""Block-wise masks: rectangles until enough patches are covered.

BEiT: Bao et al., ICLR 2022, algorithm 1. https://arxiv.org/abs/2106.08254, and its official
code, microsoft/unilm beit/masking_generator.py.
iBOT: Zhou et al., ICLR 2022. https://arxiv.org/abs/2111.07832, bytedance/ibot loader.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spt_data.masks._grid import GridMask, check_patch_size, grid_of

Range = tuple[float, float]
ASPECT: Range = (0.3, 1 / 0.3)
TRIES = 10  # for one block, before drawing stops


def blockwise_mask(
    height: int,
    width: int,
    num_masked: float,
    *,
    min_block: float = 16,
    max_block: float | None = None,
    aspect_ratio: Range = ASPECT,
    exact: bool = False,
) -> Tensor:
    """Paint rectangles until about ``num_masked`` patches are covered, never more.

    A rectangle's area is uniform between ``min_block`` and what is still missing, its aspect
    log-uniform. After ten tries that add nothing, or too much, drawing stops.

    Args:
        height: Rows of patches.
        width: Columns of patches.
        num_masked: Patches to cover.
        min_block: Smallest area that is asked for; a rectangle may come out smaller by rounding,
            and when less is missing.
        max_block: Largest area that is asked for.
        aspect_ratio: Range of height over width.
        exact: Complete the mask with single random patches, as BEiT v2 does.

    Returns:
        Bool ``(height, width)``, True where masked.

    Raises:
        ValueError: If more patches are to be masked than there are.
    """
    if not 0 <= num_masked <= height * width:
        raise ValueError(
            f"`num_masked` must be between 0 and the {height * width} patches of the grid, got "
            f"{num_masked}."
        )
    mask = np.zeros((height, width), dtype=bool)
    covered = 0
    while covered < num_masked:
        most = min(num_masked - covered, math.inf if max_block is None else max_block)
        added = _add_block(mask, min_block, most, aspect_ratio)
        if not added:
            break
        covered += added
    result = torch.from_numpy(mask)
    if exact and covered < num_masked:
        free = (~result).flatten().nonzero()[:, 0]
        chosen = free[torch.randperm(len(free))[: int(num_masked) - covered]]
        result.view(-1)[chosen] = True
    return result


def _add_block(mask: Any, least: float, most: float, aspect_ratio: Range) -> int:
    """Paint one rectangle; the number of patches it adds, 0 if none of the tries fits."""
    low, high = map(math.log, aspect_ratio)
    rows, columns = mask.shape
    for _ in range(TRIES):
        u = torch.rand(4, dtype=torch.float64).tolist()
        area, aspect = least + u[0] * (most - least), math.exp(low + u[1] * (high - low))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= rows or width >= columns:
            continue
        top, left = int(u[2] * (rows - height + 1)), int(u[3] * (columns - width + 1))
        block = mask[top : top + height, left : left + width]
        added = height * width - int(block.sum())
        if 0 < added <= most:
            block[:] = True
            return added
    return 0


class BlockwiseMask(GridMask):
    """The mask of BEiT.

    Args:
        patch_size: Side of a patch in pixels.
        num_masked: Patches to mask; about two fifths of a grid of 14 x 14.
        min_block: Smallest area of a block, in patches.
        max_block: Largest area of a block.
        aspect_ratio: Range of height over width.
        exact: Complete the mask to the exact count, as BEiT v2 does; masks then stack to equal
            counts.
        source: Key of the image.
        target: Key of the mask, bool ``(H, W)`` over patches, True where masked.

    Raises:
        ValueError: If a number is out of range or, when called, the image cannot be cut.
    """

    def __init__(
        self,
        patch_size: int = 16,
        num_masked: int = 75,
        min_block: int = 16,
        max_block: int | None = None,
        aspect_ratio: Range = ASPECT,
        exact: bool = False,
        source: str = "image",
        target: str = "mask",
    ) -> None:
        super().__init__(source, target)
        self.patch_size = check_patch_size(patch_size)
        self.num_masked = num_masked
        self.min_block = min_block
        self.max_block = max_block
        self.aspect_ratio = aspect_ratio
        self.exact = exact

    def apply(self, value: Any) -> Tensor:
        """Draw the mask of an image."""
        return blockwise_mask(
            *grid_of(value, self.patch_size, "BlockwiseMask"),
            self.num_masked,
            min_block=self.min_block,
            max_block=self.max_block,
            aspect_ratio=self.aspect_ratio,
            exact=self.exact,
        )


class RatioBlockwiseMask(GridMask):
    """The mask of iBOT: block-wise, with a share that is drawn for each crop.

    One of the pairs (ratio, variance) is chosen, and the share is uniform in ratio - variance …
    ratio + variance. By default half of the crops have no mask.

    Args:
        patch_size: Side of a patch in pixels.
        ratio: Centre of the share, one or several.
        ratio_var: Half width of its range, as many.
        aspect_ratio: Range of height over width.
        source: Key of the image.
        target: Key of the mask, bool ``(H, W)`` over patches, True where masked.

    Raises:
        ValueError: If the ranges do not pair up or leave [0, 1]; when called, if the image cannot
            be cut.
    """

    def __init__(
        self,
        patch_size: int = 16,
        ratio: Sequence[float] = (0.0, 0.3),
        ratio_var: Sequence[float] = (0.0, 0.2),
        aspect_ratio: Range = ASPECT,
        source: str = "image",
        target: str = "mask",
    ) -> None:
        super().__init__(source, target)
        self.patch_size = check_patch_size(patch_size)
        inside = [0 <= r - v <= r + v <= 1 for r, v in zip(ratio, ratio_var, strict=False)]
        if not ratio or len(ratio) != len(ratio_var) or not all(inside):
            raise ValueError(
                "`ratio` and `ratio_var` must be as many numbers, with ratio ± ratio_var in "
                f"[0, 1], got {ratio} and {ratio_var}."
            )
        self.ratio = tuple(ratio)
        self.ratio_var = tuple(ratio_var)
        self.aspect_ratio = aspect_ratio

    def apply(self, value: Any) -> Tensor:
        """Draw the mask of a crop."""
        height, width = grid_of(value, self.patch_size, "RatioBlockwiseMask")
        choice = int(torch.randint(len(self.ratio), ()))
        spread = 2 * float(torch.rand(())) - 1
        share = self.ratio[choice] + spread * self.ratio_var[choice]
        return blockwise_mask(
            height,
            width,
            min(max(share, 0.0), 1.0) * height * width,
            min_block=(min(height, width) // 3) ** 2,
            aspect_ratio=self.aspect_ratio,
        )
