"""DINOv3's rotary positions, with the augmentation of their scale.

Simeoni et al., "DINOv3", 2025, section 3.2. https://arxiv.org/abs/2508.10104; official code
https://github.com/facebookresearch/dinov3, ``layers/rope_position_encoding.py``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spt_methods.masking.seeded import SeededMasking


class DINOv3Rope(SeededMasking):
    """Angles of patch centres, mapped to [-1, 1] along each side whatever the grid.

    In training the coordinates are shifted, stretched per axis and stretched as a whole, by one draw
    for the whole batch; draws are keyed by (seed, rank, draw) as those of masks.

    Args:
        head_dim: Width of a head, a multiple of 4.
        base: Largest period over the smallest; periods are ``base^(2 i / (head_dim / 2))``.
        shift: s; each axis is shifted by U(-s, s).
        jitter: j; each axis is stretched by a factor that is log-uniform in [1 / j, j].
        rescale: r; both are stretched by one factor, log-uniform in [1 / r, r]; 2 in the published
            recipe.
        seed: First part of the key.

    Raises:
        ValueError: If ``head_dim`` does not divide, or a factor is below 1.

    Example:
        >>> DINOv3Rope(8)((2, 3)).shape
        torch.Size([6, 16])
    """

    def __init__(
        self,
        head_dim: int,
        base: float = 100.0,
        shift: float | None = None,
        jitter: float | None = None,
        rescale: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        if head_dim < 4 or head_dim % 4:
            raise ValueError(f"`head_dim` must be a multiple of 4, got {head_dim}.")
        for name, value in (("jitter", jitter), ("rescale", rescale)):
            if value is not None and value < 1.0:
                raise ValueError(f"`{name}` must be >= 1, got {value}.")
        self.head_dim = head_dim
        self.base = base
        self.shift = shift
        self.jitter = jitter
        self.rescale = rescale

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """``[sin | cos]`` of a grid's patches, row by row, shape ``(rows * columns, 2 head_dim)``.

        Each half is laid out as ``[row angles | column angles]`` and the same again, to go with
        rotations of halves.
        """
        device = self.draws.device
        axes = [(torch.arange(side, device=device) + 0.5) / side * 2 - 1 for side in grid]
        if self.training and (self.shift or self.jitter or self.rescale):
            scales, shifts = self._draw_changes()
            axes = [
                (axis + by) * scale for axis, by, scale in zip(axes, shifts, scales, strict=True)
            ]
        places = torch.cartesian_prod(*axes)  # (rows * columns, 2)
        quarter = self.head_dim // 4
        periods = self.base ** (torch.arange(quarter, device=device) * 2 / (self.head_dim / 2))
        angles = (2 * math.pi * places.unsqueeze(2) / periods).flatten(1).repeat(1, 2)
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def _draw_changes(self) -> tuple[list[float], list[float]]:
        """Factor and shift of each axis, as numbers of the host: the device is not waited for."""
        generator = self.next_generator(torch.device("cpu"))
        u = (torch.rand(5, generator=generator, dtype=torch.float64) * 2 - 1).tolist()
        both = (self.rescale or 1.0) ** u[4]
        scales = [(self.jitter or 1.0) ** x * both for x in u[2:4]]
        return scales, [(self.shift or 0.0) * x for x in u[:2]]
