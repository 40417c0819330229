"""Random masks of patches, as MAE draws them.

He et al., CVPR 2022. https://arxiv.org/abs/2111.06377
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spt_augment.masks._grid import BatchMask


class BatchRandomMask(BatchMask):
    """Shuffle the patches of every image and keep the first ones.

    Args:
        patch_size: Side of a patch in pixels.
        mask_ratio: Share of the patches to mask, in [0, 1).
        source: Key of the images, whose sides are multiples of ``patch_size``.
        target_visible: Key of the kept patches, int64 ``(B, K)`` in order of the shuffle.
        target_masked: Key of the others, int64 ``(B, N - K)``.
        target_ids_restore: Key of the inverse permutations, int64 ``(B, N)``.
        target_len_keep: Key of the int ``K``.

    Raises:
        ValueError: If a number is out of range or, when called, the images cannot be cut.

    Example:
        >>> batch = BatchRandomMask(4, 0.75)({"image": torch.rand(2, 3, 16, 16)})
        >>> batch["mask_visible"].shape, batch["mask_masked"].shape, batch["len_keep"]
        (torch.Size([2, 4]), torch.Size([2, 12]), 4)
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
        super().__init__(patch_size, source)
        if not 0 <= mask_ratio < 1:
            raise ValueError(f"`mask_ratio` must be in [0, 1), got {mask_ratio}.")
        self.mask_ratio = mask_ratio
        self.targets = (target_visible, target_masked, target_ids_restore, target_len_keep)

    def draw(self, n: int, grid: tuple[int, int], generator: torch.Generator) -> dict[str, Any]:
        """The four entries."""
        noise = torch.rand(n, grid[0] * grid[1], generator=generator)
        return dict(zip(self.targets, split_by_noise(noise, self.mask_ratio), strict=True))


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


def split_by_noise(noise: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor, Tensor, int]:
    """Kept and masked patches in order of rising noise, the inverse permutation, and the count.

    Args:
        noise: ``(B, N)``.
        mask_ratio: Share of the patches to mask.
    """
    order = noise.argsort(dim=1, stable=True)
    keep = num_kept(noise.shape[1], mask_ratio)
    return order[:, :keep], order[:, keep:], order.argsort(1), keep
