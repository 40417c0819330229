"""Batches from arrays in memory, in an order that depends on (seed, epoch) alone; resumable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


class ArrayLoader:
    """Iterate over arrays in batches; the last one may be shorter.

    Args:
        arrays: Arrays of one length, by name; images ``(N, H, W, C)``.
        batch_size: Rows of a batch.
        shuffle: Change the order each epoch.
        seed: Of the order.

    Raises:
        ValueError: If the arrays differ in length or there is none.
    """

    def __init__(
        self,
        arrays: Mapping[str, Any],
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        self.arrays = {name: np.asarray(value) for name, value in arrays.items()}
        lengths = {name: len(value) for name, value in self.arrays.items()}
        if len(set(lengths.values())) != 1 or batch_size < 1:
            raise ValueError(
                f"`arrays` must have one length and `batch_size` be >= 1, got {lengths} and {batch_size}."
            )
        self.rows = next(iter(lengths.values()))
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self._given = self._skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; the next iteration begins with its first batch."""
        self.epoch, self._skip = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Where the newest iteration is."""
        return {"epoch": self.epoch, "batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration begin there, without making the batches before it."""
        self.epoch, self._skip = state["epoch"], state["batches"]

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        order = np.arange(self.rows)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.rows)
        first, self._skip = self._skip, 0
        for number in range(first, len(self)):
            index = order[number * self.batch_size : (number + 1) * self.batch_size]
            self._given = number + 1
            yield {name: value[index] for name, value in self.arrays.items()}
