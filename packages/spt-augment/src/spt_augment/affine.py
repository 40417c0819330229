"""Rotations and affine maps, each sample with its own, several joined in one resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from spt_augment._parameters import Draws, Parameters, on_chosen_rows
from spt_augment._random import coins, uniform
from spt_augment.base import ImageTransform, check_probability

Range = float | tuple[float, float]
Mode = Literal["nearest", "bilinear"]
Fill = float | Sequence[float] | None


class GPURandomAffine(ImageTransform):
    """Rotate, shift, scale and shear an image about its centre, as torchvision draws it.

    Args:
        degrees: Clockwise angle from U(-d, d), or from a range.
        translate: Largest shift along x and y, as shares of width and height; whole pixels.
        scale: Range of the factor.
        shear: Angle of the shear along x from U(-s, s) or a range, in degrees.
        p: Share of the images that are changed.
        interpolation: ``"bilinear"`` or ``"nearest"``.
        fill: Outside the image: ``None`` for zeros, else a value, or one per channel.
        source: Key of the images.
        target: Key of the result, of the same size.

    Raises:
        ValueError: If a range is empty or out of bounds.
    """

    def __init__(
        self,
        degrees: Range,
        translate: tuple[float, float] | None = None,
        scale: tuple[float, float] | None = None,
        shear: Range | None = None,
        p: float = 1.0,
        interpolation: Mode = "bilinear",
        fill: Fill = None,
        source: str = "image",
        target: str = "image",
    ) -> None:
        super().__init__(source, target)
        check_probability("p", p)
        if interpolation not in ("nearest", "bilinear"):
            raise ValueError(
                f"`interpolation` must be 'nearest' or 'bilinear', got {interpolation!r}."
            )
        for share in translate or ():
            check_probability("translate", share)
        if scale is not None and not 0 < scale[0] <= scale[1]:
            raise ValueError(f"`scale` must be a range of positive numbers, got {tuple(scale)}.")
        self.degrees = angle_range("degrees", degrees)
        self.translate = translate or (0.0, 0.0)
        self.scale = scale or (1.0, 1.0)
        self.shear = angle_range("shear", 0.0 if shear is None else shear)
        self.p = p
        self.interpolation: Mode = interpolation
        self.fill = fill

    def draw(self, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """Angle, shift (x, y) in whole pixels, scale and shear (x, y) per image."""
        shifts = [
            uniform(n, -share * side, share * side, generator).round()
            for share, side in zip(self.translate, (width, height), strict=True)
        ]
        shear = uniform(n, *self.shear, generator)
        return {
            "batch_prob": coins(n, self.p, generator),
            "angle": uniform(n, *self.degrees, generator),
            "translation": torch.stack(shifts, dim=1),
            "scale": uniform(n, *self.scale, generator),
            "shear": torch.stack([shear, torch.zeros(n)], dim=1),
        }

    def matrix(self, given: Parameters) -> Tensor:
        """From a pixel of the result to one of the image, about the centre, ``(B, 3, 3)``."""
        return inverse_affine(given["angle"], given["translation"], given["scale"], given["shear"])

    def paint(self, images: Tensor, given: Parameters) -> Tensor:
        """Resample the chosen images."""

        def change(rows: Tensor, p: Parameters) -> Tensor:
            return affine_sample(rows, self.matrix(p), self.interpolation, self.fill)

        return on_chosen_rows(images, given, change)


class GPURandomRotation(GPURandomAffine):
    """Rotate an image about its centre.

    Args:
        degrees: Counter-clockwise angle from U(-d, d), or from a range.
        p: Share of the images that are changed.
        interpolation: ``"bilinear"`` or ``"nearest"``.
        fill: Outside the image: ``None`` for zeros, else a value, or one per channel.
        source: Key of the images.
        target: Key of the result, of the same size.

    Raises:
        ValueError: If a range is empty or out of bounds.
    """

    def __init__(
        self,
        degrees: Range,
        p: float = 1.0,
        interpolation: Mode = "bilinear",
        fill: Fill = None,
        source: str = "image",
        target: str = "image",
    ) -> None:
        super().__init__(
            degrees, p=p, interpolation=interpolation, fill=fill, source=source, target=target
        )

    def draw(self, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """An angle and a coin per image."""
        angle = uniform(n, *self.degrees, generator)
        return {"batch_prob": coins(n, self.p, generator), "angle": angle}

    def matrix(self, given: Parameters) -> Tensor:
        """From a pixel of the result to one of the image, about the centre, ``(B, 3, 3)``."""
        angle = -given["angle"]
        zeros = torch.zeros_like(angle)[:, None].expand(-1, 2)
        return inverse_affine(angle, zeros, torch.ones_like(angle), zeros)


def angle_range(name: str, value: Range) -> tuple[float, float]:
    """A range of degrees.

    Raises:
        ValueError: If it is negative or empty.
    """
    low, high = (-value, value) if isinstance(value, (int, float)) else value
    if low > high:
        raise ValueError(f"`{name}` must be >= 0 or a range (low, high), got {value}.")
    return float(low), float(high)


def inverse_affine(angle: Tensor, shift: Tensor, scale: Tensor, shear: Tensor) -> Tensor:
    """Torchvision's affine map, from the result back to the image.

    Args:
        angle: Clockwise, in degrees, ``(B,)``.
        shift: Of the result along x and y, in pixels, ``(B, 2)``.
        scale: Factor, ``(B,)``.
        shear: Along x and y, in degrees, ``(B, 2)``.

    Returns:
        Matrices ``(B, 3, 3)`` on (x, y, 1), in pixels from the centre.
    """
    turn = angle * (math.pi / 180)
    sx, sy = (shear * (math.pi / 180)).unbind(1)
    a = torch.cos(turn - sy) / torch.cos(sy)
    b = -a * torch.tan(sx) - torch.sin(turn)
    c = torch.sin(turn - sy) / torch.cos(sy)
    d = -c * torch.tan(sx) + torch.cos(turn)
    linear = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2) / scale[:, None, None]
    offset = -(linear @ shift[:, :, None])
    last = linear.new_tensor([0.0, 0.0, 1.0]).expand(len(linear), 1, 3)
    return torch.cat([torch.cat([linear, offset], dim=2), last], dim=1)


def affine_sample(images: Tensor, matrices: Tensor, mode: Mode, fill: Fill) -> Tensor:
    """Images ``(B, C, H, W)`` through maps ``(B, 3, 3)`` of :func:`inverse_affine`."""
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    m = matrices.float()
    grid_x = (
        m[:, 0, 0, None, None] * x + m[:, 0, 1, None, None] * y[:, None] + m[:, 0, 2, None, None]
    )
    grid_y = (
        m[:, 1, 0, None, None] * x + m[:, 1, 1, None, None] * y[:, None] + m[:, 1, 2, None, None]
    )
    grid = torch.stack([grid_x * (2 / width), grid_y * (2 / height)], dim=-1).to(images.dtype)
    if fill is None:
        return F.grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)
    inside = torch.ones_like(images[:, :1])
    sampled = F.grid_sample(
        torch.cat([images, inside], dim=1), grid, mode=mode, align_corners=False
    )
    result, weight = sampled[:, :-1], sampled[:, -1:]
    values = [fill] if isinstance(fill, (int, float)) else [*fill]
    background = torch.ones_like(result[:1, :, :1, :1])
    for channel, value in enumerate(values):
        background[:, channel if len(values) > 1 else slice(None)] = float(value)
    if mode == "nearest":
        return torch.where(weight < 0.5, background, result)
    # torchvision weighs the border twice: the sample has been weighted already
    return (result - background) * weight + background
