"""Hide random patches, squares of patches, or all but a crop.

He et al., "Masked Autoencoders", CVPR 2022, https://arxiv.org/abs/2111.06377; official code
https://github.com/facebookresearch/mae; squares as SimMIM, https://arxiv.org/abs/2111.09886.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from spt_methods.masking.seeded import SeededMasking


class MaskingOutput(NamedTuple):
    """What is left of the patches, and where it was.

    Attributes:
        visible: Kept patches, shape ``(B, n, D)``, in their order on the grid.
        mask: 1 where hidden, shape ``(B, N)``, float.
        ids_restore: Puts ``[visible, hidden]`` back in order, shape ``(B, N)``.
        ids_keep: Places of the kept patches, shape ``(B, n)``.
    """

    visible: Tensor
    mask: Tensor
    ids_restore: Tensor
    ids_keep: Tensor


def keep_tokens(x: Tensor, ids_keep: Tensor) -> Tensor:
    """Rows of ``x`` ``(B, N, D)`` at ``ids_keep`` ``(B, n)``."""
    return x.gather(1, ids_keep.unsqueeze(2).expand(-1, -1, x.shape[2]))


def hide_first(scores: Tensor, hidden: int, x: Tensor) -> MaskingOutput:
    """Hide the patches of largest score.

    Args:
        scores: One number per patch, shape ``(B, N)``.
        hidden: How many to hide.
        x: Patches, shape ``(B, N, D)``.
    """
    size, number = scores.shape
    order = scores.argsort(dim=1)
    ids_keep = order[:, : number - hidden].sort(dim=1).values
    mask = torch.ones(size, number, device=x.device).scatter_(1, ids_keep, 0.0)
    ids_restore = mask.argsort(dim=1, stable=True).argsort(dim=1)
    return MaskingOutput(keep_tokens(x, ids_keep), mask, ids_restore, ids_keep)


class PatchMasking(SeededMasking):
    """Hide ``N - int(N (1 - mask_ratio))`` patches of each image, anew for each batch.

    In evaluation mode, or with a ratio of 0, nothing is hidden.

    Args:
        mask_ratio: Share of patches to hide, in [0, 1).
        block_size: Side of the squares that are hidden together, in patches.
        crop_ratio: Probability, per image, of hiding the outside of a random crop instead.
        crop_aspect_ratio: Range of the crop's height over its width.
        seed: See :class:`SeededMasking`.

    Raises:
        ValueError: If an argument is out of its range.

    Note:
        Where squares or crops hide too many or too few patches, single ones are shown or hidden at
        random to reach the exact number.
    """

    def __init__(
        self,
        mask_ratio: float = 0.75,
        block_size: int = 1,
        crop_ratio: float = 0.0,
        crop_aspect_ratio: tuple[float, float] = (0.75, 1.33),
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        if not 0.0 <= mask_ratio < 1.0:
            raise ValueError(f"`mask_ratio` must be in [0, 1), got {mask_ratio}.")
        if block_size < 1:
            raise ValueError(f"`block_size` must be >= 1, got {block_size}.")
        if not 0.0 <= crop_ratio <= 1.0:
            raise ValueError(f"`crop_ratio` must be in [0, 1], got {crop_ratio}.")
        low, high = crop_aspect_ratio
        if not 0.0 < low <= high:
            raise ValueError(f"`crop_aspect_ratio` must be 0 < low <= high, got {(low, high)}.")
        self.mask_ratio = mask_ratio
        self.block_size = block_size
        self.crop_ratio = crop_ratio
        self.crop_aspect_ratio = (low, high)

    def forward(self, x: Tensor, grid_h: int, grid_w: int) -> MaskingOutput:
        """Hide patches.

        Args:
            x: Patches, shape ``(B, N, D)``, row by row.
            grid_h: Rows of the grid.
            grid_w: Columns of the grid.

        Raises:
            ValueError: If the shape is another one, or no patch would be left.
        """
        if x.ndim != 3 or x.shape[1] != grid_h * grid_w:
            raise ValueError(
                f"`x` must have shape (B, {grid_h} * {grid_w}, D), got {tuple(x.shape)}."
            )
        size, number = x.shape[:2]
        hidden = number - int(number * (1 - self.mask_ratio)) if self.training else 0
        if hidden == number:
            raise ValueError(
                f"`mask_ratio` = {self.mask_ratio} hides all {number} patches; take a smaller one, or "
                "larger images."
            )
        if hidden == 0:
            order = torch.arange(number, device=x.device).expand(size, -1)
            return hide_first(order.float(), 0, x)
        generator = self.next_generator(x.device)
        scores = torch.rand(size, number, generator=generator, device=x.device)
        if self.block_size > 1:
            scores = scores * 1e-3 + self._squares(size, grid_h, grid_w, generator)
        if self.crop_ratio > 0:
            outside = self._outside_of_crops(size, grid_h, grid_w, number - hidden, generator)
            chosen = torch.rand(size, 1, generator=generator, device=x.device) < self.crop_ratio
            scores = torch.where(chosen, scores * 1e-3 + outside, scores)
        return hide_first(scores, hidden, x)

    def _squares(self, size: int, rows: int, columns: int, generator: torch.Generator) -> Tensor:
        """One random number per square, the same for its patches, shape ``(size, rows * columns)``."""
        b = self.block_size
        units = (math.ceil(rows / b), math.ceil(columns / b))
        scores = torch.rand(size, *units, generator=generator, device=generator.device)
        tiled = scores.repeat_interleave(b, 1).repeat_interleave(b, 2)
        return tiled[:, :rows, :columns].flatten(1)

    def _outside_of_crops(
        self, size: int, rows: int, columns: int, kept: int, generator: torch.Generator
    ) -> Tensor:
        """1 outside of a crop of about ``kept`` patches, 0 inside, shape ``(size, rows * columns)``."""
        draw = torch.rand(3, size, 1, generator=generator, device=generator.device)
        low, high = (math.log(value) for value in self.crop_aspect_ratio)
        aspect = torch.exp(low + (high - low) * draw[0])
        height = (kept * aspect).sqrt().round().clamp(1, rows)
        width = (kept / height).round().clamp(1, columns)
        top = (draw[1] * (rows - height + 1)).floor()
        left = (draw[2] * (columns - width + 1)).floor()
        y = torch.arange(rows, device=generator.device).repeat_interleave(columns)
        x = torch.arange(columns, device=generator.device).repeat(rows)
        inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + width)
        return (~inside).float()
