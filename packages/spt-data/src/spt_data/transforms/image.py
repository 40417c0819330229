"""From what a data set holds to a tensor."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from spt_data._base import SampleTransform
from spt_data._keys import Path
from spt_data._modes import to_rgb, to_tensor

PIXELS = (torch.uint8, torch.uint16, torch.bool)  # integers whose full range is bright


class DecodeImage(SampleTransform):
    """Bytes or a file to a PIL image; bytes that are no whole image name their sample.

    Args:
        min_side: Let a JPEG decode at a half, quarter or eighth of its size as long as both sides
            stay at least this long; it saves most of the time when a small crop follows.
        source: Key of bytes or of a path.
        target: Key of the image.

    Raises:
        TypeError: When called, if the source is neither.
    """

    def __init__(
        self, min_side: int | None = None, source: Path = "image", target: Path = "image"
    ) -> None:
        super().__init__(source, target)
        self.min_side = min_side

    def apply(self, value: Any) -> Image.Image:
        """Decode."""
        if not isinstance(value, (bytes, bytearray, str, os.PathLike)):
            raise TypeError(f"an encoded image is bytes or a path, got {type(value).__name__}")
        image = Image.open(io.BytesIO(value) if isinstance(value, (bytes, bytearray)) else value)
        with image:
            if self.min_side is not None:
                image.draft(None, (self.min_side, self.min_side))
            image.load()
            return image.copy()


class ToImage(SampleTransform):
    """To a tensor ``(C, H, W)``, scaled to [0, 1] and normalised if asked.

    With ``dtype=torch.uint8`` bytes stay bytes: a quarter of the size on the way to the device,
    where the conversion then is the first step.

    Args:
        dtype: Of the result.
        scale: Map integers to [0, 1] when the result is of a float type.
        mean: Channel means; with ``std``, the image is normalised.
        std: Channel standard deviations.
        rgb: Convert to three channels first, from any mode.
        source: Key of a PIL image, array ``(H, W, C)`` or tensor.
        target: Key of the result.

    Raises:
        ValueError: If only one of ``mean`` and ``std`` is given, or with a ``dtype`` of integers;
            when called, if the values have no range that could be scaled, or do not fit.
    """

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        scale: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        rgb: bool = False,
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        super().__init__(source, target)
        if (mean is None) != (std is None):
            raise ValueError(f"Give both `mean` and `std` or neither, got {mean} and {std}.")
        if mean is not None and not dtype.is_floating_point:
            raise ValueError(f"`mean` and `std` need a `dtype` of floats, got {dtype}.")
        self.dtype = dtype
        self.scale = scale
        self.mean = None if mean is None else list(mean)
        self.std = None if std is None else list(std)
        self.rgb = rgb

    def apply(self, value: Any) -> Tensor:
        """Convert."""
        image = to_tensor(to_rgb(value) if self.rgb else value)
        image = self._cast(image)
        if self.mean is not None and self.std is not None:
            if len(self.mean) != image.shape[-3]:
                raise ValueError(
                    f"`mean` has {len(self.mean)} channels, the image {image.shape[-3]}; use "
                    "rgb=True or give one value per channel."
                )
            image = F.normalize(image, self.mean, self.std)
        return image.as_subclass(Tensor)

    def _cast(self, image: Tensor) -> Tensor:
        if not self.dtype.is_floating_point and image.dtype in (torch.uint16, torch.int32):
            raise ValueError(
                f"an image of {image.dtype} does not fit into {self.dtype} without a loss; use a "
                "`dtype` of floats, or rgb=True to scale 16 bits to 8"
            )
        if image.dtype != self.dtype:
            self._check_range(image)
        return F.to_dtype(image, self.dtype, scale=self.scale)

    def _check_range(self, image: Tensor) -> None:
        """Refuse what would wrap around, and integers whose full range is no brightness."""
        if self.scale and not image.is_floating_point() and image.dtype not in PIXELS:
            raise ValueError(
                f"an image of {image.dtype} has no range that maps to [0, 1]; make it uint8 or "
                "uint16, or use scale=False"
            )
        if self.dtype.is_floating_point or (self.scale and not image.is_floating_point()):
            return
        low, high = (0.0, 1.0) if self.scale else _range_of(self.dtype)
        if not bool(((image >= low) & (image <= high)).all()):
            raise ValueError(
                f"values from {float(image.min()):g} to {float(image.max()):g} do not fit into "
                f"{self.dtype}, which takes {low:g} to {high:g}; clip or scale them yourself"
            )


def _range_of(dtype: torch.dtype) -> tuple[float, float]:
    if dtype == torch.bool:
        return 0.0, 1.0
    return float(torch.iinfo(dtype).min), float(torch.iinfo(dtype).max)


class RGB(SampleTransform):
    """To three channels, from any PIL mode or from a grey tensor; 16 bits are scaled to 8."""

    def apply(self, value: Any) -> Any:
        """Convert."""
        return to_rgb(value)
