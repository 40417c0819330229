"""Blocks of a video that reach through time, and tubes of single patches.

Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video", 2024,
section 3.2. https://arxiv.org/abs/2404.08471; official code https://github.com/facebookresearch/jepa,
``src/masks/multiblock3d.py`` and ``src/masks/random_tube.py``.

Note:
    Lengths depend on the draws, so masks are drawn on the processor, all videos of the batch at once,
    and sent to the device without waiting for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spt_methods.masking.multiblock import Range, first_places
from spt_methods.masking.patches import MaskingOutput, hide_first
from spt_methods.masking.seeded import SeededMasking

TRIES = 20

Volume = tuple[int, int, int]


class TubeMaskOutput(NamedTuple):
    """Places of a context and of what is to be predicted from it, frame by frame.

    Attributes:
        context_idx: Shape ``(B, n)``, in raster order.
        target_idx: Shape ``(B, m)``, in raster order.
    """

    context_idx: Tensor
    target_idx: Tensor


def tube_size(
    grid: Volume, u: Sequence[float], temporal_scale: Range, spatial_scale: Range, aspect: Range
) -> Volume:
    """Depth, height and width of a block: three numbers set its time, area and aspect.

    Args:
        grid: Frames (of tubelets), rows and columns.
        u: Three numbers in [0, 1).
        temporal_scale: Range of the share of frames.
        spatial_scale: Range of the share of a frame's patches.
        aspect: Range of height over width.

    Example:
        >>> tube_size((8, 14, 14), (0, 0, 0), (1.0, 1.0), (0.15, 0.15), (0.75, 1.5))
        (8, 5, 6)
    """
    time, area, ratio = (
        low + draw * (high - low)
        for draw, (low, high) in zip(u, (temporal_scale, spatial_scale, aspect), strict=True)
    )
    patches = int(grid[1] * grid[2] * area)
    height, width = round(math.sqrt(patches * ratio)), round(math.sqrt(patches / ratio))
    depth = max(1, int(grid[0] * time))
    return depth, max(1, min(height, grid[1])), max(1, min(width, grid[2]))


class TubeMasking(SeededMasking):
    """Blocks of one size per batch at places of their own for each video; the rest is the context.

    The union of the blocks is to be predicted. Context and targets are each cut to the shortest of
    the batch, in raster order, frame by frame.

    Args:
        num_blocks: Blocks of each video.
        spatial_scale: Range of a block's share of a frame.
        temporal_scale: Range of its share of the frames; V-JEPA's blocks reach through all of them.
        aspect_ratio: Range of height over width.
        max_temporal_keep: Share of the frames, from the first, that the context may lie in; the
            others are to be predicted.
        seed: See :class:`SeededMasking`.

    Raises:
        ValueError: If a setting is out of range.

    Note:
        Where blocks leave no context the official code draws them again, for as long as it takes; here
        one block less is drawn after twenty tries, which small grids need.

    Example:
        >>> context, targets = TubeMasking()(2, (4, 6, 6))
        >>> context.shape[0], set(context[0].tolist()) & set(targets[0].tolist())
        (2, set())
    """

    def __init__(
        self,
        num_blocks: int = 8,
        spatial_scale: Range = (0.15, 0.15),
        temporal_scale: Range = (1.0, 1.0),
        aspect_ratio: Range = (0.75, 1.5),
        max_temporal_keep: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        if num_blocks < 1:
            raise ValueError(f"`num_blocks` must be >= 1, got {num_blocks}.")
        ranges = {"spatial_scale": spatial_scale, "temporal_scale": temporal_scale}
        for name, (low, high) in ranges.items():
            if not 0.0 < low <= high <= 1.0:
                raise ValueError(f"`{name}` must be 0 < low <= high <= 1, got {(low, high)}.")
        if not 0.0 < max_temporal_keep <= 1.0:
            raise ValueError(f"`max_temporal_keep` must be in (0, 1], got {max_temporal_keep}.")
        self.num_blocks = num_blocks
        self.spatial_scale = spatial_scale
        self.temporal_scale = temporal_scale
        self.aspect_ratio = aspect_ratio
        self.max_temporal_keep = max_temporal_keep

    def forward(
        self, size: int, grid: Sequence[int], device: torch.device | str | None = None
    ) -> TubeMaskOutput:
        """Blocks of ``size`` videos on a grid of frames, rows and columns; of images without frames.

        Raises:
            ValueError: If a single block covers the whole grid.
        """
        volume = _volume(grid)
        generator = self.next_generator(torch.device("cpu"))
        u = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        block = tube_size(volume, u, self.temporal_scale, self.spatial_scale, self.aspect_ratio)
        if block == volume:
            raise ValueError(
                f"A block of {block} frames, rows and columns leaves no context of a grid of {volume}; "
                "choose smaller patches or a smaller `spatial_scale`."
            )
        shown = self._shown(size, block, volume, generator)
        context = first_places(shown, int(shown.sum(1).min()))
        targets = first_places(~shown, int((~shown).sum(1).min()))
        return TubeMaskOutput(*(x.to(device, non_blocking=True) for x in (context, targets)))

    def _shown(self, size: int, block: Volume, grid: Volume, generator: torch.Generator) -> Tensor:
        """What no block covers, never empty, bool ``(size, N)``."""
        shown = torch.zeros(size, math.prod(grid), dtype=torch.bool)
        early = torch.arange(math.prod(grid)) < math.prod(grid[1:]) * max(
            1, int(grid[0] * self.max_temporal_keep)
        )
        empty = torch.arange(size)
        for number in range(self.num_blocks, 0, -1):
            for _ in range(TRIES):
                hidden = placed_tubes(number * len(empty), block, grid, generator)
                shown[empty] = ~hidden.view(number, len(empty), -1).any(0) & early
                empty = empty[~shown[empty].any(1)]
                if not len(empty):
                    return shown
        raise ValueError(
            f"Blocks of {block} cover every frame that `max_temporal_keep` = {self.max_temporal_keep} "
            f"leaves to the context, on a grid of {grid}."
        )


class RandomTubeMasking(SeededMasking):
    """The same random patches of every frame are shown, ``int(rows * columns * (1 - ratio))`` of them.

    Args:
        ratio: Share of hidden patches.
        seed: See :class:`SeededMasking`.

    Raises:
        ValueError: If ``ratio`` is out of range.
    """

    def __init__(self, ratio: float = 0.9, seed: int = 0) -> None:
        super().__init__(seed)
        if not 0.0 < ratio < 1.0:
            raise ValueError(f"`ratio` must be in (0, 1), got {ratio}.")
        self.ratio = ratio

    def forward(
        self, size: int, grid: Sequence[int], device: torch.device | str | None = None
    ) -> TubeMaskOutput:
        """Tubes of ``size`` videos on a grid of frames, rows and columns.

        Raises:
            ValueError: If nothing would be shown.
        """
        frames, rows, columns = _volume(grid)
        number = rows * columns
        kept = int(number * (1 - self.ratio))
        if kept < 1:
            raise ValueError(f"`ratio` = {self.ratio} shows none of {number} patches of a frame.")
        generator = self.next_generator(torch.device("cpu"))
        order = torch.rand(size, number, generator=generator).argsort(1)
        start = number * torch.arange(frames).view(1, -1, 1)
        parts = (order[:, :kept], order[:, kept:])
        places = ((start + part.sort(1).values.unsqueeze(1)).flatten(1) for part in parts)
        return TubeMaskOutput(*(x.to(device, non_blocking=True) for x in places))


class MultiBlockMasking(TubeMasking):
    """V-JEPA's blocks for a masked autoencoder of images: the context is encoded, all else hidden.

    With it, :class:`spt_methods.methods.MAE` is the first stage of SALT: ``MAE(masking=...)``. In
    evaluation mode nothing is hidden. The settings are those of :class:`TubeMasking`.
    """

    def forward(self, x: Tensor, grid_h: int, grid_w: int) -> MaskingOutput:  # type: ignore[override]
        """Hide patches of ``x`` ``(B, N, D)``, row by row; as :class:`PatchMasking`."""
        size, number = x.shape[:2]
        scores = torch.arange(number, device=x.device).expand(size, -1).float()
        if not self.training:
            return hide_first(scores, 0, x)
        context = super().forward(size, (grid_h, grid_w), x.device).context_idx
        scores = scores.scatter(1, context, -1.0)
        return hide_first(scores, number - context.shape[1], x)


def placed_tubes(number: int, size: Volume, grid: Volume, generator: torch.Generator) -> Tensor:
    """Blocks at random places, every place possible, bool ``(number, N)``."""
    inside = torch.ones((), dtype=torch.bool)
    places = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    for place, length, side in zip(places, size, grid, strict=True):
        start = torch.randint(0, side - length + 1, (number, 1), generator=generator)
        at = place.flatten()
        inside = inside & (at >= start) & (at < start + length)
    return inside


def _volume(grid: Sequence[int]) -> Volume:
    frames, rows, columns = (1, *grid) if len(grid) == 2 else grid
    return frames, rows, columns
