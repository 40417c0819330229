"""Pointwise colour operations as torchvision computes them, with parameters per sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spt_augment import _inplace
from spt_augment._colors import JitterProgram
from spt_augment._parameters import Draws, Parameters, column, on_chosen_rows
from spt_augment._random import coins, uniform
from spt_augment.base import ImageTransform, check_probability

Range = float | tuple[float, float]
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
FACTORS = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
STEPS = (
    _inplace.adjust_brightness,
    _inplace.adjust_contrast,
    _inplace.adjust_saturation,
    _inplace.adjust_hue,
)


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
        self.ranges = (
            factor_range("brightness", brightness),
            factor_range("contrast", contrast),
            factor_range("saturation", saturation),
            hue_range(hue),
        )
        self.active = [self.ranges[i] != ((0.0,) * 2 if i == HUE else (1.0,) * 2) for i in range(4)]

    def draw(self, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """Four factors per image, who is changed, and the order, equal in all rows."""
        factors = [uniform(n, *bounds, generator) for bounds in self.ranges]
        order = torch.randperm(4, generator=generator)
        chosen = coins(n, self.p, generator)
        drawn = {"batch_prob": chosen, **dict(zip(FACTORS, factors, strict=True))}
        numbers = jitter_numbers(drawn, order.tolist())
        return {**drawn, "order": order.expand(n, 4), "_numbers": numbers}

    def paint(self, images: Tensor, given: Parameters) -> Tensor:
        """Jitter the chosen images."""
        self.check_channels(images)
        return on_chosen_rows(images, given, self._steps)

    def _steps(self, images: Tensor, given: Parameters) -> Tensor:
        for i in given.host["order"][0].tolist():
            if self.active[i]:
                images = STEPS[i](images, column(given[FACTORS[i]], images))
        return images

    def check_channels(self, images: Tensor) -> None:
        """Refuse images that have no colours to change.

        Raises:
            ValueError: If a step needs 3 channels and there are fewer or more.
        """
        for i, what in ((SATURATION, "saturation"), (HUE, "hue"), (CONTRAST, "contrast")):
            allowed = (1, 3) if i == CONTRAST else (3,)
            if self.active[i] and images.shape[1] not in allowed:
                raise ValueError(
                    f"GPUColorJitter's {what} needs 3 channels, got images of shape "
                    f"{tuple(images.shape)}. Set `{what}=0` for grey images."
                )

    def program(self, given: Parameters) -> JitterProgram:
        """What a compiled jitter is specialised to."""
        order = given.host["order"][0].tolist()
        return JitterProgram(
            slots=self.active[BRIGHTNESS] or self.active[SATURATION],
            contrast=self.active[CONTRAST],
            hue=self.active[HUE],
            hue_first=order.index(HUE) < order.index(CONTRAST),
        )


def jitter_numbers(drawn: Draws, order: list[int]) -> Tensor:
    """The numbers of :func:`spt_augment._colors.jitter` ``(n, 15)`` for an order of the steps."""
    one = torch.ones_like(drawn["brightness_factor"])
    cells = [one, 0 * one] * 6  # slots that do nothing
    place = 0
    for step in order:
        if step in (HUE, CONTRAST):
            place = (place // 2 + 1) * 2  # the next pair of slots
            continue
        factor = drawn[FACTORS[step]]
        share = 1 - factor if step == SATURATION else 0 * one
        cells[2 * place : 2 * place + 2] = [factor, share]
        place += 1
    cells += [drawn["contrast_factor"], drawn["hue_factor"], drawn["batch_prob"].float()]
    return torch.stack(cells, dim=1)


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

    def draw(self, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """A coin per image."""
        return {"batch_prob": coins(n, self.p, generator)}

    def paint(self, images: Tensor, given: Parameters) -> Tensor:
        """Grey the chosen images."""
        return on_chosen_rows(images, given, lambda rows, _: rows.copy_(_inplace.grey(rows)))


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

    def draw(self, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """A coin per image."""
        return {"batch_prob": coins(n, self.p, generator)}

    def paint(self, images: Tensor, given: Parameters) -> Tensor:
        """Solarize the chosen images."""
        return on_chosen_rows(
            images, given, lambda rows, _: _inplace.solarize(rows, self.threshold)
        )


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
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)

    def draw(self, n: int, height: int, width: int, generator: torch.Generator) -> Draws:
        """Nothing: every image is normalised."""
        return {"batch_prob": torch.ones(n, dtype=torch.bool)}

    def paint(self, images: Tensor, given: Parameters) -> Tensor:
        """Normalise, channel by channel: numbers in the code need no copy to the device."""
        self.check_channels(images)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            images[:, channel].sub_(mean).mul_(1 / std)
        return images

    def check_channels(self, images: Tensor) -> None:
        """Refuse another number of channels.

        Raises:
            ValueError: If the images have more or fewer.
        """
        if images.shape[1] != len(self.mean):
            raise ValueError(
                f"GPUNormalize was given {len(self.mean)} channels, the images have "
                f"{images.shape[1]}."
            )


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
