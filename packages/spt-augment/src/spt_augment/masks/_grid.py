"""The grid of patches of a batch, and what its masks share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spt_augment._parameters import send
from spt_augment.base import Batch, BatchTransform, images_of


class BatchMask(BatchTransform):
    """Draws on the host, one mask per image, and sends them to the images' device.

    Args:
        patch_size: Side of a patch in pixels.
        source: Key of the images ``(B, C, H, W)``, whose sides are multiples of ``patch_size``.

    Raises:
        ValueError: If ``patch_size`` is below 1.
    """

    def __init__(self, patch_size: int, source: str) -> None:
        super().__init__()
        if patch_size < 1:
            raise ValueError(f"`patch_size` must be >= 1, got {patch_size}.")
        self.patch_size = patch_size
        self.source = source

    def transform(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Add the masks."""
        images = images_of(batch, self.source, type(self).__name__)
        grid = grid_of(images, self.patch_size)
        drawn = self.draw(len(images), grid, generator)
        return {**batch, **{key: _send(value, images.device) for key, value in drawn.items()}}

    def draw(self, n: int, grid: tuple[int, int], generator: torch.Generator) -> dict[str, Any]:
        """The keys to add, for ``n`` images of a grid of patches."""
        raise NotImplementedError


def _send(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_send(item, device) for item in value]
    return send(value, device) if isinstance(value, Tensor) else value


def grid_of(images: Tensor, patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches.

    Raises:
        ValueError: If a side is no multiple of the patch.
    """
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"Images of {(height, width)} pixels cannot be cut into patches of {patch_size}; crop "
            "or resize them to a multiple."
        )
    return height // patch_size, width // patch_size


def rectangles(
    top: Tensor, left: Tensor, height: Tensor, width: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Rectangles as bool masks ``(..., H, W)`` from their numbers ``(...)``."""
    y, x = torch.arange(grid[0]), torch.arange(grid[1])
    top, left, height, width = (value[..., None] for value in (top, left, height, width))
    rows, columns = (y >= top) & (y < top + height), (x >= left) & (x < left + width)
    return rows[..., :, None] & columns[..., None, :]
