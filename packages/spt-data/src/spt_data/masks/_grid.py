"""The patch grid of an image."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torchvision.transforms.v2 import functional as F

from spt_data._base import SampleTransform
from spt_data.datasets import Sample


class GridMask(SampleTransform):
    """Base of the masks that are bool ``(H, W)`` over patches, True where masked."""

    patch_size: int

    def skip(self, sample: Sample) -> Sample:
        """A copy of the sample with a mask that masks nothing."""
        [value] = self.read(sample)
        grid = grid_of(value, self.patch_size, type(self).__name__)
        return self.write(sample, [torch.zeros(grid, dtype=torch.bool)])


def refuse_to_skip(name: str) -> NoReturn:
    """Refuse to leave out a mask whose entries are lists of patches.

    Raises:
        ValueError: Always; there are no lists that mask nothing and stack with the others.
    """
    raise ValueError(
        f"{name} cannot be left out for some samples: its lists of patches would not stack with "
        "those of the others. Draw it for all, or choose between two masks with RoutingTransform."
    )


def check_patch_size(patch_size: int) -> int:
    """Refuse a patch without area.

    Raises:
        ValueError: If it is below 1.
    """
    if patch_size < 1:
        raise ValueError(f"`patch_size` must be positive, got {patch_size}.")
    return patch_size


def grid_of(image: Any, patch_size: int, needer: str) -> tuple[int, int]:
    """Rows and columns of patches.

    Raises:
        TypeError: If it is neither a PIL image nor a tensor.
        ValueError: If the image cannot be cut into whole patches.
    """
    try:
        height, width = F.get_size(image)
    except TypeError:
        raise TypeError(
            f"{needer} needs a PIL image or a tensor (..., H, W), got {type(image).__name__}."
        ) from None
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"{needer} needs sides that are multiples of {patch_size}, got {(height, width)}; "
            "resize or crop first."
        )
    return height // patch_size, width // patch_size
