"""Random squares of a size in pixels, whatever the patch size.

Xie et al., "SimMIM", CVPR 2022, section 3.2. https://arxiv.org/abs/2111.09886; official code
https://github.com/microsoft/SimMIM.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spt_methods.masking.seeded import SeededMasking


class UnitMasking(SeededMasking):
    """Hide ``ceil(units * mask_ratio)`` random units of each image.

    Args:
        mask_ratio: Share of units to hide, in (0, 1).
        unit_size: Side of a unit in patches: 2 for 32 pixels and patches of 16.
        seed: See :class:`SeededMasking`.

    Raises:
        ValueError: If an argument is out of its range; in use, if units do not fill the grid.

    Example:
        >>> UnitMasking()(1, (14, 14)).sum().item()  # 30 of 49 units of 4 patches
        120
    """

    def __init__(self, mask_ratio: float = 0.6, unit_size: int = 2, seed: int = 0) -> None:
        super().__init__(seed)
        if not 0.0 < mask_ratio < 1.0:
            raise ValueError(f"`mask_ratio` must be in (0, 1), got {mask_ratio}.")
        if unit_size < 1:
            raise ValueError(f"`unit_size` must be >= 1, got {unit_size}.")
        self.mask_ratio = mask_ratio
        self.unit_size = unit_size

    def forward(
        self, size: int, grid: tuple[int, int], device: torch.device | str | None = None
    ) -> Tensor:
        """Masks of ``size`` images: True where hidden, shape ``(size, N)``."""
        unit, device = self.unit_size, torch.device(device or "cpu")
        if grid[0] % unit or grid[1] % unit:
            raise ValueError(f"`unit_size` {unit} must divide the grid of patches, got {grid}.")
        rows, columns = grid[0] // unit, grid[1] // unit
        noise = torch.rand(
            size, rows * columns, generator=self.next_generator(device), device=device
        )
        hidden = math.ceil(rows * columns * self.mask_ratio)
        units = torch.zeros_like(noise, dtype=torch.bool)
        units.scatter_(1, noise.argsort(dim=1)[:, :hidden], True)
        units = units.view(size, rows, columns)
        return units.repeat_interleave(unit, 1).repeat_interleave(unit, 2).flatten(1)
