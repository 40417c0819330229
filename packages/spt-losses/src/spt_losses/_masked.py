"""Means over the places that a mask shows."""

from __future__ import annotations

from torch import Tensor

from spt_losses._distributed import sum_over_ranks, world_size


def masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``error`` where ``mask`` is 1, over all ranks, without asking the device.

    Args:
        error: Any shape.
        mask: 1 (or True) where the error counts, of the same shape.

    Returns:
        Scalar whose average over ranks is the mean over all places that count; 0 if none does.

    Raises:
        ValueError: If the shapes differ.
    """
    if mask.shape != error.shape:
        raise ValueError(
            f"`mask` must have shape {tuple(error.shape)}, one number per patch, got "
            f"{tuple(mask.shape)}."
        )
    weights = mask.detach().to(error.dtype)
    total = sum_over_ranks(weights.sum())
    return (error * weights).sum() * world_size() / total.clamp(min=1.0)
