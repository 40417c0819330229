"""Views of a flat batch."""

from __future__ import annotations

from torch import Tensor


def fold_views(tensor: Tensor, idx: Tensor) -> tuple[Tensor, ...]:
    """Take a flat batch of repeated rows apart into its views.

    Args:
        tensor: Values, shape ``(B * V, ...)``.
        idx: Row of the dataset of each value, shape ``(B * V,)``; each comes ``V`` times.

    Returns:
        ``V`` tensors ``(B, ...)``; rows stand in the order in which they first come in the batch.

    Raises:
        RuntimeError: If some rows come more often than others.

    Example:
        >>> import torch
        >>> fold_views(torch.tensor([7, 8, 1, 2]), torch.tensor([9, 9, 0, 0]))
        (tensor([7, 1]), tensor([8, 2]))
    """
    rows, inverse, counts = idx.unique(return_inverse=True, return_counts=True)
    if len(counts.unique()) != 1 or len(idx) != len(tensor):
        raise RuntimeError(
            f"Each row must come equally often, got rows {rows.tolist()[:10]} with counts "
            f"{counts.tolist()[:10]} for {len(tensor)} values."
        )
    n_views = int(counts[0])
    grouped = inverse.argsort(stable=True).view(len(rows), n_views)  # (B, V), by row
    grouped = grouped[grouped[:, 0].argsort()]  # by first place in the batch
    return tuple(tensor[grouped[:, view]] for view in range(n_views))
