"""The off-diagonal entries of a square matrix, as a flat vector."""

from __future__ import annotations

from torch import Tensor


def off_diagonal(x: Tensor) -> Tensor:
    """Entries off the diagonal, row by row.

    Args:
        x: Square matrix, shape ``(n, n)``.

    Returns:
        Shape ``(n * (n - 1),)``.

    Raises:
        ValueError: If ``x`` is not a square matrix.

    Example:
        >>> import torch
        >>> off_diagonal(torch.arange(9).view(3, 3)).tolist()
        [1, 2, 3, 5, 6, 7]
    """
    if x.ndim != 2 or x.shape[0] != x.shape[1]:
        raise ValueError(f"`x` must be a square matrix of shape (n, n), got {tuple(x.shape)}.")
    n = len(x)
    if n == 0:
        return x.flatten()
    # without its last entry, the flat matrix is n - 1 rows of one diagonal and n other entries
    return x.flatten()[:-1].view(n - 1, n + 1)[:, 1:].flatten()
