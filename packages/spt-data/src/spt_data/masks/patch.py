"""Patches of an image replaced by a value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from spt_data._base import SampleTransform
from spt_data._keys import write
from spt_data._modes import to_tensor
from spt_data.datasets import Sample
from spt_data.masks._grid import check_patch_size


class PatchMasking(SampleTransform):
    """Fill a share of the patches; pixels outside whole patches stay as they are.

    Args:
        patch_size: Side of a patch in pixels.
        drop_ratio: Share of the patches to fill, in [0, 1]; their number is rounded.
        source: Key of a PIL image or tensor.
        target: Key of the result, a float tensor in [0, 1] (floats keep their range).
        fill_value: Value of the filled pixels, 0 by default.
        mask_key: Key of the mask, bool ``(H // p, W // p)``, **True where kept**.

    Raises:
        ValueError: If a number is out of range.
        TypeError: When called, if the source is no image.
    """

    def __init__(
        self,
        patch_size: int = 16,
        drop_ratio: float = 0.5,
        source: str = "image",
        target: str = "image",
        fill_value: float | None = None,
        mask_key: str = "patch_mask",
    ) -> None:
        super().__init__(source, target)
        self.patch_size = check_patch_size(patch_size)
        if not 0 <= drop_ratio <= 1:
            raise ValueError(f"`drop_ratio` must be in [0, 1], got {drop_ratio}.")
        self.drop_ratio = drop_ratio
        self.fill_value = 0.0 if fill_value is None else fill_value
        self.mask_key = mask_key

    def __call__(self, sample: Sample) -> Sample:
        """A copy of the sample with the masked image and the mask."""
        [value] = self.read(sample)
        try:
            image, kept = self.apply(value)
        except Exception as error:
            self.refuse(error, sample)
        return self._written(sample, image, kept)

    def skip(self, sample: Sample) -> Sample:
        """A copy of the sample with the whole image, and a mask that keeps all."""
        [value] = self.read(sample)
        image = _floats(value)
        rows, columns = (side // self.patch_size for side in image.shape[-2:])
        return self._written(sample, image, torch.ones(rows, columns, dtype=torch.bool))

    def _written(self, sample: Sample, image: Tensor, kept: Tensor) -> Sample:
        masked: Sample = write(self.write(sample, [image]), self.mask_key, kept)
        return masked

    def apply(self, value: Any) -> tuple[Tensor, Tensor]:
        """The masked image and the mask."""
        image = _floats(value)
        size = self.patch_size
        rows, columns = image.shape[-2] // size, image.shape[-1] // size
        kept = torch.ones(rows * columns, dtype=torch.bool)
        kept[torch.randperm(len(kept))[: round(len(kept) * self.drop_ratio)]] = False
        kept = kept.view(rows, columns)
        pixels = torch.ones(image.shape[-2:], dtype=torch.bool)
        whole = kept.repeat_interleave(size, 0).repeat_interleave(size, 1)
        pixels[: rows * size, : columns * size] = whole
        return torch.where(pixels, image, torch.tensor(float(self.fill_value))), kept


def _floats(value: Any) -> Tensor:
    return F.to_dtype(to_tensor(value), torch.float32, scale=True).as_subclass(Tensor)
