"""Multi-block masks: a large context block and several target blocks.

I-JEPA: Assran et al., CVPR 2023. https://arxiv.org/abs/2301.08243, and its official code,
facebookresearch/ijepa src/masks/multiblock.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spt_data._base import SampleTransform, with_record
from spt_data._keys import read, write
from spt_data.datasets import Sample
from spt_data.masks._grid import check_patch_size, grid_of, refuse_to_skip

Range = tuple[float, float]
Size = tuple[int, int]
TRIES = 20  # places of the context for given targets, and draws of targets


def block_size(grid: Size, u: float, scale: Range, aspect_ratio: Range) -> Size:
    """Height and width of a block: one number sets both its area and its aspect.

    Args:
        grid: Rows and columns of patches.
        u: In [0, 1).
        scale: Range of the share of the patches.
        aspect_ratio: Range of height over width.

    Returns:
        Both strictly smaller than the grid.
    """
    area = int(grid[0] * grid[1] * (scale[0] + u * (scale[1] - scale[0])))
    aspect = aspect_ratio[0] + u * (aspect_ratio[1] - aspect_ratio[0])
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return max(1, min(height, grid[0] - 1)), max(1, min(width, grid[1] - 1))


def place_block(
    grid: Size, size: Size, generator: torch.Generator | None = None, *, edge: bool = False
) -> Tensor:
    """A block at a random place, as bool ``(H, W)``.

    Note:
        Like the official code, the last row and column are left out unless ``edge``.
    """
    mask = torch.zeros(grid, dtype=torch.bool)
    u = torch.rand(2, generator=generator).tolist()
    top, left = (int(u[i] * max(1, grid[i] - size[i] + edge)) for i in range(2))
    mask[top : top + size[0], left : left + size[1]] = True
    return mask


def draw_blocks(
    grid: Size,
    context: Size,
    targets: Sequence[Size],
    min_keep: int,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Places of one image's blocks.

    Returns:
        The context block without its overlap with targets, and the targets, bool ``(H, W)``.

    Raises:
        ValueError: If the context cannot keep ``min_keep`` patches.

    Note:
        When no place leaves the context enough, the official code lets it overlap with a target;
        here the targets are drawn again, so that a target is never seen.
    """
    for _ in range(TRIES):
        blocks = [place_block(grid, size, generator) for size in targets]
        free = ~torch.stack(blocks).any(0) if blocks else torch.ones(grid, dtype=torch.bool)
        for _ in range(TRIES):
            rest = place_block(grid, context, generator) & free
            if int(rest.sum()) >= min_keep:
                return rest, blocks
    raise ValueError(
        f"`min_keep` = {min_keep} patches are not left of a context of {context} on a grid of "
        f"{grid} beside targets of {list(targets)}; use smaller targets or a smaller `min_keep`."
    )


def multi_block_mask(
    height: int,
    width: int,
    block_scales: Sequence[Range] = ((0.85, 1.0), *((0.15, 0.2),) * 4),
    aspect_ratios: Sequence[Range] = ((1.0, 1.0), *((0.75, 1.5),) * 4),
    min_keep: int = 1,
    seed: int = 0,
) -> list[Tensor]:
    """Rectangles of random size and place; what the others leave of the first is not too small.

    Args:
        height: Rows of patches.
        width: Columns of patches.
        block_scales: Range of the share of the patches, for each block.
        aspect_ratios: Range of height over width, for each block.
        min_keep: Patches of the first block that no other may cover, at least.
        seed: Of the draws.

    Returns:
        One int32 ``(height, width)`` of 0 and 1 for each block.

    Raises:
        ValueError: If there are not as many scales as aspect ratios, or the blocks do not fit.

    Example:
        >>> [int(block.sum()) for block in multi_block_mask(14, 14, [(0.25, 0.25)], [(1.0, 1.0)])]
        [49]
    """
    if len(block_scales) != len(aspect_ratios) or not block_scales:
        raise ValueError(
            "`block_scales` and `aspect_ratios` must be equally many, got "
            f"{len(block_scales)} and {len(aspect_ratios)}."
        )
    generator = torch.Generator().manual_seed(seed)
    grid = (height, width)
    sizes = shared_sizes(grid, block_scales, aspect_ratios, generator)
    for _ in range(TRIES**2):
        blocks = [place_block(grid, size, generator, edge=True) for size in sizes]
        others = torch.stack([torch.zeros(grid, dtype=torch.bool), *blocks[1:]]).any(0)
        if int((blocks[0] & ~others).sum()) >= min_keep:
            return [block.int() for block in blocks]
    raise ValueError(
        f"`min_keep` = {min_keep} patches of the first block, {sizes[0]}, are not left beside "
        f"{sizes[1:]} on a grid of {grid}."
    )


def shared_sizes(
    grid: Size,
    scales: Sequence[Range],
    aspect_ratios: Sequence[Range],
    generator: torch.Generator | None = None,
) -> list[Size]:
    """One size per block; equal settings share one draw."""
    drawn: dict[tuple[Range, Range], Size] = {}
    settings = [
        ((scale[0], scale[1]), (aspect[0], aspect[1]))
        for scale, aspect in zip(scales, aspect_ratios, strict=True)
    ]
    for setting in settings:
        if setting not in drawn:
            u = float(torch.rand((), generator=generator, dtype=torch.float64))
            drawn[setting] = block_size(grid, u, *setting)
    return [drawn[setting] for setting in settings]


def check_paired(target_scales: Sequence[Range], target_aspect_ratios: Sequence[Range]) -> None:
    """Refuse targets of which some have a scale and no aspect ratio, or the reverse.

    Raises:
        ValueError: If they are not equally many.
    """
    if len(target_scales) != len(target_aspect_ratios):
        raise ValueError(
            "`target_scales` and `target_aspect_ratios` must be equally many, got "
            f"{len(target_scales)} and {len(target_aspect_ratios)}."
        )


def indices(mask: Tensor) -> Tensor:
    """Row-major places of the True entries, int64."""
    return mask.flatten().nonzero()[:, 0]


class ContextTargetsMultiBlockMask(SampleTransform):
    """The mask of I-JEPA for one image; lengths differ from image to image.

    For batches of equal lengths use ``MultiBlockCollator``, which shares the sizes of the blocks.
    Record: float ``(2, M + 1, 2)``, the ranges of scale and of aspect, context first.

    Args:
        patch_size: Side of a patch in pixels.
        context_scale: Range of the context's share of the patches.
        context_aspect_ratio: Range of its height over width.
        target_scales: For each of ``M`` targets.
        target_aspect_ratios: For each of ``M`` targets.
        min_keep: Patches the context keeps at least once the targets are removed.
        source: Key of the image.
        target_context: Key of the context's patches, int64 ``(K,)``.
        target_targets: Key of the list of the targets' patches, int64.

    Raises:
        ValueError: If the two target settings differ in length; when called, if the image cannot
            be cut or the context cannot keep ``min_keep`` patches.
    """

    def __init__(
        self,
        patch_size: int = 16,
        context_scale: Range = (0.85, 1.0),
        context_aspect_ratio: Range = (1.0, 1.0),
        target_scales: Sequence[Range] = ((0.15, 0.2),) * 4,
        target_aspect_ratios: Sequence[Range] = ((0.75, 1.5),) * 4,
        min_keep: int = 10,
        source: str = "image",
        target_context: str = "mask_context",
        target_targets: str = "masks_target",
    ) -> None:
        super().__init__(source, target_context)
        check_paired(target_scales, target_aspect_ratios)
        self.patch_size = check_patch_size(patch_size)
        self.scales = (context_scale, *target_scales)
        self.aspect_ratios = (context_aspect_ratio, *target_aspect_ratios)
        self.min_keep = min_keep
        self.target_context = target_context
        self.target_targets = target_targets

    def __call__(self, sample: Sample) -> Sample:
        """A copy of the sample with both entries and the record."""
        name = type(self).__name__
        context, targets = read(super().__call__(sample), self.target_context, name)
        out = write(write(sample, self.target_context, context), self.target_targets, targets)
        record = torch.tensor([self.scales, self.aspect_ratios])
        return with_record(out, name, record)

    def skip(self, sample: Sample) -> Sample:
        """Refused.

        Raises:
            ValueError: Always.
        """
        refuse_to_skip(type(self).__name__)

    def apply(self, value: Any) -> tuple[Tensor, list[Tensor]]:
        """Draw the blocks of an image."""
        grid = grid_of(value, self.patch_size, type(self).__name__)
        sizes = shared_sizes(grid, self.scales, self.aspect_ratios)
        context, targets = draw_blocks(grid, sizes[0], sizes[1:], self.min_keep)
        return indices(context), [indices(block) for block in targets]
