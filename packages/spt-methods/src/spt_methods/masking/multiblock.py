"""Blocks to predict and a context to predict them from.

Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive
Architecture", CVPR 2023, section 3 and appendix A. https://arxiv.org/abs/2301.08243; official code
https://github.com/facebookresearch/ijepa, ``src/masks/multiblock.py``.

Note:
    Lengths depend on the draws, so masks are drawn on the processor, all images of the batch at
    once, and sent to the device without waiting for it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from spt_methods.masking.seeded import SeededMasking

Grid = tuple[int, int]
Range = tuple[float, float]
TRIES = 20


class IJEPAMaskOutput(NamedTuple):
    """Places of the context and of the blocks to predict.

    Attributes:
        context_idx: Shape ``(B, n)``, in raster order.
        target_idx: Shape ``(T, B, m)``, block by block, each in raster order.
        target_block_masks: True inside, shape ``(T, B, N)``.
        mask: 1 where an image's context is not, shape ``(B, N)``, float.
    """

    context_idx: Tensor
    target_idx: Tensor
    target_block_masks: Tensor
    mask: Tensor


def block_size(grid: Grid, u: float, scale: Range, aspect_ratio: Range) -> Grid:
    """Height and width of a block, smaller than the grid: one number sets its area and aspect.

    Args:
        grid: Rows and columns.
        u: In [0, 1).
        scale: Range of the share of patches.
        aspect_ratio: Range of height over width.

    Example:
        >>> block_size((14, 14), 0.0, (0.15, 0.2), (0.75, 1.5))
        (5, 6)
    """
    area = int(grid[0] * grid[1] * (scale[0] + u * (scale[1] - scale[0])))
    aspect = aspect_ratio[0] + u * (aspect_ratio[1] - aspect_ratio[0])
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return max(1, min(height, grid[0] - 1)), max(1, min(width, grid[1] - 1))


class IJEPAMasking(SeededMasking):
    """One size of target and one of context for a batch, places of their own for each image.

    Targets may overlap each other. The context is a block without the targets, of more than
    ``min_keep`` patches; if twenty places leave too few, one target less is taken out of it.
    Contexts are cut to the shortest of the batch, in raster order.

    Args:
        num_targets: Blocks to predict.
        target_scale: Range of a target's share of the patches.
        target_aspect_ratio: Range of a target's height over width.
        context_scale: Range of the context block's share.
        min_keep: The context keeps more patches than this where that is possible.
        seed: See :class:`SeededMasking`.

    Note:
        As in the official code, the last row and column are never part of a block.

    Example:
        >>> context, targets, *_ = IJEPAMasking()(2, (14, 14))
        >>> targets.shape[:2]
        torch.Size([4, 2])
    """

    def __init__(
        self,
        num_targets: int = 4,
        target_scale: Range = (0.15, 0.2),
        target_aspect_ratio: Range = (0.75, 1.5),
        context_scale: Range = (0.85, 1.0),
        min_keep: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        if num_targets < 1:
            raise ValueError(f"`num_targets` must be >= 1, got {num_targets}.")
        for name, (low, high) in (("target_scale", target_scale), ("context_scale", context_scale)):
            if not 0.0 < low <= high <= 1.0:
                raise ValueError(f"`{name}` must be 0 < low <= high <= 1, got {(low, high)}.")
        self.num_targets = num_targets
        self.target_scale = target_scale
        self.target_aspect_ratio = target_aspect_ratio
        self.context_scale = context_scale
        self.min_keep = min_keep

    def forward(
        self, size: int, grid: Grid, device: torch.device | str | None = None
    ) -> IJEPAMaskOutput:
        """Blocks of ``size`` images on a grid of at least 2 x 2 patches."""
        if min(grid) < 2:
            raise ValueError(f"Blocks need a grid of at least 2 x 2 patches, got {grid}.")
        generator = self.next_generator(torch.device("cpu"))
        u_target, u_context = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        target = block_size(grid, u_target, self.target_scale, self.target_aspect_ratio)
        context = block_size(grid, u_context, self.context_scale, (1.0, 1.0))
        blocks = placed(self.num_targets * size, target, grid, generator)
        blocks = blocks.view(self.num_targets, size, -1)
        free = self._context(context, blocks, grid, generator)
        shortest = int(free.sum(1).min())
        context_idx = first_places(free, shortest)
        mask = torch.ones(free.shape).scatter_(1, context_idx, 0.0)
        target_idx = first_places(blocks.flatten(0, 1), target[0] * target[1])
        target_idx = target_idx.view(self.num_targets, size, -1)
        parts = (context_idx, target_idx, blocks, mask)
        return IJEPAMaskOutput(*(part.to(device, non_blocking=True) for part in parts))

    def _context(
        self, context: Grid, targets: Tensor, grid: Grid, generator: torch.Generator
    ) -> Tensor:
        """The context of each image without its targets, bool ``(B, N)``."""
        size = targets.shape[1]
        kept = torch.zeros(size, grid[0] * grid[1], dtype=torch.bool)
        open_ = torch.arange(size)
        for constraints in range(self.num_targets, -1, -1):
            hidden = targets[:constraints].any(0)
            for _ in range(TRIES):
                block = placed(len(open_), context, grid, generator)
                kept[open_] = block & ~hidden[open_]
                open_ = open_[kept[open_].sum(1) <= self.min_keep]
                if not len(open_):
                    return kept
        return kept


def placed(number: int, size: Grid, grid: Grid, generator: torch.Generator) -> Tensor:
    """Blocks at random places, never on the last row or column, bool ``(number, N)``."""
    (height, width), (rows, columns) = size, grid
    top = torch.randint(0, rows - height, (number, 1), generator=generator)
    left = torch.randint(0, columns - width, (number, 1), generator=generator)
    y = torch.arange(rows).repeat_interleave(columns)
    x = torch.arange(columns).repeat(rows)
    return (y >= top) & (y < top + height) & (x >= left) & (x < left + width)


def first_places(mask: Tensor, number: int) -> Tensor:
    """The first ``number`` places where ``mask`` ``(B, N)`` is True, in order, ``(B, number)``."""
    return (~mask).long().argsort(dim=1, stable=True)[:, :number]
