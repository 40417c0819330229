"""Patch masks of single images, drawn in a loader's worker.

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022.
https://arxiv.org/abs/2111.06377
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from spt_data.datasets import Sample
from spt_data.transforms import SampleTransform


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
        if patch_size < 1:
            raise ValueError(f"`patch_size` must be positive, got {patch_size}.")
        if not 0 <= mask_ratio < 1:
            raise ValueError(f"`mask_ratio` must be in [0, 1), got {mask_ratio}.")
        self.patch_size = patch_size
        self.mask_ratio = mask_ratio
        self.targets = (target_visible, target_masked, target_ids_restore, target_len_keep)

    def __call__(self, sample: Sample) -> Sample:
        """A copy of the sample with the four entries."""
        visible = super().__call__(sample)[self.target]
        return {**sample, **dict(zip(self.targets, visible, strict=True))}

    def apply(self, value: Any) -> tuple[Tensor, Tensor, Tensor, int]:
        """Draw the mask of an image."""
        height, width = F.get_size(value)
        size = self.patch_size
        if height % size or width % size:
            raise ValueError(
                f"RandomMask needs sides that are multiples of {size}, got {(height, width)}; "
                "resize or crop first."
            )
        num_patches = (height // size) * (width // size)
        order = torch.randperm(num_patches)
        keep = num_kept(num_patches, self.mask_ratio)
        return order[:keep], order[keep:], order.argsort(), keep
