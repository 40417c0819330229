"""Masks made of random rectangles, drawn for a batch at a time.

Bao et al., "BEiT", ICLR 2022, algorithm 1, https://arxiv.org/abs/2106.08254, with the generators of
BEiT, BEiT v2, iBOT (https://arxiv.org/abs/2111.07832), DINOv2 (https://arxiv.org/abs/2304.07193) and
DINOv3 (https://arxiv.org/abs/2508.10104).

Note:
    How many rectangles a mask takes depends on the draws, so masks are drawn on the processor, all
    images of the batch at once, and sent to the device without waiting for it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from spt_methods.masking.seeded import SeededMasking

Grid = tuple[int, int]
Range = tuple[float, float]
TRIES = 10  # in a row without a rectangle that fits: the mask is as it is
ASPECT = (0.3, 1 / 0.3)


def block_masks(
    targets: Tensor,
    grid: Grid,
    generator: torch.Generator,
    *,
    min_area: float = 16.0,
    max_area: float = math.inf,
    aspect_ratio: Range = ASPECT,
    complete: bool = False,
) -> Tensor:
    """Rectangles until about ``targets`` patches are hidden.

    Areas are uniform from ``min_area`` to what is still missing (or the other way round, if less is
    missing), aspects log-uniform. A rectangle is smaller than the grid along each side, and counts
    if it hides between 1 and the missing number of further patches. After ten vain tries in a row
    an image's mask is done, so it may fall short.

    Args:
        targets: Patches to hide in each image, not exceeded, shape ``(B,)``; may be fractions.
        grid: Rows and columns.
        generator: Of the processor.
        min_area: Smallest area that is asked for, in patches.
        max_area: Largest area of one rectangle.
        aspect_ratio: Range of height over width.
        complete: Hide single random patches until the number is reached.

    Returns:
        True where hidden, shape ``(B, rows, columns)``.
    """
    rows, columns = grid
    size = len(targets)
    mask = torch.zeros(size, rows, columns, dtype=torch.bool)
    vain = torch.zeros(size, dtype=torch.int64)
    low, high = (math.log(value) for value in aspect_ratio)
    y, x = torch.arange(rows).view(1, -1, 1), torch.arange(columns).view(1, 1, -1)
    open_ = torch.arange(size)[targets > 0]
    while len(open_):
        u = torch.rand(4, len(open_), generator=generator, dtype=torch.float64)
        missing = targets[open_].double() - mask[open_].sum((1, 2))
        most = missing.clamp(max=max_area)
        area = min_area + u[0] * (most - min_area)
        aspect = torch.exp(low + u[1] * (high - low))
        height, width = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        top = (u[2] * (rows - height + 1)).floor().view(-1, 1, 1)
        left = (u[3] * (columns - width + 1)).floor().view(-1, 1, 1)
        block = (y >= top) & (y < top + height.view(-1, 1, 1))
        block = block & (x >= left) & (x < left + width.view(-1, 1, 1))
        new = (block & ~mask[open_]).sum((1, 2))
        fits = (height < rows) & (width < columns) & (new > 0) & (new <= most)
        mask[open_] |= block & fits.view(-1, 1, 1)
        vain[open_] = torch.where(fits, 0, vain[open_] + 1)
        done = (vain[open_] >= TRIES) | (mask[open_].sum((1, 2)) >= targets[open_])
        open_ = open_[~done]
    return completed(mask, targets, generator) if complete else mask


def smallest_block(grid: Grid) -> int:
    """The share of the grid that BEiT's 16 patches are of its 14 x 14, at least 1 patch.

    Example:
        >>> smallest_block((14, 14)), smallest_block((8, 8)), smallest_block((4, 4))
        (16, 5, 1)
    """
    return max(1, round(16 * grid[0] * grid[1] / 196))


def completed(mask: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
    """The masks, with single random patches hidden until ``targets`` are."""
    flat = mask.flatten(1)
    noise = torch.rand(flat.shape, generator=generator)
    order = (noise + flat.float() * 2).argsort(dim=1, descending=True)  # what is hidden comes first
    rank = order.argsort(dim=1)
    return (rank < torch.maximum(targets.long(), flat.sum(1)).unsqueeze(1)).view_as(mask)


class BlockMasking(SeededMasking):
    """Block-wise masks of one number of patches: BEiT, data2vec, MaskFeat.

    Args:
        mask_ratio: Share of patches to hide, in (0, 1): 75 of 196 in BEiT, 120 of 196 in data2vec,
            0.4 in MaskFeat.
        min_patches: Smallest area asked for; a fifth of what is hidden if ``None``, as MaskFeat.
        complete: Reach the number exactly, as BEiT v2; BEiT may fall short.
        seed: See :class:`SeededMasking`.

    Raises:
        ValueError: If ``mask_ratio`` is out of range.

    Example:
        >>> BlockMasking(75 / 196, complete=True)(2, (14, 14)).sum(1).tolist()
        [75, 75]
    """

    def __init__(
        self,
        mask_ratio: float = 75 / 196,
        min_patches: int | None = 16,
        complete: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        if not 0.0 < mask_ratio < 1.0:
            raise ValueError(f"`mask_ratio` must be in (0, 1), got {mask_ratio}.")
        self.mask_ratio = mask_ratio
        self.min_patches = min_patches
        self.complete = complete

    def forward(self, size: int, grid: Grid, device: torch.device | str | None = None) -> Tensor:
        """Masks of ``size`` images: True where hidden, shape ``(size, N)``."""
        hidden = round(grid[0] * grid[1] * self.mask_ratio)
        masks = block_masks(
            torch.full((size,), hidden),
            grid,
            self.next_generator(torch.device("cpu")),
            min_area=hidden // 5 if self.min_patches is None else self.min_patches,
            complete=self.complete,
        )
        return masks.flatten(1).to(device, non_blocking=True)


class RatioBlockMasking(SeededMasking):
    """Block-wise masks whose share differs between images: iBOT, DINOv2, DINOv3.

    Args:
        ratio: Range of the share of hidden patches: (0.1, 0.5) in DINOv2 and iBOT's 0.3 +- 0.2.
        probability: Share of images (of a batch of crops) that are masked at all.
        rule: ``"independent"``: each image is masked with ``probability``, its ratio uniform over the
            range, as iBOT; ``"strata"``: exactly ``int(B probability)`` images are, the ratio of
            each uniform in its own of as many strata, as DINOv2; ``"edges"``: likewise at the upper
            edge of the stratum and exactly reached, as DINOv3.
        seed: See :class:`SeededMasking`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> RatioBlockMasking(rule="edges")(4, (14, 14)).sum(1).sort().values.tolist()
        [0, 0, 58, 98]
    """

    def __init__(
        self,
        ratio: Range = (0.1, 0.5),
        probability: float = 0.5,
        rule: Literal["independent", "strata", "edges"] = "strata",
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        if not 0.0 <= ratio[0] <= ratio[1] < 1.0:
            raise ValueError(f"`ratio` must be 0 <= low <= high < 1, got {ratio}.")
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"`probability` must be in [0, 1], got {probability}.")
        if rule not in ("independent", "strata", "edges"):
            raise ValueError(f"`rule` must be 'independent', 'strata' or 'edges', got {rule!r}.")
        self.ratio = ratio
        self.probability = probability
        self.rule = rule

    def forward(self, size: int, grid: Grid, device: torch.device | str | None = None) -> Tensor:
        """Masks of ``size`` images: True where hidden, shape ``(size, N)``."""
        generator = self.next_generator(torch.device("cpu"))
        number = grid[0] * grid[1]
        if self.rule == "independent":
            targets = self._independent(size, generator) * number
            smallest: float = (min(grid) // 3) ** 2
            largest = math.inf
        else:
            targets = (self._strata(size, generator) * number).floor()
            smallest, largest = 4.0, float(number // 2)
        masks = block_masks(
            targets,
            grid,
            generator,
            min_area=smallest,
            max_area=largest,
            complete=self.rule == "edges",
        )
        return masks.flatten(1).to(device, non_blocking=True)

    def _independent(self, size: int, generator: torch.Generator) -> Tensor:
        chosen, u = torch.rand(2, size, generator=generator, dtype=torch.float64)
        return (self.ratio[0] + u * (self.ratio[1] - self.ratio[0])) * (chosen < self.probability)

    def _strata(self, size: int, generator: torch.Generator) -> Tensor:
        masked = int(size * self.probability)
        edges = torch.linspace(*self.ratio, masked + 1).double()  # as the official code rounds
        within = torch.rand(masked, generator=generator, dtype=torch.float64)
        if self.rule == "edges":
            within = torch.ones_like(within)
        ratios = torch.zeros(size, dtype=torch.float64)
        if masked:
            ratios[:masked] = edges[:-1] + within * (edges[1:] - edges[:-1])
        return ratios[torch.randperm(size, generator=generator)]
