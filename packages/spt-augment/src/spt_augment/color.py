"""Pointwise colour operations as torchvision computes them, with parameters per sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spt_augment._random import coins, uniform
from spt_augment.base import ImageTransform, check_probability, choose

Range = float | tuple[float, float]

GREY_WEIGHTS = (0.2989, 0.587, 0.114)
"""Share of red, green and blue in a grey value (ITU-R 601-2, as torchvision rounds them)."""


class GPUColorJitter(ImageTransform):
    """Change brightness, contrast, saturation and hue by random factors, in a random order.

    Factors are drawn per sample; the order once per batch.

    Args:
        brightness: Factor from U(max(0, 1 - b), 1 + b), or from a range given as a pair.
        contrast: The same, around the mean grey value of the image.
        saturation: The same, around the grey image.
        hue: Shift of the hue in turns from U(-h, h), h at most 0.5, or from a pair.
        p: Share of the images that are changed.
        source: Key of the images; saturation and hue need 3 channels.
        target: Key of the result.

    Raises:
        ValueError: If a range or the probability is out of bounds.
    """

    def __init__(
        self,
        brightness: Range = 0.0,
        contrast: Range = 0.0,
        saturation: Range = 0.0,
        hue: Range = 0.0,
        p: float = 1.0,
        source: str = "image",
        target: str = "image",
    ) -> None:
        super().__init__(source, target)
        check_probability("p", p)
        self.p = p
        self.brightness = factor_range("brightness", brightness)
        self.contrast = factor_range("contrast", contrast)
        self.saturation = factor_range("saturation", saturation)
        self.hue = hue_range(hue)

    def images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Jitter the chosen images."""
        operations = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
        ranges = (self.brightness, self.contrast, self.saturation, self.hue)
        n = len(images)
        drawn = [uniform(n, *bounds, generator) for bounds in ranges]
        order = torch.randperm(4, generator=generator).tolist()
        chosen = coins(n, self.p, generator)
        changed = images
        for i in order:
            neutral = 0.0 if i == 3 else 1.0
            if ranges[i] != (neutral, neutral):
                changed = operations[i](changed, drawn[i])
        return choose(chosen, changed, images)


class GPURandomGrayscale(ImageTransform):
    """Turn an image grey with probability ``p``; it keeps its channels.

    Args:
        p: Probability, in [0, 1].
        source: Key of the images, 3 channels.
        target: Key of the result.

    Raises:
        ValueError: If ``p`` is out of range.
    """

    def __init__(self, p: float = 0.2, source: str = "image", target: str = "image") -> None:
        super().__init__(source, target)
        check_probability("p", p)
        self.p = p

    def images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Grey the chosen images."""
        chosen = coins(len(images), self.p, generator)
        return choose(chosen, grey(images).expand_as(images), images)


class GPURandomSolarize(ImageTransform):
    """Invert the pixels at or above a threshold with probability ``p`` (BYOL's second view).

    Args:
        threshold: In [0, 1]; the papers' 128 of 255 is 0.5.
        p: Probability, in [0, 1].
        source: Key of the images.
        target: Key of the result.

    Raises:
        ValueError: If the threshold or ``p`` is out of range.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        p: float = 0.2,
        source: str = "image",
        target: str = "image",
    ) -> None:
        super().__init__(source, target)
        check_probability("threshold", threshold)
        check_probability("p", p)
        self.threshold = threshold
        self.p = p

    def images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Solarize the chosen images."""
        inverted = torch.where(images >= self.threshold, 1.0 - images, images)
        return choose(coins(len(images), self.p, generator), inverted, images)


class GPUNormalize(ImageTransform):
    """Subtract the mean and divide by the standard deviation of each channel.

    Args:
        mean: One value per channel, in units of [0, 1] images.
        std: One value per channel, above 0.
        source: Key of the images.
        target: Key of the result, in the images' dtype.

    Raises:
        ValueError: If the lengths differ or a standard deviation is not above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        source: str = "image",
        target: str = "image",
    ) -> None:
        super().__init__(source, target)
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(
                "`mean` and `std` must have one value per channel, `std` above 0, got "
                f"{list(mean)} and {list(std)}."
            )
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Normalise."""
        if images.shape[1] != self.mean.shape[1]:
            raise ValueError(
                f"GPUNormalize was given {self.mean.shape[1]} channels, the images have "
                f"{images.shape[1]}."
            )
        mean, std = (value.to(images.device, images.dtype) for value in (self.mean, self.std))
        return (images - mean) / std


def factor_range(name: str, value: Range) -> tuple[float, float]:
    """The range of a factor around 1.

    Raises:
        ValueError: If it is negative or empty.
    """
    low, high = (max(0.0, 1 - value), 1 + value) if isinstance(value, (int, float)) else value
    if (isinstance(value, (int, float)) and value < 0) or not 0 <= low <= high:
        raise ValueError(f"`{name}` must be >= 0 or a range of such numbers, got {value}.")
    return float(low), float(high)


def hue_range(value: Range) -> tuple[float, float]:
    """The range of a hue shift in turns.

    Raises:
        ValueError: If it is not within [-0.5, 0.5].
    """
    low, high = (-value, value) if isinstance(value, (int, float)) else value
    if not -0.5 <= low <= high <= 0.5:
        raise ValueError(f"`hue` must be in [0, 0.5] or a range in [-0.5, 0.5], got {value}.")
    return float(low) + 0.0, float(high) + 0.0


def grey(images: Tensor) -> Tensor:
    """Grey values ``(B, 1, H, W)`` of ``(B, 3, H, W)``; a single channel is grey already.

    Raises:
        ValueError: If there are neither 1 nor 3 channels.
    """
    if images.shape[1] == 1:
        return images
    if images.shape[1] != 3:
        raise ValueError(f"A colour operation needs 1 or 3 channels, got {tuple(images.shape)}.")
    weights = images.new_tensor(GREY_WEIGHTS).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def blend(images: Tensor, base: Tensor | float, factor: Tensor) -> Tensor:
    """``factor * images + (1 - factor) * base``, within [0, 1]."""
    factor = factor.to(images.device, images.dtype, non_blocking=True).view(-1, 1, 1, 1)
    return (factor * images + (1 - factor) * base).clamp(0, 1)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scale pixels; ``factor`` ``(B,)``."""
    return blend(images, 0.0, factor)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance to each image's mean grey value; ``factor`` ``(B,)``."""
    return blend(images, grey(images).mean((1, 2, 3), keepdim=True), factor)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance to the grey image; ``factor`` ``(B,)``."""
    _three_channels(images, "saturation")
    return blend(images, grey(images), factor)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by ``shift`` ``(B,)`` turns, through HSV (Foley & van Dam)."""
    _three_channels(images, "hue")
    shift = shift.to(images.device, images.dtype, non_blocking=True).view(-1, 1, 1)
    value, lowest = images.amax(1), images.amin(1)
    spread = value - lowest
    safe = torch.where(spread == 0, 1.0, spread)
    r, g, b = ((value - channel) / safe for channel in images.unbind(1))
    red, green = value == images[:, 0], value == images[:, 1]
    hue = torch.where(red, b - g, torch.where(green, 2 + r - b, 4 + g - r))
    hue = ((hue / 6 + 1) % 1 + shift) % 1
    shades = []
    for offset in (5.0, 3.0, 1.0):  # red, green, blue around the circle
        k = (offset + hue * 6) % 6
        shades.append(value - spread * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(shades, dim=1).clamp(0, 1)


def _three_channels(images: Tensor, what: str) -> None:
    if images.shape[1] != 3:
        raise ValueError(
            f"GPUColorJitter's {what} needs 3 channels, got images of shape {tuple(images.shape)}. "
            f"Set `{what}=0` for grey images."
        )


class ToDevice(nn.Module):
    """Move every tensor of a batch, at any depth, to a device.

    Args:
        device: The device; ``None`` for the current accelerator, or the CPU without one.
        non_blocking: Do not wait for copies from pinned memory.
    """

    def __init__(self, device: str | torch.device | None = None, non_blocking: bool = True) -> None:
        super().__init__()
        self.device = device
        self.non_blocking = non_blocking

    def forward(self, batch: object) -> object:
        """The batch on the device; containers are rebuilt, other values pass through."""
        if isinstance(batch, Tensor):
            device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
            return batch.to(device, non_blocking=self.non_blocking)
        if isinstance(batch, dict):
            return {key: self(value) for key, value in batch.items()}
        if isinstance(batch, (list, tuple)):
            return type(batch)(self(value) for value in batch)
        return batch
