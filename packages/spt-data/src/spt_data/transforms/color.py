"""Colours: jitter, grey, solarize and the other pointwise operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from spt_data._base import (
    RecordedTransform,
    SampleTransform,
    TorchTransform,
    map_annotations,
    with_record,
)
from spt_data._keys import Path, as_paths, containers_of, read
from spt_data.datasets import Sample

Strength = float | tuple[float, float] | None
IDENTITY = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}


class ColorJitter(TorchTransform):
    """Change brightness, contrast, saturation and hue with probability ``p``, in random order.

    Record: float ``(8,)``: the four factors (1, 1, 1, 0 for those that are not given), then the
    order of the four operations; zeros when nothing was done.
    """

    def __init__(
        self,
        brightness: Strength = None,
        contrast: Strength = None,
        saturation: Strength = None,
        hue: Strength = None,
        p: float = 1,
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        super().__init__(v2.ColorJitter(brightness, contrast, saturation, hue), p, source, target)

    def record(self, params: dict[str, Any]) -> Tensor:
        """Factors and order."""
        drawn = {name: params[f"{name}_factor"] for name in IDENTITY}
        factors = [IDENTITY[name] if value is None else value for name, value in drawn.items()]
        return torch.tensor([float(value) for value in (*factors, *params["fn_idx"])])

    def bypass(self) -> Tensor:
        """Zeros."""
        return torch.zeros(8)


class RandomGrayscale(TorchTransform):
    """Turn grey with probability ``p``; channels are kept. Record: whether it was done."""

    def __init__(self, p: float = 0.1, source: Path = "image", target: Path = "image") -> None:
        super().__init__(v2.RandomGrayscale(1.0), p, source, target)


class RandomSolarize(RecordedTransform):
    """Invert the pixels at or above a threshold with probability ``p``.

    Record: whether it was done.

    Args:
        threshold: In [0, 1] for any kind of image; the papers' 128 is 0.5.
        p: Probability.
        source: Key of the image.
        target: Key of the result.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self, threshold: float, p: float = 0.5, source: Path = "image", target: Path = "image"
    ) -> None:
        super().__init__(p, source, target)
        if not 0 <= threshold <= 1:
            raise ValueError(
                f"`threshold` must be in [0, 1], got {threshold}; 128 of 255 is written 0.5."
            )
        self.threshold = threshold

    def act(self, value: Any, params: dict[str, Any]) -> Any:
        """Solarize."""
        if isinstance(value, Tensor) and value.is_floating_point():
            return F.solarize(value, self.threshold)
        most = torch.iinfo(value.dtype).max if isinstance(value, Tensor) else 255
        return F.solarize(value, round(most * self.threshold))


class RandomAutocontrast(TorchTransform):
    """Stretch each channel to the full range with probability ``p``. Record: whether it was."""

    def __init__(self, p: float = 0.5, source: Path = "image", target: Path = "image") -> None:
        super().__init__(v2.RandomAutocontrast(1.0), p, source, target)


class RandomEqualize(TorchTransform):
    """Equalise the histogram with probability ``p``. Record: whether it was done."""

    def __init__(self, p: float = 0.5, source: Path = "image", target: Path = "image") -> None:
        super().__init__(v2.RandomEqualize(1.0), p, source, target)


class RandomInvert(TorchTransform):
    """Invert with probability ``p``. Record: whether it was done."""

    def __init__(self, p: float = 0.5, source: Path = "image", target: Path = "image") -> None:
        super().__init__(v2.RandomInvert(1.0), p, source, target)


class RandomPosterize(TorchTransform):
    """Keep the leading ``bits`` with probability ``p``. Record: float ``(1,)``, bits or 0."""

    def __init__(
        self, bits: int, p: float = 0.5, source: Path = "image", target: Path = "image"
    ) -> None:
        super().__init__(v2.RandomPosterize(bits, 1.0), p, source, target)
        self.bits = bits

    def record(self, params: dict[str, Any]) -> Tensor:
        """The bits."""
        return torch.tensor([float(self.bits)])

    def bypass(self) -> Tensor:
        """Zero."""
        return torch.zeros(1)


class RandomAdjustSharpness(TorchTransform):
    """Sharpen or soften with probability ``p``. Record: float ``(1,)``, the factor or 0."""

    def __init__(
        self,
        sharpness_factor: float,
        p: float = 0.5,
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        super().__init__(v2.RandomAdjustSharpness(sharpness_factor, 1.0), p, source, target)
        self.sharpness_factor = sharpness_factor

    def record(self, params: dict[str, Any]) -> Tensor:
        """The factor."""
        return torch.tensor([float(self.sharpness_factor)])

    def bypass(self) -> Tensor:
        """Zero."""
        return torch.zeros(1)


class RandomChannelPermutation(TorchTransform):
    """Shuffle the channels. Record: int64 ``(C,)``, the source of each channel."""

    def __init__(self, source: Path = "image", target: Path = "image") -> None:
        super().__init__(v2.RandomChannelPermutation(), source=source, target=target)

    def record(self, params: dict[str, Any]) -> Tensor:
        """The permutation."""
        return torch.as_tensor(params["permutation"])

    def skip(self, sample: Sample) -> Sample:
        """A copy of the sample with its sources at the targets, and the order as it is."""
        channels = F.get_num_channels(self.read(sample)[0])
        return with_record(
            SampleTransform.skip(self, sample), type(self).__name__, torch.arange(channels)
        )


def _refuse_annotation(annotation: Any) -> Any:
    raise ValueError(
        f"the sample holds {type(annotation).__name__}, which cannot follow the rotations, shears "
        "and shifts of RandAugment; leave it out, or give the result another `target`"
    )


class RandAugment(RecordedTransform):
    """A few random operations of random strength, as DeiT uses them.

    Cubuk et al., "RandAugment", 2019. https://arxiv.org/abs/1909.13719

    Record: float ``(num_ops,)``, the magnitudes.

    Args:
        num_ops: Operations per image.
        magnitude: Mean strength, of ``magnitude_max``.
        magnitude_std: Spread of the strength, which is normal and cut to the range.
        magnitude_max: Full strength.
        source: Key of a PIL image or of a tensor.
        target: Key of the result.

    Raises:
        ValueError: If the magnitude is out of range; when called, if there are boxes, masks or
            key points beside the image, which cannot follow its rotations and shifts.

    Note:
        The operations and their ranges are torchvision's, with the identity among them.
    """

    STEPS = 101  # a tenth of a unit of DeiT's scale of 10

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: float = 9.0,
        magnitude_std: float = 0.5,
        magnitude_max: float = 10.0,
        source: Path = "image",
        target: Path = "image",
    ) -> None:
        super().__init__(source=source, target=target)
        if not 0 <= magnitude <= magnitude_max or num_ops < 1 or magnitude_std < 0:
            raise ValueError(
                f"RandAugment needs `num_ops` >= 1 and 0 <= `magnitude` <= {magnitude_max}, got "
                f"{num_ops} and {magnitude}."
            )
        self.num_ops = num_ops
        self.magnitude = magnitude
        self.magnitude_std = magnitude_std
        self.magnitude_max = magnitude_max

    def draw(self, values: list[Any]) -> dict[str, Any]:
        """The magnitudes, and the seed of the operations' own draws."""
        noise = torch.randn(self.num_ops) * self.magnitude_std
        magnitudes = (self.magnitude + noise).clamp(0, self.magnitude_max)
        return {"magnitudes": magnitudes, "state": torch.get_rng_state()}

    def _followed(self, sample: Sample, values: list[Any], params: dict[str, Any]) -> Sample:
        """The sample; annotations of an image that is changed in place are refused."""
        if as_paths(self.source) == as_paths(self.target):
            for path in containers_of(sample, as_paths(self.source)):
                map_annotations(dict(read(sample, path, "RandAugment")), _refuse_annotation)
        return sample

    def act(self, value: Any, params: dict[str, Any]) -> Any:
        """The same operations for each source."""
        torch.set_rng_state(params["state"])
        for magnitude in params["magnitudes"].tolist():
            step = round(magnitude / self.magnitude_max * (self.STEPS - 1))
            value = v2.RandAugment(1, step, self.STEPS)(value)
        return value

    def record(self, params: dict[str, Any]) -> Tensor:
        """The magnitudes."""
        magnitudes: Tensor = params["magnitudes"]
        return magnitudes

    def bypass(self) -> Tensor:
        """Zeros."""
        return torch.zeros(self.num_ops)
