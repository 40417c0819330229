"""Geometric transforms: boxes, masks and key points of the sample follow the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from spt_data._base import TorchTransform
from spt_data._keys import Path

Range = tuple[float, float]
Fill = int | float | Sequence[int] | Sequence[float] | None


class Resize(TorchTransform):
    """Resize; one number is the short side, a pair the height and width. It leaves no record."""

    geometric = True
    recorded = False

    def __init__(
        self,
        size: int | Sequence[int],
        interpolation: InterpolationMode | int = InterpolationMode.BILINEAR,
        max_size: int | None = None,
        antialias: bool = True,
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        sides = [size] if isinstance(size, int) else list(size)
        super().__init__(
            v2.Resize(sides, interpolation, max_size, antialias), source=source, target=target
        )


class CenterCrop(TorchTransform):
    """Cut the centre. It leaves no record."""

    geometric = True
    recorded = False

    def __init__(
        self, size: int | Sequence[int], source: Path = "image", target: Path = "image"
    ) -> None:
        super().__init__(v2.CenterCrop(size), source=source, target=target)


class RandomResizedCrop(TorchTransform):
    """Crop a random area and resize it, antialiased.

    Record: float ``(4,)``: top, left, height, width in pixels of the source.
    """

    geometric = True

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Range = (0.08, 1.0),
        ratio: Range = (3 / 4, 4 / 3),
        interpolation: InterpolationMode | int = InterpolationMode.BILINEAR,
        antialias: bool = True,
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        crop = v2.RandomResizedCrop(size, scale, ratio, interpolation, antialias)
        super().__init__(crop, source=source, target=target)

    def record(self, params: dict[str, Any]) -> Tensor:
        """The box."""
        return _floats(params[key] for key in ("top", "left", "height", "width"))

    def bypass(self) -> Tensor:
        """Zeros."""
        return torch.zeros(4)


class RandomCrop(TorchTransform):
    """Pad if asked, and cut at a random place.

    Record: float ``(10,)``: needs_crop, top, left, height, width, needs_pad, four paddings (left,
    top, right, bottom).
    """

    geometric = True

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: Fill = 0,
        padding_mode: Literal["constant", "edge", "reflect", "symmetric"] = "constant",
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        crop = v2.RandomCrop(size, padding, pad_if_needed, fill, padding_mode)
        super().__init__(crop, source=source, target=target)

    def record(self, params: dict[str, Any]) -> Tensor:
        """The box and the paddings."""
        keys = ("needs_crop", "top", "left", "height", "width", "needs_pad")
        return _floats([*(params[key] for key in keys), *(params["padding"] or [0] * 4)])

    def bypass(self) -> Tensor:
        """Zeros."""
        return torch.zeros(10)


class RandomHorizontalFlip(TorchTransform):
    """Mirror left to right with probability ``p``. Record: whether it was done."""

    geometric = True

    def __init__(self, p: float = 0.5, source: Path = "image", target: Path = "image") -> None:
        super().__init__(v2.RandomHorizontalFlip(1.0), p, source, target)


class RandomVerticalFlip(TorchTransform):
    """Mirror top to bottom with probability ``p``. Record: whether it was done."""

    geometric = True

    def __init__(self, p: float = 0.5, source: Path = "image", target: Path = "image") -> None:
        super().__init__(v2.RandomVerticalFlip(1.0), p, source, target)


class RandomRotation(TorchTransform):
    """Rotate by a random angle. Record: ``{"angle": degrees}``."""

    geometric = True

    def __init__(
        self,
        degrees: float | Sequence[float],
        interpolation: InterpolationMode | int = InterpolationMode.NEAREST,
        expand: bool = False,
        center: Sequence[float] | None = None,
        fill: Fill = 0,
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        rotation = v2.RandomRotation(
            degrees, interpolation, expand, None if center is None else list(center), fill
        )
        super().__init__(rotation, source=source, target=target)

    def record(self, params: dict[str, Any]) -> dict[str, float]:
        """The angle."""
        return {"angle": float(params["angle"])}

    def bypass(self) -> dict[str, float]:
        """No turn."""
        return {"angle": 0.0}


class RandomAffine(TorchTransform):
    """Rotate, shift, scale and shear.

    Record: float ``(6,)``: angle, shift in x and y (pixels), scale, shear in x and y (degrees).
    """

    geometric = True

    def __init__(
        self,
        degrees: float | Sequence[float],
        translate: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        shear: float | Sequence[float] | None = None,
        interpolation: InterpolationMode | int = InterpolationMode.NEAREST,
        fill: Fill = 0,
        center: Sequence[float] | None = None,
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        affine = v2.RandomAffine(
            degrees,
            translate,
            scale,
            shear,
            interpolation,
            fill,
            None if center is None else list(center),
        )
        super().__init__(affine, source=source, target=target)

    def record(self, params: dict[str, Any]) -> Tensor:
        """All six numbers."""
        shear = params["shear"]
        return _floats([params["angle"], *params["translate"], params["scale"], *shear])

    def bypass(self) -> Tensor:
        """Zeros."""
        return torch.zeros(6)


class RandomPerspective(TorchTransform):
    """Move the corners. Record: float ``(8,)``, the coefficients; zeros when nothing was done."""

    geometric = True

    def __init__(
        self,
        distortion_scale: float = 0.5,
        p: float = 0.5,
        interpolation: InterpolationMode | int = InterpolationMode.BILINEAR,
        fill: Fill = 0,
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        perspective = v2.RandomPerspective(distortion_scale, 1.0, interpolation, fill)
        super().__init__(perspective, p, source, target)

    def record(self, params: dict[str, Any]) -> Tensor:
        """The coefficients."""
        return _floats(params["coefficients"])

    def bypass(self) -> Tensor:
        """Zeros."""
        return torch.zeros(8)


def _floats(values: Any) -> Tensor:
    return torch.tensor([float(value) for value in values])
