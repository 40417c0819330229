"""Positions: fixed sine and cosine tables, their interpolation, and rotations.

Vaswani et al., 2017, section 3.5, https://arxiv.org/abs/1706.03762; in two dimensions as MAE
(https://arxiv.org/abs/2111.06377, official code ``util/pos_embed.py``), in three as V-JEPA
(https://arxiv.org/abs/2404.08471); rotations of Su et al., https://arxiv.org/abs/2104.09864.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Mode = Literal["1d", "2d", "3d"]


def sincos_1d(embed_dim: int, positions: Tensor, base: float = 10000.0) -> Tensor:
    """``[sin | cos]`` of positions at ``embed_dim / 2`` frequencies ``base^(-2i / embed_dim)``.

    Args:
        embed_dim: Width, even.
        positions: Any shape; flattened.
        base: Largest wavelength over 2 pi.

    Returns:
        Shape ``(positions, embed_dim)``, float64.

    Raises:
        ValueError: If ``embed_dim`` is odd.

    Example:
        >>> sincos_1d(4, torch.tensor([0.0])).tolist()
        [[0.0, 0.0, 1.0, 1.0]]
    """
    if embed_dim < 2 or embed_dim % 2:
        raise ValueError(f"`embed_dim` must be even for each axis, got {embed_dim}.")
    i = torch.arange(embed_dim // 2, dtype=torch.float64)
    angles = torch.outer(positions.flatten().double(), base ** (-2 * i / embed_dim))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def get_1d_sincos_pos_embed(embed_dim: int, length: int, cls_token: bool = False) -> Tensor:
    """Table of positions ``0 .. length - 1``, shape ``([1 +] length, embed_dim)``, float32."""
    return _finish(sincos_1d(embed_dim, torch.arange(length)), cls_token)


def get_2d_sincos_pos_embed(
    embed_dim: int, grid_size: int | Sequence[int], cls_token: bool = False
) -> Tensor:
    """MAE's table of a grid, row by row: the first half of the width is the column, the second the row.

    Args:
        embed_dim: Width, a multiple of 4.
        grid_size: Side, or rows and columns.
        cls_token: Put a row of zeros in front.

    Returns:
        Shape ``([1 +] rows * columns, embed_dim)``, float32.
    """
    _check_width(embed_dim, 4, "2-D")
    rows, columns = _grid(grid_size, 2)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    half = embed_dim // 2
    return _finish(torch.cat([sincos_1d(half, x), sincos_1d(half, y)], dim=1), cls_token)


def get_3d_sincos_pos_embed(
    embed_dim: int, grid_size: Sequence[int], cls_token: bool = False, uniform: bool = False
) -> Tensor:
    """V-JEPA's table of a volume: half of the width is the depth, a quarter row and column each.

    Args:
        embed_dim: Width, a multiple of 8; even if ``uniform``.
        grid_size: Depth, rows and columns.
        cls_token: Put a row of zeros in front.
        uniform: Give the three axes equal parts, cut off at ``embed_dim``, as in the official code.

    Returns:
        Shape ``([1 +] depth * rows * columns, embed_dim)``, float32.
    """
    _check_width(embed_dim, 2 if uniform else 8, "3-D")
    sides = [torch.arange(side) for side in _grid(grid_size, 3)]
    z, y, x = torch.meshgrid(*sides, indexing="ij")
    if uniform:
        widths = [math.ceil(embed_dim / 6) * 2] * 3
    else:
        widths = [embed_dim // 2, embed_dim // 4, embed_dim // 4]
    parts = [sincos_1d(width, axis) for width, axis in zip(widths, (z, y, x), strict=True)]
    return _finish(torch.cat(parts, dim=1)[:, :embed_dim], cls_token)


def get_sincos_pos_embed(
    embed_dim: int,
    num_patches: int,
    mode: Mode = "1d",
    grid_size: int | Sequence[int] | None = None,
    cls_token: bool = False,
) -> Tensor:
    """A sine-cosine table in one, two or three dimensions.

    Args:
        embed_dim: Width.
        num_patches: Number of positions.
        mode: ``"1d"``, ``"2d"`` or ``"3d"``.
        grid_size: Sides of the grid; in 2-D the square root of ``num_patches`` if left out.
        cls_token: Put a row of zeros in front.

    Raises:
        ValueError: If the grid does not hold ``num_patches`` positions, or the width does not divide.
    """
    if mode == "1d":
        return get_1d_sincos_pos_embed(embed_dim, num_patches, cls_token)
    if mode not in ("2d", "3d"):
        raise ValueError(f"`mode` must be '1d', '2d' or '3d', got {mode!r}.")
    if grid_size is None and mode == "2d":
        grid_size = math.isqrt(num_patches)
    if grid_size is None:
        raise ValueError("`grid_size` is needed for '3d': (depth, rows, columns).")
    sides = _grid(grid_size, int(mode[0]))
    if math.prod(sides) != num_patches:
        raise ValueError(f"A grid of {sides} does not hold `num_patches` = {num_patches}.")
    if mode == "2d":
        return get_2d_sincos_pos_embed(embed_dim, sides, cls_token)
    return get_3d_sincos_pos_embed(embed_dim, sides, cls_token)


def interpolate_pos_embed(
    pos: Tensor,
    src_size: Sequence[int],
    tgt_size: Sequence[int],
    num_prefix_tokens: int = 0,
    mode: str = "bicubic",
) -> Tensor:
    """Resize a table of positions to another grid, as MAE does (no antialiasing).

    Args:
        pos: Shape ``(1, prefix + rows * columns, D)``.
        src_size: Rows and columns that ``pos`` holds.
        tgt_size: Rows and columns wanted.
        num_prefix_tokens: Leading rows to keep as they are.
        mode: As for :func:`torch.nn.functional.interpolate`.

    Returns:
        Shape ``(1, prefix + rows' * columns', D)``.

    Raises:
        ValueError: If ``pos`` does not hold the source grid.
    """
    prefix, grid = pos[:, :num_prefix_tokens], pos[:, num_prefix_tokens:]
    if grid.shape[1] != math.prod(src_size):
        raise ValueError(
            f"`pos` holds {grid.shape[1]} positions after {num_prefix_tokens} prefix tokens, not "
            f"`src_size` = {tuple(src_size)}."
        )
    if tuple(src_size) == tuple(tgt_size):
        return pos
    image = grid.transpose(1, 2).unflatten(2, tuple(src_size))
    image = F.interpolate(image.float(), size=tuple(tgt_size), mode=mode, align_corners=False)
    return torch.cat([prefix, image.flatten(2).transpose(1, 2).to(pos.dtype)], dim=1)


def get_timestep_embed(t: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """``[cos | sin]`` of times at ``dim / 2`` frequencies; an odd width gets a zero at its end.

    As the diffusion transformers of https://arxiv.org/abs/2212.09748.

    Args:
        t: Times, shape ``(N,)``.
        dim: Width.
        max_period: Largest wavelength over 2 pi.

    Returns:
        Shape ``(N, dim)``, float32.
    """
    half = dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    frequencies = torch.exp(-math.log(max_period) * steps / half)
    angles = t.float()[:, None] * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, dim % 2))


def rotary_angles(head_dim: int, grid: Sequence[int], base: float = 10000.0) -> Tensor:
    """The angle of every pair of channels at every position of a grid.

    Each axis turns an equal number of pairs, at frequencies that are each used once; what does
    not divide stays unturned (angle 0).

    Args:
        head_dim: Width of a head, even.
        grid: Sides: 1-D, 2-D or 3-D.
        base: Largest wavelength over 2 pi.

    Returns:
        Shape ``(positions, head_dim / 2)``, float32.

    Raises:
        ValueError: If ``head_dim`` is odd or too small for the axes.
    """
    pairs = head_dim // 2
    per_axis = pairs // len(grid)
    if head_dim % 2 or per_axis < 1:
        raise ValueError(
            f"`head_dim` must be even and at least {2 * len(grid)} for {len(grid)} axes, got {head_dim}."
        )
    frequencies = base ** (-torch.arange(per_axis, dtype=torch.float64) / per_axis)
    places = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    angles = [torch.outer(place.flatten().double(), frequencies) for place in places]
    joined = torch.cat(angles, dim=1)
    return F.pad(joined, (0, pairs - joined.shape[1])).float()


def apply_rotary_emb(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring pairs of channels.

    Args:
        x: Shape ``(..., positions, head_dim)``.
        cos: Cosines of the angles, shape ``(positions, head_dim / 2)``.
        sin: Sines of the angles, alike.

    Returns:
        As ``x``, in its dtype.

    Example:
        >>> x = torch.tensor([[1.0, 0.0]])
        >>> apply_rotary_emb(x, torch.zeros(1, 1), torch.ones(1, 1)).tolist()
        [[0.0, 1.0]]
    """
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)


class RotaryPositionEmbedding(nn.Module):
    """Turns queries and keys by their positions on a grid; prefix tokens stay as they are.

    Args:
        head_dim: Width of a head, even.
        axes: 1, 2 or 3.
        base: Largest wavelength over 2 pi.
    """

    def __init__(self, head_dim: int, axes: int, base: float = 10000.0) -> None:
        super().__init__()
        rotary_angles(head_dim, [1] * axes, base)  # refuse a wrong width at once
        self.head_dim, self.axes, self.base = head_dim, axes, base
        self._tables: dict[tuple[tuple[int, ...], torch.device], tuple[Tensor, Tensor]] = {}

    def tables(self, grid: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines of a grid in float32, kept for the next call."""
        key = (tuple(grid), device)
        if key not in self._tables:
            angles = rotary_angles(self.head_dim, grid, self.base).to(device)
            self._tables[key] = (angles.cos(), angles.sin())
        return self._tables[key]

    def forward(self, x: Tensor, grid: Sequence[int], indices: Tensor | None = None) -> Tensor:
        """Turn the last tokens of ``x``, those of the grid.

        Args:
            x: Shape ``(B, heads, prefix + n, head_dim)``.
            grid: Sides of the grid.
            indices: Places on the grid of the ``n`` tokens, shape ``(B, n)``; all of them in order
                if ``None``.

        Raises:
            ValueError: If the number of axes is another one.
        """
        if len(grid) != self.axes:
            raise ValueError(f"This embedding has {self.axes} axes, got a grid of {tuple(grid)}.")
        cos, sin = self.tables(grid, x.device)
        if indices is not None:
            cos, sin = cos[indices].unsqueeze(1), sin[indices].unsqueeze(1)  # (B, 1, n, d / 2)
        prefix = x.shape[2] - cos.shape[-2]
        return torch.cat([x[:, :, :prefix], apply_rotary_emb(x[:, :, prefix:], cos, sin)], dim=2)


def _finish(table: Tensor, cls_token: bool) -> Tensor:
    table = table.float()
    return F.pad(table, (0, 0, 1, 0)) if cls_token else table


def _check_width(embed_dim: int, divisor: int, what: str) -> None:
    if embed_dim % divisor:
        raise ValueError(
            f"`embed_dim` must be a multiple of {divisor} in a {what} table, got {embed_dim}."
        )


def _grid(grid_size: int | Sequence[int], axes: int) -> tuple[int, ...]:
    sides = (grid_size,) * axes if isinstance(grid_size, int) else tuple(grid_size)
    if len(sides) != axes or min(sides) < 1:
        raise ValueError(f"`grid_size` must have {axes} sides, each >= 1, got {grid_size}.")
    return sides
