"""Queues for models: the newest rows of a stream, saved with the module that holds them.

What momentum methods take their negatives or neighbours from. The rows are no buffers, which
DistributedDataParallel would overwrite by those of rank 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spt_callbacks.ring import Ring


class UnsortedQueue(nn.Module):
    """The newest rows of a stream, in the order in which they are stored.

    Args:
        max_length: Rows kept; with 0 nothing is, and :meth:`append` gives its rows back.
        shape: Shape of a row; that of the first rows by default.
        dtype: Type in which to keep them; that of the first rows by default.

    Raises:
        ValueError: If ``max_length`` is negative.

    Example:
        >>> queue = UnsortedQueue(3)
        >>> queue.append(torch.tensor([1, 2])).tolist()
        [1, 2]
        >>> queue.append(torch.tensor([3, 4])).tolist()
        [4, 2, 3]
    """

    def __init__(
        self,
        max_length: int,
        shape: int | tuple[int, ...] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if max_length < 0:
            raise ValueError(f"`max_length` must be >= 0, got {max_length}.")
        super().__init__()
        self.max_length = max_length
        self.shape = (shape,) if isinstance(shape, int) else shape
        self.dtype = dtype
        self._ring = Ring(max_length, dtype)

    @torch.no_grad()
    def append(self, x: Tensor) -> Tensor:
        """Add rows ``(N, ...)``, detached; the oldest make room.

        Returns:
            What the queue now holds, as :meth:`get` does.

        Raises:
            ValueError: If the rows have another shape than those before them, or than ``shape``.
        """
        if self.shape is not None and tuple(x.shape[1:]) != tuple(self.shape):
            raise ValueError(
                f"The queue keeps rows of shape {tuple(self.shape)}, got {tuple(x.shape[1:])}."
            )
        if not self.max_length:
            return x
        self._ring.append(x)
        return self.get()

    def get(self) -> Tensor:
        """The rows, at most ``(max_length, ...)``, as they are stored: a view."""
        rows = self._ring.rows
        if rows is None:
            return torch.empty(0, *(self.shape or ()), dtype=self.dtype)
        return rows[: self._ring.seen]

    def get_extra_state(self) -> Tensor | None:
        """The rows, oldest first, for the ``state_dict``."""
        return self._ring.newest(self.max_length)

    def set_extra_state(self, state: Tensor | None) -> None:
        """Hold the rows of a ``state_dict``; of more than there is room for, the newest."""
        if self.max_length:
            self._ring.fill(state)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move the rows with the module."""
        if self._ring.rows is not None:
            self._ring.rows = fn(self._ring.rows)
        return super()._apply(fn, recurse)


class OrderedQueue(UnsortedQueue):
    """The newest rows of a stream, oldest first.

    Example:
        >>> queue = OrderedQueue(3)
        >>> queue.append(torch.tensor([1, 2, 3, 4])).tolist()
        [2, 3, 4]
    """

    def get(self) -> Tensor:
        """The rows, at most ``(max_length, ...)``, oldest first: a copy."""
        rows = self._ring.newest(self.max_length) if self.max_length else None
        return self.get_unsorted() if rows is None else rows

    def get_unsorted(self) -> Tensor:
        """The rows as they are stored: a view."""
        return super().get()
