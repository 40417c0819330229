"""Rings of recent rows, one per key and trainer, shared by the callbacks that ask for them."""

from __future__ import annotations

import weakref
from typing import Any

import lightning as pl
import torch
from torch import Tensor

from spt_callbacks.distributed import gather_rows
from spt_callbacks.keys import look_up


class Ring:
    """The newest rows of a stream in one preallocated tensor.

    Shape, dtype and device are those of the first rows; the position is a Python number, so
    appending is one or two slice copies and reads nothing back.

    Args:
        length: Rows kept.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.seen = 0
        self.rows: Tensor | None = None

    def append(self, x: Tensor) -> None:
        """Add rows ``(N, ...)``; the oldest make room.

        Raises:
            ValueError: If the rows have another shape than the first ones.
        """
        if self.rows is None:
            self.rows = x.new_empty(self.length, *x.shape[1:])
        if x.shape[1:] != self.rows.shape[1:]:
            raise ValueError(
                f"The queue holds rows of shape {tuple(self.rows.shape[1:])}, got "
                f"{tuple(x.shape[1:])}."
            )
        if self.rows.device != x.device:
            self.rows = self.rows.to(x.device)
        kept = x[-self.length :]
        start = (self.seen + len(x) - len(kept)) % self.length
        first = min(len(kept), self.length - start)
        self.rows[start : start + first] = kept[:first]
        self.rows[: len(kept) - first] = kept[first:]
        self.seen += len(x)

    def newest(self, n: int) -> Tensor | None:
        """The newest ``n`` rows, or fewer if there are fewer, oldest first; ``None`` if empty."""
        if self.rows is None:
            return None
        filled = min(self.seen, self.length)
        position = self.seen % self.length if filled == self.length else 0
        ordered = torch.cat([self.rows[position:filled], self.rows[:position]])
        return ordered[max(filled - n, 0) :]

    def resize(self, length: int) -> None:
        """Change the number of rows kept; the newest stay."""
        rows = self.newest(min(length, self.length))
        self.length, self.seen, self.rows = length, 0, None
        if rows is not None:
            self.append(rows)


class Queues:
    """The rings of one trainer; see :func:`queues_of`."""

    def __init__(self) -> None:
        self.rings: dict[str, Ring] = {}
        self.askers: dict[str, str] = {}
        self.batch: int | None = None

    def request(self, keys: tuple[str, ...], length: int, caller: str) -> None:
        """Ask for rings of these keys, at least ``length`` long.

        Args:
            keys: Keys of the step's outputs or of the batch.
            length: Rows to keep.
            caller: Who asks, for messages.

        Raises:
            ValueError: If ``length`` is below 1.
        """
        if length < 1:
            raise ValueError(f"`queue_length` of {caller} must be >= 1, got {length}.")
        self.batch = None  # a new run may begin with the number at which the last one ended
        for key in keys:
            self.askers.setdefault(key, caller)
            ring = self.rings.setdefault(key, Ring(length))
            if ring.length < length:
                ring.resize(length)

    def append(self, index: int, outputs: Any, batch: Any) -> None:
        """Add the rows of a training batch, once however many callbacks say so.

        Raises:
            MissingKeyError: If a requested key is missing.
        """
        if index == self.batch:
            return
        self.batch = index
        rows = {key: look_up(key, outputs, batch, self.askers[key]) for key in self.rings}
        for key, ring in self.rings.items():
            ring.append(rows[key])

    def snapshot(self, keys: tuple[str, ...], length: int) -> tuple[Tensor, ...] | None:
        """The newest rows of each key, of all ranks, aligned; ``None`` while empty."""
        rows = [self.rings[key].newest(length) for key in keys]
        if any(row is None for row in rows):
            return None
        found = [row for row in rows if row is not None]
        shortest = min(len(row) for row in found)
        return tuple(gather_rows(row[len(row) - shortest :]) for row in found)


_queues: weakref.WeakKeyDictionary[pl.Trainer, Queues] = weakref.WeakKeyDictionary()


def queues_of(trainer: pl.Trainer) -> Queues:
    """The queues of a trainer, made at first use and gone with it."""
    return _queues.setdefault(trainer, Queues())


class OnlineQueue(pl.Callback):
    """Keep the newest rows of a key of the training steps.

    Args:
        key: Key of the step's outputs or of the batch.
        queue_length: Rows kept on each rank.

    Attributes:
        data: The rows of all ranks, oldest first, during validation; else ``None``.
    """

    def __init__(self, key: str, queue_length: int) -> None:
        self.key = key
        self.queue_length = queue_length
        self.data: Tensor | None = None

    @property
    def state_key(self) -> str:
        """Distinguishes queues of different keys."""
        return f"OnlineQueue[key={self.key}]"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Ask for the ring."""
        queues_of(trainer).request((self.key,), self.queue_length, self.state_key)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add this batch's rows."""
        queues_of(trainer).append(trainer.fit_loop.total_batch_idx, outputs, batch)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the snapshot."""
        found = queues_of(trainer).snapshot((self.key,), self.queue_length)
        self.data = None if found is None else found[0]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the snapshot."""
        self.data = None
