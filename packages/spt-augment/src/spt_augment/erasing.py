"""Random erasing: a rectangle of each image is filled.

Zhong et al., AAAI 2020. https://arxiv.org/abs/1708.04896
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from spt_augment._parameters import Draws, Parameters, on_chosen_rows
from spt_augment._random import coins, uniform
from spt_augment.base import ImageTransform, check_probability

TRIES = 10


class GPURandomErasing(ImageTransform):
    """Fill a random rectangle of an image, drawn as torchvision's ``RandomErasing`` does.

    Args:
        scale: Range of the rectangle's share of the image's area.
        ratio: Range of height over width, drawn log-uniformly.
        value: What fills it: a number, one per channel, or ``"random"`` for a normal draw per
            pixel.
        p: Probability, in [0, 1].
        source: Key of the images.
        target: Key of the result.

    Raises:
        ValueError: If a range is empty or out of bounds, or the value is another word.
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float | Sequence[float] | Literal["random"] = 0.0,
        p: float = 0.5,
        source: str = "image",
        target: str = "image",
    ) -> None:
        super().__init__(source, target)
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"`scale` must be a range within (0, 1], got {tuple(scale)}.")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"`ratio` must be a range of positive numbers, got {tuple(ratio)}.")
        if isinstance(value, str) and value != "random":
            raise ValueError(f"`value` must be numbers or 'random', got {value!r}.")
        check_probability("p", p)
        self.scale = (float(scale[0]), float(scale[1]))
        self.ratio = (float(ratio[0]), float(ratio[1]))
        self.value = value
        self.p = p

    def draw(self, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """Boxes int64 ``(n, 4)`` of top, left, height, width; without a fit none is erased."""
        area = height * width * uniform(n * TRIES, *self.scale, generator)
        low, high = (math.log(bound) for bound in self.ratio)
        aspect = uniform(n * TRIES, low, high, generator).exp()
        h = (area * aspect).sqrt().round().long().view(n, TRIES)
        w = (area / aspect).sqrt().round().long().view(n, TRIES)
        fits = (h < height) & (w < width)
        first = fits.int().argmax(1, keepdim=True)
        h, w = h.gather(1, first)[:, 0], w.gather(1, first)[:, 0]
        place = torch.rand(2, n, generator=generator)
        top = (place[0] * (height - h + 1)).long()
        left = (place[1] * (width - w + 1)).long()
        chosen = coins(n, self.p, generator) & fits.any(1)
        seed = torch.randint(2**62, (n,), generator=generator)
        return {
            "batch_prob": chosen,
            "box": torch.stack([top, left, h, w], dim=1) * chosen[:, None],
            "_seed": seed,
        }

    def paint(self, images: Tensor, given: Parameters) -> Tensor:
        """Fill the rectangles of the chosen images."""
        return on_chosen_rows(images, given, self._fill)

    def _fill(self, images: Tensor, given: Parameters) -> Tensor:
        top, left, height, width = given["box"].T[:, :, None]
        y = torch.arange(images.shape[-2], device=images.device)
        x = torch.arange(images.shape[-1], device=images.device)
        rows, columns = (y >= top) & (y < top + height), (x >= left) & (x < left + width)
        inside = rows[:, None, :, None] & columns[:, None, None, :]
        return torch.where(inside, self._values(images, given), images)

    def _values(self, images: Tensor, given: Parameters) -> Tensor:
        if isinstance(self.value, str):
            generator, noise = torch.Generator(images.device), torch.empty_like(images)
            for image, seed in zip(noise, given.host["_seed"].tolist(), strict=True):
                image.normal_(generator=generator.manual_seed(seed))
            return noise
        numbers = [self.value] if isinstance(self.value, (int, float)) else [*self.value]
        if len(numbers) not in (1, images.shape[1]):
            raise ValueError(
                f"`value` must be one number or {images.shape[1]}, one per channel, got {numbers}."
            )
        fill = torch.empty_like(images[:1, :, :1, :1])
        for channel in range(images.shape[1]):
            fill[:, channel] = numbers[channel % len(numbers)]
        return fill
