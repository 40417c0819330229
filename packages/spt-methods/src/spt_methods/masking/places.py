"""Masks of a batch with the places they hide, so that heads run on these alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Hidden(NamedTuple):
    """What a mask hides.

    Attributes:
        mask: True where hidden, shape ``(B, N)``.
        places: Of the hidden patches in the flattened batch, shape ``(M,)``.
    """

    mask: Tensor
    places: Tensor

    def of(self, patches: Tensor) -> Tensor:
        """The hidden patches ``(M, ...)`` of ``(B, N, ...)``."""
        return patches.flatten(0, 1).index_select(0, self.places)


def hide(
    masking: Callable[[int, tuple[int, int]], Tensor],
    size: int,
    grid: tuple[int, int],
    device: torch.device,
) -> Hidden:
    """Draw masks on the processor and find their places there: the device is not waited for.

    Args:
        masking: Such as :class:`spt_methods.masking.BlockMasking`.
        size: Images.
        grid: Rows and columns of patches.
        device: Where to send both.
    """
    mask = masking(size, grid)
    places = mask.flatten().nonzero().flatten()
    return Hidden(mask.to(device, non_blocking=True), places.to(device, non_blocking=True))
