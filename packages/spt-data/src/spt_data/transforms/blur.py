"""Blur, noise and erasing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision.transforms import v2

from spt_data._base import RecordedTransform, TorchTransform
from spt_data._keys import Path

Range = tuple[float, float]


class GaussianBlur(TorchTransform):
    """Blur with a random width with probability ``p``.

    Record: float ``(2,)``, sigma in x and y; zeros when nothing was done.
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        sigma: float | Sequence[float] = (0.1, 2.0),
        p: float = 1,
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        super().__init__(v2.GaussianBlur(kernel_size, sigma), p, source, target)

    def record(self, params: dict[str, Any]) -> Tensor:
        """Both widths."""
        return torch.tensor([float(value) for value in params["sigma"]])

    def bypass(self) -> Tensor:
        """Zeros."""
        return torch.zeros(2)


class _Blur:
    """A filter for ``Image.filter``, as Pillow's ``ImageFilter.GaussianBlur``."""

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def filter(self, image: Any) -> Any:
        """Blur one band."""
        return image.gaussian_blur((self.radius, self.radius))


class PILGaussianBlur(RecordedTransform):
    """Blur a PIL image with a random radius; on PIL images it is faster than ``GaussianBlur``.

    Record: float ``(1,)``, the radius; zero when nothing was done.

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
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        super().__init__(p, source, target)
        self.sigma = (0.1, 2.0) if sigma is None else tuple(sigma)
        if len(self.sigma) != 2 or not 0 <= self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"`sigma` must be a range (low, high), got {sigma}.")

    def check(self, value: Any) -> None:
        """Refuse what is no PIL image."""
        if not hasattr(value, "filter"):
            raise TypeError(
                f"PILGaussianBlur needs a PIL image at {self.source!r}, got "
                f"{type(value).__name__}; use GaussianBlur for tensors."
            )

    def draw(self, values: list[Any]) -> dict[str, Any]:
        """The radius."""
        low, high = self.sigma
        return {"radius": float(torch.empty(()).uniform_(low, high))}

    def act(self, value: Any, params: dict[str, Any]) -> Any:
        """Blur."""
        return value.filter(_Blur(params["radius"]))

    def record(self, params: dict[str, Any]) -> Tensor:
        """The radius."""
        return torch.tensor([params["radius"]])

    def bypass(self) -> Tensor:
        """Zero."""
        return torch.zeros(1)


class _Noise(RecordedTransform):
    """Base of what adds normal noise to float tensors; values are not clipped."""

    mean = 0.0
    sigma = 0.1

    def check(self, value: Any) -> None:
        """Refuse what is no float tensor."""
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(
                f"{type(self).__name__} needs a float tensor, got {kind}; put ToImage before it."
            )

    def act(self, value: Any, params: dict[str, Any]) -> Tensor:
        """A new tensor with the noise."""
        noisy: Tensor = value + self.mean + self.sigma * torch.randn_like(value)
        return noisy


class GaussianNoise(_Noise):
    """Add normal noise to a float tensor with probability ``p``.

    The result is not clipped. Record: float ``(2,)``, mean and sigma; zeros when nothing was done.
    """

    def __init__(
        self,
        mean: float = 0.0,
        sigma: float = 0.1,
        p: float = 0.5,
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        super().__init__(p, source, target)
        if sigma < 0:
            raise ValueError(f"`sigma` must be at least 0, got {sigma}.")
        self.mean = mean
        self.sigma = sigma

    def record(self, params: dict[str, Any]) -> Tensor:
        """Mean and sigma."""
        return torch.tensor([float(self.mean), float(self.sigma)])

    def bypass(self) -> Tensor:
        """Zeros."""
        return torch.zeros(2)


class AdditiveGaussian(_Noise):
    """Add normal noise of width ``sigma`` to ``image``. Record: whether it was done."""

    def __init__(self, sigma: float, p: float = 1) -> None:
        super().__init__(p)
        if sigma < 0:
            raise ValueError(f"`sigma` must be at least 0, got {sigma}.")
        self.sigma = sigma


class RandomErasing(TorchTransform):
    """Erase a rectangle of a tensor with probability ``p``.

    Record: float ``(4,)``: top, left, height, width; zeros when nothing was erased.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: Range = (0.02, 0.33),
        ratio: Range = (0.3, 3.3),
        value: float | Sequence[float] | Literal["random"] = 0,
        inplace: bool = False,
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        erasing = v2.RandomErasing(1.0, scale, ratio, value, inplace)
        super().__init__(erasing, p, source, target)

    def check(self, value: Any) -> None:
        """Refuse PIL images, which torchvision passes through as they are."""
        if not isinstance(value, Tensor):
            raise TypeError(
                f"RandomErasing needs a tensor, got {type(value).__name__}; put ToImage before it."
            )

    def record(self, params: dict[str, Any]) -> Tensor:
        """The rectangle."""
        if params["v"] is None:  # none was found that fits
            return self.bypass()
        return torch.tensor([float(params[key]) for key in ("i", "j", "h", "w")])

    def bypass(self) -> Tensor:
        """Zeros."""
        return torch.zeros(4)
