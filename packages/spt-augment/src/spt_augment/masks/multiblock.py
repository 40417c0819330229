"""Multi-block masks, as I-JEPA draws them: a large context and several targets, for a batch.

Assran et al., CVPR 2023. https://arxiv.org/abs/2301.08243, and its official code,
facebookresearch/ijepa src/masks/multiblock.py.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from spt_augment.masks._grid import BatchMask, rectangles

Range = tuple[float, float]
Size = tuple[int, int]
TRIES = 20  # places of the context for given targets
ROUNDS = 20  # draws of the targets, for images whose context found no place


class BatchMultiBlockMask(BatchMask):
    """Context and targets of every image; a batch shares the sizes of its blocks.

    All contexts are cut to the shortest, from the end of the raster order, so that they stack.

    Args:
        patch_size: Side of a patch in pixels.
        num_targets: ``M``.
        target_scale: Range of a target's share of the patches.
        target_aspect_ratio: Range of its height over width.
        context_scale: Range of the context's share of the patches.
        context_aspect_ratio: Range of its height over width.
        min_keep: A context has more than this many patches once the targets are removed.
        source: Key of the images, whose sides are multiples of ``patch_size``.
        target_context: Key of the context's patches, int64 ``(B, K)``.
        target_targets: Key of the list of ``M`` targets' patches, int64 ``(B, L)``.

    Raises:
        ValueError: If a range is out of bounds; when called, if the images cannot be cut or the
            context cannot keep enough patches.

    Note:
        When no place leaves the context enough, the official code lets it overlap with a target;
        here the targets are drawn again, so that a target is never seen.

    Example:
        >>> batch = BatchMultiBlockMask()({"image": torch.rand(2, 3, 224, 224)})
        >>> len(batch["masks_target"]), batch["mask_context"].shape[0]
        (4, 2)
    """

    def __init__(
        self,
        patch_size: int = 16,
        num_targets: int = 4,
        target_scale: Range = (0.15, 0.2),
        target_aspect_ratio: Range = (0.75, 1.5),
        context_scale: Range = (0.85, 1.0),
        context_aspect_ratio: Range = (1.0, 1.0),
        min_keep: int = 10,
        source: str = "image",
        target_context: str = "mask_context",
        target_targets: str = "masks_target",
    ) -> None:
        super().__init__(patch_size, source)
        for name, (low, high) in (("target_scale", target_scale), ("context_scale", context_scale)):
            if not 0 < low <= high <= 1:
                raise ValueError(f"`{name}` must be a range within (0, 1], got {(low, high)}.")
        if num_targets < 1 or min_keep < 0:
            raise ValueError(
                f"`num_targets` must be >= 1 and `min_keep` >= 0, got {num_targets} and {min_keep}."
            )
        self.num_targets = num_targets
        self.target = (target_scale, target_aspect_ratio)
        self.context = (context_scale, context_aspect_ratio)
        self.min_keep = min_keep
        self.keys = (target_context, target_targets)

    def draw(self, n: int, grid: tuple[int, int], generator: torch.Generator) -> dict[str, Any]:
        """The index lists."""
        u = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        sizes = block_size(grid, u[0], *self.target), block_size(grid, u[1], *self.context)
        contexts = torch.zeros(n, *grid, dtype=torch.bool)
        targets = torch.zeros(n, self.num_targets, *grid, dtype=torch.bool)
        pending = torch.arange(n)
        for _ in range(ROUNDS):
            context, target, enough = self._places(len(pending), grid, sizes, generator)
            contexts[pending], targets[pending] = context, target
            pending = pending[~enough]
            if len(pending) == 0:
                lists = [indices(targets[:, i]) for i in range(self.num_targets)]
                return dict(zip(self.keys, (indices(contexts), lists), strict=True))
        raise ValueError(
            f"A context of {sizes[1]} patches on a grid of {grid} does not keep more than "
            f"`min_keep` = {self.min_keep} beside {self.num_targets} targets of {sizes[0]}; use "
            "smaller targets or a smaller `min_keep`."
        )

    def _places(
        self, n: int, grid: Size, sizes: tuple[Size, Size], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Contexts less their targets, targets, and whether a context has enough patches."""
        target = place_blocks((n, self.num_targets), grid, sizes[0], generator)
        free = ~target.any(1, keepdim=True)
        rest = place_blocks((n, TRIES), grid, sizes[1], generator) & free
        enough = rest.sum((2, 3)) > self.min_keep
        first = enough.int().argmax(1)
        return rest[torch.arange(n), first], target, enough.any(1)


def block_size(grid: Size, u: float, scale: Range, aspect_ratio: Range) -> Size:
    """Height and width of a block: one number sets both its area and its aspect.

    Args:
        grid: Rows and columns of patches.
        u: In [0, 1).
        scale: Range of the share of the patches.
        aspect_ratio: Range of height over width.

    Returns:
        Both strictly smaller than the grid, and at least 1.
    """
    area = int(grid[0] * grid[1] * (scale[0] + u * (scale[1] - scale[0])))
    aspect = aspect_ratio[0] + u * (aspect_ratio[1] - aspect_ratio[0])
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return max(1, min(height, grid[0] - 1)), max(1, min(width, grid[1] - 1))


def place_blocks(
    shape: tuple[int, ...], grid: Size, size: Size, generator: torch.Generator
) -> Tensor:
    """Blocks at random places, bool ``(*shape, H, W)``.

    Note:
        As in the official code, the last row and column are left out.
    """
    u = torch.rand(2, *shape, generator=generator)
    top, left = ((u[i] * max(1, grid[i] - size[i])).long() for i in range(2))
    height, width = (torch.full(shape, side) for side in size)
    return rectangles(top, left, height, width, grid)


def indices(masks: Tensor) -> Tensor:
    """Row-major places of the True entries ``(B, K)``, cut to the least count."""
    flat = masks.flatten(1)
    counts = flat.sum(1)
    order = flat.int().argsort(dim=1, descending=True, stable=True)
    return order[:, : int(counts.min())]
