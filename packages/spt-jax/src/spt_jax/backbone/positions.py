"""Positions: fixed sine and cosine tables, their interpolation, and rotations, as on the torch side.

In two dimensions as MAE (https://arxiv.org/abs/2111.06377, official ``util/pos_embed.py``); rotations of Su et
al., https://arxiv.org/abs/2104.09864.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def sincos_1d(embed_dim: int, positions: np.ndarray, base: float = 10000.0) -> np.ndarray:
    """``[sin | cos]`` of positions at ``embed_dim / 2`` frequencies, ``(positions, embed_dim)``.

    Raises:
        ValueError: If ``embed_dim`` is odd.
    """
    if embed_dim < 2 or embed_dim % 2:
        raise ValueError(f"`embed_dim` must be even for each axis, got {embed_dim}.")
    i = np.arange(embed_dim // 2)
    angles = np.outer(positions.ravel(), base ** (-2 * i / embed_dim))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def sincos_2d(embed_dim: int, grid: Sequence[int], cls_token: bool = False) -> np.ndarray:
    """MAE's table of a grid, row by row: the first half of the width is the column, the second the row.

    Args:
        embed_dim: Width, a multiple of 4.
        grid: Rows and columns.
        cls_token: Put a row of zeros in front.

    Returns:
        ``([1 +] rows * columns, embed_dim)``, float32.
    """
    y, x = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    half = embed_dim // 2
    table = np.concatenate([sincos_1d(half, x), sincos_1d(half, y)], axis=1)
    if cls_token:
        table = np.concatenate([np.zeros((1, embed_dim)), table])
    return table.astype(np.float32)


def interpolate_positions(
    table: jax.Array, source: Sequence[int], target: Sequence[int], prefix: int
) -> jax.Array:
    """Resize a table of positions ``(1, prefix + rows * columns, D)`` to another grid, bicubic, as MAE.

    Raises:
        ValueError: If the table does not hold the source grid.
    """
    if table.shape[1] != prefix + source[0] * source[1]:
        raise ValueError(
            f"The table holds {table.shape[1]} positions, not {prefix} and a grid of {tuple(source)}."
        )
    if tuple(source) == tuple(target):
        return table
    grid = table[:, prefix:].reshape(source[0], source[1], -1).astype(jnp.float32)
    rows, columns = (cubic_weights(s, t) for s, t in zip(source, target, strict=True))
    resized = jnp.einsum("ir,jc,rcd->ijd", rows, columns, grid)
    resized = resized.reshape(1, target[0] * target[1], -1).astype(table.dtype)
    return jnp.concatenate([table[:, :prefix], resized], axis=1)


def cubic_weights(source: int, target: int) -> np.ndarray:
    """Weights ``(target, source)`` of torch's bicubic interpolation (a = -0.75, edges repeated)."""
    a, weights = -0.75, np.zeros((target, source))
    for i in range(target):
        centre = (i + 0.5) * source / target - 0.5
        first = int(np.floor(centre)) - 1
        for place in range(first, first + 4):
            d = abs(centre - place)
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            weights[i, min(max(place, 0), source - 1)] += near if d <= 1 else far
    return weights.astype(np.float32)


def rotary_angles(head_dim: int, grid: Sequence[int], base: float = 10000.0) -> np.ndarray:
    """The angle of every pair of channels at every position, ``(positions, head_dim / 2)``.

    Each axis turns an equal number of pairs; what does not divide stays unturned.

    Raises:
        ValueError: If ``head_dim`` is odd or too small for the axes.
    """
    pairs = head_dim // 2
    per_axis = pairs // len(grid)
    if head_dim % 2 or per_axis < 1:
        raise ValueError(
            f"`head_dim` must be even and at least {2 * len(grid)} for {len(grid)} axes, got {head_dim}."
        )
    frequencies = base ** (-np.arange(per_axis) / per_axis)
    places = np.meshgrid(*(np.arange(side) for side in grid), indexing="ij")
    angles = np.concatenate([np.outer(place.ravel(), frequencies) for place in places], axis=1)
    return np.pad(angles, ((0, 0), (0, pairs - angles.shape[1]))).astype(np.float32)


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Turn neighbouring pairs of channels of the last tokens.

    Args:
        x: ``(B, prefix + n, heads, head_dim)``.
        angles: ``(n, head_dim / 2)``, or one table per sample ``(B, n, head_dim / 2)``.
    """
    angles = angles if angles.ndim == 3 else angles[None]
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]  # (B, n, 1, d / 2)
    prefix = x.shape[1] - angles.shape[1]
    pairs = x[:, prefix:].astype(jnp.float32)
    even, odd = pairs[..., 0::2], pairs[..., 1::2]
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    turned = turned.reshape(pairs.shape).astype(x.dtype)
    return jnp.concatenate([x[:, :prefix], turned], axis=1)
