"""A ring of the newest rows of a stream."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor


class Ring:
    """The newest rows of a stream in one preallocated tensor.

    Shape, dtype and device are those of the first rows; the position is a Python number, so
    appending is one or two slice copies and reads nothing back.

    Args:
        length: Rows kept.
        dtype: Type to keep them in; that of the first rows by default.
    """

    def __init__(self, length: int, dtype: torch.dtype | None = None) -> None:
        self.length = length
        self.dtype = dtype
        self.seen = 0
        self.rows: Tensor | None = None
        self._batches: deque[int] = deque()
        self._in_batches = 0

    def append(self, x: Tensor) -> None:
        """Add rows ``(N, ...)``; the oldest make room.

        Raises:
            ValueError: If the rows have another shape than the first ones.
        """
        rows, n, length = self.rows, len(x), self.length
        if rows is None or rows.device != x.device:
            rows = self._allocate(x)
        if x.shape[1:] != rows.shape[1:]:
            raise ValueError(
                f"The queue holds rows of shape {tuple(rows.shape[1:])}, got {tuple(x.shape[1:])}."
            )
        if n > length:
            x = x[-length:]
        start = (self.seen + n - len(x)) % length
        end = start + len(x)
        if end <= length:
            rows[start:end] = x
        else:
            rows[start:] = x[: length - start]
            rows[: end - length] = x[length - start :]
        self.seen += n
        self._count(n)

    def _allocate(self, x: Tensor) -> Tensor:
        """The first tensor, or the present one on the device of new rows."""
        with torch.inference_mode(False):  # what is made in inference mode cannot be written later
            if self.rows is None:
                self.rows = x.new_empty(self.length, *x.shape[1:], dtype=self.dtype or x.dtype)
            else:
                self.rows = self.rows.to(x.device)
        return self.rows

    def _count(self, n: int) -> None:
        self._batches.append(n)
        self._in_batches += n
        while self._in_batches - self._batches[0] >= self.length:
            self._in_batches -= self._batches.popleft()

    def age(self, n: int) -> int:
        """How many appends ago the oldest of the newest ``n`` rows came; 1 for the last append."""
        covered = 0
        for age, rows in enumerate(reversed(self._batches), start=1):
            covered += rows
            if covered >= n:
                return age
        return len(self._batches)

    def newest(self, n: int) -> Tensor | None:
        """The newest ``n`` rows, or fewer if there are fewer, oldest first; ``None`` if empty."""
        if self.rows is None:
            return None
        n = min(n, self.seen, self.length)
        end = self.seen % self.length
        if n <= end:
            return self.rows[end - n : end].clone()
        if end == 0:
            return self.rows[self.length - n :].clone()
        return torch.cat([self.rows[self.length - (n - end) :], self.rows[:end]])

    def resize(self, length: int) -> None:
        """Change the number of rows kept; the newest stay."""
        rows = self.newest(min(length, self.length))
        self.length = length
        self.fill(rows)

    def fill(self, rows: Tensor | None) -> None:
        """Hold these rows, oldest first, and nothing else; too many lose the oldest."""
        self.seen, self.rows, self._in_batches = 0, None, 0
        self._batches.clear()
        if rows is not None:
            self.append(rows)
