"""Show some patches, predict some of the others, and leave out the rest.

Fu et al., "Rethinking Patch Dependence for Masked Autoencoders" (CrossMAE), 2024, section 3.3.
https://arxiv.org/abs/2401.14391; official code https://github.com/TonyLianLong/CrossMAE.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spt_methods.masking.seeded import SeededMasking


class PartialMaskingOutput(NamedTuple):
    """Places of patches, in their order on the grid.

    Attributes:
        ids_keep: Of the visible ones, shape ``(B, n)``.
        places: Of those to predict, shape ``(B, m)``.
    """

    ids_keep: Tensor
    places: Tensor


class PartialMasking(SeededMasking):
    """Of N patches ``int(N (1 - mask_ratio))`` are visible, ``int(N (mask_ratio - kept_mask_ratio))`` nowhere.

    Args:
        mask_ratio: Share of patches that the encoder does not see.
        kept_mask_ratio: Share of patches to predict; equal to ``mask_ratio``, all hidden ones are.
        seed: See :class:`SeededMasking`.

    Raises:
        ValueError: Unless ``0 < kept_mask_ratio <= mask_ratio < 1``.

    Example:
        >>> [x.shape[1] for x in PartialMasking(0.75, 0.25)(2, 16, "cpu")]
        [4, 4]
    """

    def __init__(
        self, mask_ratio: float = 0.75, kept_mask_ratio: float = 0.75, seed: int = 0
    ) -> None:
        super().__init__(seed)
        if not 0.0 < kept_mask_ratio <= mask_ratio < 1.0:
            raise ValueError(
                "`kept_mask_ratio` and `mask_ratio` must be 0 < kept <= mask < 1, got "
                f"{kept_mask_ratio} and {mask_ratio}."
            )
        self.mask_ratio = mask_ratio
        self.kept_mask_ratio = kept_mask_ratio

    def forward(self, size: int, number: int, device: torch.device | str) -> PartialMaskingOutput:
        """Places for ``size`` images of ``number`` patches, drawn on the device."""
        visible = int(number * (1 - self.mask_ratio))
        left_out = int(number * (self.mask_ratio - self.kept_mask_ratio))
        generator = self.next_generator(torch.device(device))
        noise = torch.rand(size, number, generator=generator, device=device)
        order = noise.argsort(dim=1)
        keep, predict = order[:, :visible], order[:, visible + left_out :]
        return PartialMaskingOutput(keep.sort(dim=1).values, predict.sort(dim=1).values)
