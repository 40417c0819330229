"""Crops and flips, each sample with its own parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spt_augment._parameters import Draws, Parameters, on_chosen_rows
from spt_augment._random import coins, uniform
from spt_augment._resize import REACH, Interpolation, crop_resize
from spt_augment.base import ImageTransform, check_probability, pair

TRIES = 10


class GPURandomResizedCrop(ImageTransform):
    """Crop a random area of each image and resize it, antialiased.

    Parameters are drawn as in torchvision's ``RandomResizedCrop``: up to ten tries, then the
    largest central crop within the aspect range. uint8 images are rounded to whole levels after
    the resize, as torchvision's are.

    Args:
        size: Output height and width; one number for a square.
        scale: Range of the crop's share of the image's area, within (0, 1].
        ratio: Range of the crop's aspect (width / height), drawn log-uniformly.
        p: Share of the images that are cropped; the others are resized whole.
        interpolation: ``"bilinear"`` or ``"bicubic"``; the latter may leave [0, 1] in float.
        source: Key of the images ``(B, C, H, W)``.
        target: Key of the result ``(B, C, size, size)``.

    Raises:
        ValueError: If a range is empty or out of bounds.

    Example:
        >>> crop = GPURandomResizedCrop(16, scale=(0.2, 1.0))
        >>> crop({"image": torch.rand(4, 3, 32, 32)})["image"].shape
        torch.Size([4, 3, 16, 16])
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        p: float = 1.0,
        interpolation: Interpolation = "bilinear",
        source: str = "image",
        target: str = "image",
    ) -> None:
        super().__init__(source, target)
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"`scale` must be a range within (0, 1], got {tuple(scale)}.")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"`ratio` must be a range of positive numbers, got {tuple(ratio)}.")
        if interpolation not in REACH:
            raise ValueError(f"`interpolation` must be one of {[*REACH]}, got {interpolation!r}.")
        check_probability("p", p)
        self.size = pair(size)
        self.scale = (float(scale[0]), float(scale[1]))
        self.ratio = (float(ratio[0]), float(ratio[1]))
        self.p = p
        self.interpolation = interpolation

    def draw(self, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """Boxes int64 ``(n, 4)`` of top, left, height, width in pixels."""
        area = height * width * uniform(n * TRIES, *self.scale, generator)
        low, high = (math.log(bound) for bound in self.ratio)
        aspect = uniform(n * TRIES, low, high, generator).exp()
        w = (area * aspect).sqrt().round().long().view(n, TRIES)
        h = (area / aspect).sqrt().round().long().view(n, TRIES)
        fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
        first = fits.int().argmax(1, keepdim=True)
        w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
        place = torch.rand(2, n, generator=generator)
        top = (place[0] * (height - h + 1)).long()
        left = (place[1] * (width - w + 1)).long()
        drawn = torch.stack([top, left, h, w], dim=1)
        drawn = torch.where(fits.any(1)[:, None], drawn, self._central(height, width))
        cropped = coins(n, self.p, generator)
        boxes = torch.where(cropped[:, None], drawn, torch.tensor([0, 0, height, width]))
        return {"batch_prob": cropped, "box": boxes}

    def change(self, images: Tensor, given: Parameters) -> Tensor:
        """Crop and resize."""
        return crop_resize(images, given["box"], self.size, interpolation=self.interpolation)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """The size that was asked for."""
        return self.size

    def _central(self, height: int, width: int) -> Tensor:
        """The largest central crop within the aspect range."""
        aspect = width / height
        h, w = height, width
        if aspect < self.ratio[0]:
            h = round(width / self.ratio[0])
        elif aspect > self.ratio[1]:
            w = round(height * self.ratio[1])
        return torch.tensor([(height - h) // 2, (width - w) // 2, h, w])


class GPURandomHorizontalFlip(ImageTransform):
    """Mirror each image left to right with probability ``p``.

    Args:
        p: Probability, in [0, 1].
        source: Key of the images.
        target: Key of the result.

    Raises:
        ValueError: If ``p`` is out of range.
    """

    def __init__(self, p: float = 0.5, source: str = "image", target: str = "image") -> None:
        super().__init__(source, target)
        check_probability("p", p)
        self.p = p

    def draw(self, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """A coin per image."""
        return {"batch_prob": coins(n, self.p, generator)}

    def change(self, images: Tensor, given: Parameters) -> Tensor:
        """Flip the chosen images."""
        return on_chosen_rows(images.clone(), given, lambda chosen, _: chosen.flip(-1))
