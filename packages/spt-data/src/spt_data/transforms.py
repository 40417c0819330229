"""Transforms of a sample, run in a loader's worker; the operations are torchvision's v2.

A transform takes a dict and returns a new one: the given sample is never written to, so views
made from one sample cannot leak into each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from spt_data.datasets import Sample, Transform


class SampleTransform:
    """Base: reads ``source``, calls :meth:`apply`, and writes ``target``.

    Args:
        source: Key of the value to transform.
        target: Key of the result.
    """

    def __init__(self, source: str = "image", target: str = "image") -> None:
        self.source = source
        self.target = target

    def __call__(self, sample: Sample) -> Sample:
        """A copy of the sample with the result under ``target``.

        Raises:
            KeyError: If the sample has no ``source``.
        """
        if self.source not in sample:
            raise KeyError(
                f"{type(self).__name__} needs the key {self.source!r}; the sample "
                f"{sample.get('sample_idx', '')} has {sorted(sample)}."
            )
        return {**sample, self.target: self.apply(sample[self.source])}

    def apply(self, value: Any) -> Any:
        """Transform the value."""
        raise NotImplementedError

    def __repr__(self) -> str:
        public = {key: value for key, value in vars(self).items() if not key.startswith("_")}
        settings = ", ".join(f"{key}={value!r}" for key, value in public.items())
        return f"{type(self).__name__}({settings})"


class WrapTorchTransform(SampleTransform):
    """Any callable of a value, such as a torchvision transform.

    Args:
        transform: From value to value.
        source: Key of the value to transform.
        target: Key of the result.
    """

    def __init__(
        self, transform: Callable[[Any], Any], source: str = "image", target: str = "image"
    ) -> None:
        super().__init__(source, target)
        self.transform = transform

    def apply(self, value: Any) -> Any:
        """Call it."""
        return self.transform(value)


def _random(transform: Callable[[Any], Any], p: float) -> Callable[[Any], Any]:
    if not 0 <= p <= 1:
        raise ValueError(f"`p` must be in [0, 1], got {p}.")
    return v2.RandomApply([transform], p=p) if p < 1 else transform


class ToImage(SampleTransform):
    """To a tensor ``(C, H, W)``, scaled to [0, 1] and normalised if asked.

    Args:
        dtype: Of the result.
        scale: Map uint8 to [0, 1].
        mean: Channel means; with ``std``, the image is normalised.
        std: Channel standard deviations.
        rgb: Convert to three channels first, from any mode.
        source: Key of a PIL image, array ``(H, W, C)`` or tensor.
        target: Key of the result.

    Raises:
        ValueError: If only one of ``mean`` and ``std`` is given.
    """

    def __init__(
        self,
        dtype: torch.dtype = torch.float32,
        scale: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        rgb: bool = False,
        source: str = "image",
        target: str = "image",
    ) -> None:
        super().__init__(source, target)
        if (mean is None) != (std is None):
            raise ValueError(f"Give both `mean` and `std` or neither, got {mean} and {std}.")
        self.dtype = dtype
        self.scale = scale
        self.mean = None if mean is None else list(mean)
        self.std = None if std is None else list(std)
        self.rgb = rgb

    def apply(self, value: Any) -> Tensor:
        """Convert."""
        value = to_rgb(value) if self.rgb else value
        if hasattr(value, "flags") and not value.flags.writeable:
            value = value.copy()  # an array that only shows a PIL image's pixels
        image = F.to_image(value)
        image = F.to_dtype(image, self.dtype, scale=self.scale)
        if self.mean is not None and self.std is not None:
            if len(self.mean) != image.shape[-3]:
                raise ValueError(
                    f"`mean` has {len(self.mean)} channels, the image {image.shape[-3]}; use "
                    "rgb=True or give one value per channel."
                )
            image = F.normalize(image, self.mean, self.std)
        return image.as_subclass(Tensor)


class RGB(SampleTransform):
    """To three channels, from any PIL mode or from a grey tensor."""

    def apply(self, value: Any) -> Any:
        """Convert."""
        return to_rgb(value)


def to_rgb(value: Any) -> Any:
    """An image with three channels.

    Raises:
        ValueError: If a tensor has neither 1 nor 3 channels.
    """
    if isinstance(value, Tensor):
        if value.shape[-3] not in (1, 3):
            raise ValueError(f"A tensor needs 1 or 3 channels, got {tuple(value.shape)}.")
        return value if value.shape[-3] == 3 else value.repeat_interleave(3, dim=-3)
    if hasattr(value, "convert"):  # a PIL image
        return value.convert("RGB")
    return to_rgb(F.to_image(value))


class Resize(SampleTransform):
    """Resize; one number is the short side, a pair the height and width."""

    def __init__(
        self,
        size: int | Sequence[int],
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
        max_size: int | None = None,
        antialias: bool = True,
        source: str = "image",
        target: str = "image",
    ) -> None:
        super().__init__(source, target)
        sides = [size] if isinstance(size, int) else list(size)
        self.transform = v2.Resize(sides, interpolation, max_size, antialias)

    def apply(self, value: Any) -> Any:
        """Resize."""
        return self.transform(value)


class CenterCrop(WrapTorchTransform):
    """Cut the centre."""

    def __init__(
        self, size: int | Sequence[int], source: str = "image", target: str = "image"
    ) -> None:
        super().__init__(v2.CenterCrop(size), source, target)


class RandomResizedCrop(WrapTorchTransform):
    """Crop a random area and resize it, antialiased."""

    def __init__(
        self,
        size: int | Sequence[int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
        antialias: bool = True,
        source: str = "image",
        target: str = "image",
    ) -> None:
        crop = v2.RandomResizedCrop(size, scale, ratio, interpolation, antialias)
        super().__init__(crop, source, target)


class RandomHorizontalFlip(WrapTorchTransform):
    """Mirror left to right with probability ``p``."""

    def __init__(self, p: float = 0.5, source: str = "image", target: str = "image") -> None:
        super().__init__(_random(F.horizontal_flip, p), source, target)


class ColorJitter(WrapTorchTransform):
    """Change brightness, contrast, saturation and hue with probability ``p``."""

    def __init__(
        self,
        brightness: float | tuple[float, float] | None = None,
        contrast: float | tuple[float, float] | None = None,
        saturation: float | tuple[float, float] | None = None,
        hue: float | tuple[float, float] | None = None,
        p: float = 1,
        source: str = "image",
        target: str = "image",
    ) -> None:
        jitter = v2.ColorJitter(brightness, contrast, saturation, hue)
        super().__init__(_random(jitter, p), source, target)


class RandomGrayscale(WrapTorchTransform):
    """Turn grey with probability ``p``; channels are kept."""

    def __init__(self, p: float = 0.1, source: str = "image", target: str = "image") -> None:
        super().__init__(v2.RandomGrayscale(p), source, target)


class RandomSolarize(SampleTransform):
    """Invert the pixels at or above a threshold with probability ``p``.

    Args:
        threshold: In [0, 1] for any kind of image; the papers' 128 is 0.5.
        p: Probability.
        source: Key of the image.
        target: Key of the result.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self, threshold: float, p: float = 0.5, source: str = "image", target: str = "image"
    ) -> None:
        super().__init__(source, target)
        if not 0 <= threshold <= 1:
            raise ValueError(
                f"`threshold` must be in [0, 1], got {threshold}; 128 of 255 is written 0.5."
            )
        self.threshold = threshold
        self._operation = _random(self._solarize, p)

    def _solarize(self, value: Any) -> Any:
        floating = isinstance(value, Tensor) and value.is_floating_point()
        return F.solarize(value, self.threshold if floating else round(255 * self.threshold))

    def apply(self, value: Any) -> Any:
        """Solarize."""
        return self._operation(value)


class GaussianBlur(WrapTorchTransform):
    """Blur with a random width with probability ``p``."""

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        sigma: tuple[float, float] = (0.1, 2.0),
        p: float = 1,
        source: str = "image",
        target: str = "image",
    ) -> None:
        super().__init__(_random(v2.GaussianBlur(kernel_size, sigma), p), source, target)


class _Blur:
    """A filter for ``Image.filter``, as Pillow's ``ImageFilter.GaussianBlur``."""

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def filter(self, image: Any) -> Any:
        """Blur one band."""
        return image.gaussian_blur((self.radius, self.radius))


class PILGaussianBlur(SampleTransform):
    """Blur a PIL image with a random radius; on PIL images it is faster than ``GaussianBlur``.

    Args:
        sigma: Range of the radius in pixels, [0.1, 2.0] by default.
        p: Probability.
        source: Key of a PIL image.
        target: Key of the result.

    Raises:
        TypeError: When called, if the image is not a PIL image.
        ValueError: If the range or the probability is not one.
    """

    def __init__(
        self,
        sigma: Sequence[float] | None = None,
        p: float = 1,
        source: str = "image",
        target: str = "image",
    ) -> None:
        super().__init__(source, target)
        self.sigma = (0.1, 2.0) if sigma is None else tuple(sigma)
        if len(self.sigma) != 2 or not 0 <= self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"`sigma` must be a range (low, high), got {sigma}.")
        self._operation = _random(self._blur, p)

    def _blur(self, value: Any) -> Any:
        low, high = self.sigma
        return value.filter(_Blur(float(torch.empty(()).uniform_(low, high))))

    def apply(self, value: Any) -> Any:
        """Blur."""
        if not hasattr(value, "filter"):
            raise TypeError(
                f"PILGaussianBlur needs a PIL image at {self.source!r}, got "
                f"{type(value).__name__}; use GaussianBlur for tensors."
            )
        return self._operation(value)


class Lambda(SampleTransform):
    """Store ``lambd(sample)`` at ``target``.

    Args:
        lambd: From the whole sample to a value.
        source: Accepted for uniformity; the function gets the whole sample.
        target: Key of the result.
    """

    def __init__(
        self, lambd: Callable[[Sample], Any], source: str = "image", target: str = "image"
    ) -> None:
        super().__init__(source, target)
        self.lambd = lambd

    def __call__(self, sample: Sample) -> Sample:
        """A copy of the sample with the result."""
        return {**sample, self.target: self.lambd(sample)}


class Compose:
    """One transform after the other: ``Compose(a, b, c)``.

    Raises:
        TypeError: If an argument cannot be called.
    """

    def __init__(self, *transforms: Transform) -> None:
        for position, transform in enumerate(transforms):
            if not callable(transform):
                raise TypeError(
                    f"Argument {position} of Compose must be callable, got "
                    f"{type(transform).__name__}; pass transforms one by one, Compose(a, b)."
                )
        self.transforms = transforms

    def __call__(self, sample: Sample) -> Sample:
        """Apply all in order."""
        for transform in self.transforms:
            sample = transform(sample)
        return sample

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.transforms))})"


class MultiViewTransform:
    """Several transforms of one sample: a list under ``views``, or one entry per name.

    Args:
        transforms: A list of transforms, or a mapping of names to transforms.

    Raises:
        ValueError: If there is none.

    Example:
        >>> views = MultiViewTransform([lambda s: s, lambda s: {**s, "label": 1}])
        >>> views({"label": 0})
        {'views': [{'label': 0}, {'label': 1}]}
    """

    def __init__(self, transforms: Sequence[Transform] | Mapping[str, Transform]) -> None:
        if not transforms:
            raise ValueError("MultiViewTransform needs at least one transform, got none.")
        self.transforms = transforms

    def __call__(self, sample: Sample) -> Sample:
        """The views; each transform gets its own shallow copy."""
        if isinstance(self.transforms, Mapping):
            return {name: transform(dict(sample)) for name, transform in self.transforms.items()}
        return {"views": [transform(dict(sample)) for transform in self.transforms]}

    def __repr__(self) -> str:
        return f"MultiViewTransform({self.transforms!r})"
