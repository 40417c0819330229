"""Images of every PIL mode, without a silent loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")  # integers of more than 8 bits
PLAIN = ("1", "L", "LA", "RGB", "RGBA", "F", *DEEP)  # channels mean what they do in a tensor


def to_rgb(value: Any) -> Any:
    """An image with three channels of 8 bits, or a tensor with three channels.

    A 16-bit PIL image is scaled by 255 / 65535, not clipped as Pillow's own conversion does.

    Raises:
        ValueError: If a tensor has neither 1 nor 3 channels, or the values of an image have no
            range that could be scaled to 8 bits.
    """
    if isinstance(value, Tensor):
        if value.ndim < 3 or value.shape[-3] not in (1, 3):
            raise ValueError(
                f"A tensor needs 1 or 3 channels, got {tuple(value.shape)}; its shape must be "
                "(..., C, H, W)."
            )
        return value if value.shape[-3] == 3 else value.repeat_interleave(3, dim=-3)
    if isinstance(value, Image.Image):
        return (_eight_bits(value) if value.mode in (*DEEP, "F") else value).convert("RGB")
    return to_rgb(F.to_image(value))


def _eight_bits(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    low, high = float(pixels.min()), float(pixels.max())
    if image.mode == "F" or low < 0 or high > 65535:
        raise ValueError(
            f"an image of mode {image.mode!r} with values from {low:g} to {high:g} has no range "
            "that maps to 8 bits; use ToImage without rgb=True, and scale it yourself"
        )
    return Image.fromarray((pixels.astype(np.float32) * (255 / 65535)).round().astype(np.uint8))


def to_tensor(value: Any) -> Tensor:
    """A tensor (C, H, W) of a PIL image or an array, in the image's own depth.

    Raises:
        TypeError: If it is no image.
        ValueError: If the mode's channels do not mean intensities, such as palette indices.
    """
    if isinstance(value, Image.Image) and value.mode not in PLAIN:
        raise ValueError(
            f"a PIL image of mode {value.mode!r} does not hold intensities of light; use "
            "rgb=True, or put RGB before it"
        )
    if isinstance(value, Image.Image) and value.mode == "1":
        value = value.convert("L")
    if isinstance(value, Image.Image) and value.mode in DEEP:
        pixels = np.asarray(value)
        inside = pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 65535
        value = pixels.astype(np.uint16) if inside else pixels
    if hasattr(value, "flags") and not value.flags.writeable:
        value = value.copy()  # an array that only shows a PIL image's pixels
    if not isinstance(value, (Tensor, Image.Image, np.ndarray)):
        raise TypeError(
            f"an image is a PIL image, an array or a tensor, got {type(value).__name__}"
        )
    return F.to_image(value)
