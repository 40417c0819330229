"""Random masks: of patches (MAE), and of larger units (SimMIM).

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022.
https://arxiv.org/abs/2111.06377
Xie et al., "SimMIM", CVPR 2022. https://arxiv.org/abs/2111.09886
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from spt_data._base import SampleTransform
from spt_data._keys import read, write
from spt_data.datasets import Sample
from spt_data.masks._grid import GridMask, check_patch_size, grid_of, refuse_to_skip


def num_kept(num_patches: int, ratio: float) -> int:
    """Patches that stay when a ratio is masked: rounded, and at least one.

    Note:
        The official code truncates the float product, so that of 10 patches at ratio 0.9 none
        stays, for ``10 * (1 - 0.9)`` is a little less than 1.

    Example:
        >>> num_kept(196, 0.75), num_kept(10, 0.9)
        (49, 1)
    """
    return max(1, round(num_patches * (1 - ratio)))


def split_order(order: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor, Tensor, int]:
    """Kept patches, masked patches, the inverse permutation and the number that is kept.

    Args:
        order: A permutation of the patches, int64 ``(N,)``.
        mask_ratio: Share of the patches to mask.
    """
    keep = num_kept(len(order), mask_ratio)
    return order[:keep], order[keep:], order.argsort(), keep


class RandomMask(SampleTransform):
    """Shuffle the patches and keep the first ones, as MAE does.

    Args:
        patch_size: Side of a patch in pixels.
        mask_ratio: Share of the patches to mask, in [0, 1).
        source: Key of the image, whose sides are multiples of ``patch_size``.
        target_visible: Key of the kept patches, int64 ``(K,)`` in order of the shuffle.
        target_masked: Key of the others, int64 ``(N - K,)``.
        target_ids_restore: Key of the inverse permutation, int64 ``(N,)``.
        target_len_keep: Key of the int ``K``.

    Raises:
        ValueError: If a number is out of range or, when called, the image cannot be cut.
    """

    def __init__(
        self,
        patch_size: int = 16,
        mask_ratio: float = 0.75,
        source: str = "image",
        target_visible: str = "mask_visible",
        target_masked: str = "mask_masked",
        target_ids_restore: str = "ids_restore",
        target_len_keep: str = "len_keep",
    ) -> None:
        super().__init__(source, target_visible)
        self.patch_size = check_patch_size(patch_size)
        if not 0 <= mask_ratio < 1:
            raise ValueError(f"`mask_ratio` must be in [0, 1), got {mask_ratio}.")
        self.mask_ratio = mask_ratio
        self.targets = (target_visible, target_masked, target_ids_restore, target_len_keep)

    def __call__(self, sample: Sample) -> Sample:
        """A copy of the sample with the four entries."""
        entries = read(super().__call__(sample), self.targets[0], "RandomMask")
        for path, entry in zip(self.targets, entries, strict=True):
            sample = write(sample, path, entry)
        return sample

    def skip(self, sample: Sample) -> Sample:
        """Refused.

        Raises:
            ValueError: Always.
        """
        refuse_to_skip("RandomMask")

    def apply(self, value: Any) -> tuple[Tensor, Tensor, Tensor, int]:
        """Draw the mask of an image."""
        height, width = grid_of(value, self.patch_size, "RandomMask")
        return split_order(torch.randperm(height * width), self.mask_ratio)


def unit_mask(order: Tensor, units: tuple[int, int], scale: int, mask_ratio: float) -> Tensor:
    """The mask whose masked units are the first of a permutation.

    Args:
        order: A permutation of the units, ``(N,)``.
        units: Rows and columns of units.
        scale: Patches along the side of a unit.
        mask_ratio: Share of the units to mask; their number is rounded up.

    Returns:
        Bool ``(H, W)`` over patches, True where masked.
    """
    mask = torch.zeros(len(order), dtype=torch.bool)
    mask[order[: math.ceil(len(order) * mask_ratio)]] = True
    grid = mask.view(units)
    return grid.repeat_interleave(scale, 0).repeat_interleave(scale, 1)


class UnitMask(GridMask):
    """Mask random square units that are larger than a patch, as SimMIM does.

    Args:
        patch_size: Side of the model's patches in pixels.
        unit_size: Side of a masked unit in pixels, a multiple of ``patch_size``.
        mask_ratio: Share of the units to mask, in [0, 1]; their number is rounded up.
        source: Key of the image, whose sides are multiples of ``unit_size``.
        target: Key of the mask, bool ``(H, W)`` over patches, True where masked.

    Raises:
        ValueError: If a number is out of range or, when called, the image cannot be cut.
    """

    def __init__(
        self,
        patch_size: int = 4,
        unit_size: int = 32,
        mask_ratio: float = 0.6,
        source: str = "image",
        target: str = "mask",
    ) -> None:
        super().__init__(source, target)
        self.patch_size = check_patch_size(patch_size)
        if unit_size < patch_size or unit_size % patch_size:
            raise ValueError(
                f"`unit_size` must be a multiple of `patch_size` {patch_size}, got {unit_size}."
            )
        if not 0 <= mask_ratio <= 1:
            raise ValueError(f"`mask_ratio` must be in [0, 1], got {mask_ratio}.")
        self.unit_size = unit_size
        self.mask_ratio = mask_ratio

    def apply(self, value: Any) -> Tensor:
        """Draw the mask of an image."""
        units = grid_of(value, self.unit_size, "UnitMask")
        order = torch.randperm(units[0] * units[1])
        return unit_mask(order, units, self.unit_size // self.patch_size, self.mask_ratio)
