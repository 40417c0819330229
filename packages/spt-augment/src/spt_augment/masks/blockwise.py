"""Block-wise masks, as BEiT draws them, for all images at once.

Bao et al., ICLR 2022. https://arxiv.org/abs/2106.08254, and its official code, microsoft/unilm
beit/masking_generator.py.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from spt_augment._random import uniform
from spt_augment.masks._grid import BatchMask, rectangles

TRIES = 10  # places and shapes tried for one block


class BatchBlockwiseMask(BatchMask):
    """Cover about ``num_masked`` patches of every image by random rectangles.

    Rectangles are added until the count is met or, as in the official code, ten tries in a row do
    not fit: so some masks have a few patches fewer, and none has more.

    Args:
        patch_size: Side of a patch in pixels.
        num_masked: Patches to mask, at most.
        min_block: Patches of a rectangle, at least, while that many are still wanted.
        max_block: Patches of a rectangle, at most; ``None`` for all that are still wanted.
        aspect_ratio: Range of height over width, drawn log-uniformly.
        source: Key of the images, whose sides are multiples of ``patch_size``.
        target: Key of the masks, bool ``(B, H, W)`` over patches, True where masked.

    Raises:
        ValueError: If a number is out of range or, when called, the images cannot be cut.

    Example:
        >>> mask = BatchBlockwiseMask()({"image": torch.rand(2, 3, 224, 224)})["mask"]
        >>> mask.shape, bool((mask.sum((1, 2)) <= 75).all())
        (torch.Size([2, 14, 14]), True)
    """

    def __init__(
        self,
        patch_size: int = 16,
        num_masked: int = 75,
        min_block: int = 16,
        max_block: int | None = None,
        aspect_ratio: tuple[float, float] = (0.3, 1 / 0.3),
        source: str = "image",
        target: str = "mask",
    ) -> None:
        super().__init__(patch_size, source)
        if num_masked < 0 or min_block < 1 or (max_block is not None and max_block < min_block):
            raise ValueError(
                "`num_masked` must be >= 0 and 1 <= `min_block` <= `max_block`, got "
                f"{num_masked}, {min_block} and {max_block}."
            )
        if not 0 < aspect_ratio[0] <= aspect_ratio[1]:
            raise ValueError(
                f"`aspect_ratio` must be a range of positive numbers, got {tuple(aspect_ratio)}."
            )
        self.num_masked = num_masked
        self.min_block = min_block
        self.max_block = max_block
        self.aspect_ratio = aspect_ratio
        self.target = target

    def draw(self, n: int, grid: tuple[int, int], generator: torch.Generator) -> dict[str, Any]:
        """The masks."""
        if self.num_masked > grid[0] * grid[1]:
            raise ValueError(
                f"`num_masked` = {self.num_masked} is more than the {grid[0]} x {grid[1]} patches that "
                "the images have; give a smaller number, or larger images."
            )
        mask = torch.zeros(n, *grid, dtype=torch.bool)
        growing = torch.arange(n)
        while len(growing):
            missing = self.num_masked - mask[growing].sum((1, 2))
            block, found = self._block(mask[growing], missing, generator)
            growing = growing[found]
            mask[growing] |= block[found]
        return {self.target: mask}

    def _block(
        self, mask: Tensor, missing: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """One more rectangle for each mask, and whether one of the tries fitted."""
        n, *grid = mask.shape
        largest = missing if self.max_block is None else missing.clamp(max=self.max_block)
        share = torch.rand(n, TRIES, generator=generator)
        area = self.min_block + share * (largest[:, None] - self.min_block)
        low, high = (math.log(bound) for bound in self.aspect_ratio)
        aspect = uniform(n * TRIES, low, high, generator).exp().view(n, TRIES)
        height, width = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
        room = (height < grid[0]) & (width < grid[1])
        place = torch.rand(2, n, TRIES, generator=generator)
        top = (place[0] * (grid[0] - height + 1).clamp(min=1)).long()
        left = (place[1] * (grid[1] - width + 1).clamp(min=1)).long()
        blocks = rectangles(top, left, height, width, (grid[0], grid[1]))
        new = (blocks & ~mask[:, None]).sum((2, 3))
        fits = room & (new > 0) & (new <= largest[:, None])
        first = fits.int().argmax(1)
        return blocks[torch.arange(n), first], fits.any(1)
