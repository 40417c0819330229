"""Perlin noise in two and three dimensions.

Perlin, "Improving Noise", SIGGRAPH 2002.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# the twelve edges of a cube: directions in which the noise may slope
EDGES = torch.tensor(
    [[a, b, 0] for a in (1, -1) for b in (1, -1)]
    + [[a, 0, b] for a in (1, -1) for b in (1, -1)]
    + [[0, a, b] for a in (1, -1) for b in (1, -1)],
    dtype=torch.float64,
)


def fade(t: Tensor) -> Tensor:
    """Perlin's quintic step, whose first two derivatives vanish at 0 and 1."""
    return t**3 * (t * (6 * t - 15) + 10)


def generate_perlin_noise_2d(
    shape: tuple[int, int],
    res: tuple[int, int],
    octaves: int = 1,
    persistence: float = 0.5,
    lacunarity: float = 2.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A sum of octaves of 2-D Perlin noise.

    Args:
        shape: Height and width of the result.
        res: Cells along each side in the first octave.
        octaves: Number of layers.
        persistence: Factor of the amplitude from one layer to the next.
        lacunarity: Factor of the number of cells from one layer to the next.
        generator: Of the slopes.

    Returns:
        Float ``shape``; zero at the corners of the cells, of magnitude up to about 1 per layer.

    Raises:
        ValueError: If a number is not positive.
    """
    if min(*shape, *res, octaves, lacunarity) <= 0:
        raise ValueError(
            "`shape`, `res`, `octaves` and `lacunarity` must be positive, got "
            f"{shape}, {res}, {octaves}, {lacunarity}."
        )
    total = torch.zeros(shape)
    for octave in range(octaves):
        cells = (
            max(1, round(res[0] * lacunarity**octave)),
            max(1, round(res[1] * lacunarity**octave)),
        )
        total += persistence**octave * _layer(shape, cells, generator)
    return total


def _layer(
    shape: tuple[int, int], cells: tuple[int, int], generator: torch.Generator | None
) -> Tensor:
    angles = 2 * math.pi * torch.rand(cells[0] + 1, cells[1] + 1, generator=generator)
    slopes = torch.stack([angles.cos(), angles.sin()], -1)  # (rows + 1, columns + 1, 2)
    y, x = (torch.arange(n) * c / n for n, c in zip(shape, cells, strict=True))
    row, column = y.long(), x.long()
    v, u = (y - row)[:, None], (x - column)[None, :]

    def corner(down: int, right: int) -> Tensor:
        slope = slopes[row + down][:, column + right]  # (H, W, 2)
        return slope[..., 0] * (v - down) + slope[..., 1] * (u - right)

    top = torch.lerp(corner(0, 0), corner(0, 1), fade(u).expand(shape))
    bottom = torch.lerp(corner(1, 0), corner(1, 1), fade(u).expand(shape))
    return math.sqrt(2) * torch.lerp(top, bottom, fade(v).expand(shape))


def perlin_noise_3d(x: Any, y: Any, z: Any, seed: int = 0) -> Tensor:
    """3-D Perlin noise at points; the same point has the same value for a seed.

    Args:
        x: First coordinate, a number or an array; all three broadcast.
        y: Second coordinate.
        z: Third coordinate.
        seed: Of the table of slopes, which repeats each 256 cells.

    Returns:
        Float64 in [0, 1], of the broadcast shape; 0.5 at whole coordinates.

    Example:
        >>> float(perlin_noise_3d(1, 2, 3))
        0.5
    """
    points = torch.broadcast_tensors(*(torch.as_tensor(v, dtype=torch.float64) for v in (x, y, z)))
    place = torch.stack(points, -1)
    cell = place.floor()
    inside = place - cell
    table = torch.randperm(256, generator=torch.Generator().manual_seed(seed))
    weights = fade(inside)
    total = torch.zeros(place.shape[:-1], dtype=torch.float64)
    for corner in torch.cartesian_prod(*[torch.tensor([0, 1])] * 3):
        slope = EDGES[_hash(cell.long() + corner, table) % len(EDGES)]
        share = torch.where(corner.bool(), weights, 1 - weights).prod(-1)
        total += share * (slope * (inside - corner)).sum(-1)
    return ((total + 1) / 2).clamp(0, 1)


def _hash(cell: Tensor, table: Tensor) -> Tensor:
    value = table[cell[..., 0] % 256]
    value = table[(value + cell[..., 1]) % 256]
    return table[(value + cell[..., 2]) % 256]
