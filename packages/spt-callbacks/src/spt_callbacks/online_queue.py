"""A queue of one's own: the newest rows of a key, during validation or on request."""

from __future__ import annotations

from typing import Any

import lightning as pl
import torch
from loguru import logger
from torch import Tensor

from spt_callbacks.keys import Key
from spt_callbacks.queue import queues_of
from spt_callbacks.queue_reader import QueueReader


class OnlineQueue(QueueReader):
    """Keep the newest rows of a key of the training steps.

    Args:
        key: Key of the step's outputs or of the batch.
        queue_length: Rows kept on each rank.
        dim: Shape of a row, checked if given.
        dtype: Type in which to keep the rows; that of the data by default.
        gather_distributed: Whether :attr:`data` holds the rows of all ranks.
        save_queues: Keep the rows in checkpoints.
        verbose: Log ``queue/{key}_fill_pct``, the filled share in [0, 1], at each step.
    """

    def __init__(
        self,
        key: Key,
        queue_length: int,
        dim: int | tuple[int, ...] | None = None,
        dtype: torch.dtype | None = None,
        gather_distributed: bool = False,
        save_queues: bool = False,
        verbose: bool | None = None,
    ) -> None:
        name = key if isinstance(key, str) else getattr(key, "__qualname__", repr(key))
        super().__init__(name, (key,), queue_length, save_queues, shape=dim, dtype=dtype)
        self.key = key
        self.dim = dim
        self.dtype = dtype
        self.gather_distributed = gather_distributed
        self.verbose = verbose
        self._data: Tensor | None = None

    @property
    def state_key(self) -> str:
        """Distinguishes queues of different keys and lengths."""
        return f"OnlineQueue[key={self.name}, queue_length={self.queue_length}]"

    @property
    def actual_queue_length(self) -> int:
        """Rows that the shared ring keeps: the longest that any callback asked for."""
        return self._queues.rings[self.key].length if self._queues else self.queue_length

    @property
    def data(self) -> Tensor | None:
        """The newest rows, oldest first, during validation and testing; else ``None``."""
        if self._data is None:
            logger.warning(
                f"{self.caller} has data only in validation and testing, and after the first "
                "training step; use `newest()` elsewhere."
            )
        return self._data

    def newest(self, n: int | None = None) -> Tensor | None:
        """This rank's newest rows, oldest first, at any time; ``None`` while there are none.

        Args:
            n: How many; ``queue_length`` by default.
        """
        if self._queues is None:
            return None
        return self._queues.rings[self.key].newest(self.queue_length if n is None else n)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add this batch's rows."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.verbose:
            seen = queues_of(trainer).rings[self.key].seen
            share = min(seen / self.queue_length, 1.0)
            pl_module.log(f"queue/{self.name}_fill_pct", share, batch_size=1)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the snapshot."""
        found = queues_of(trainer).snapshot(
            self.keys, self.queue_length, gather=self.gather_distributed
        )
        self._data = None if found is None else found[0]

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the snapshot."""
        super().on_validation_end(trainer, pl_module)
        self._data = None

    on_test_end = on_validation_end


def find_or_create_queue_callback(
    trainer: pl.Trainer,
    key: str,
    queue_length: int,
    dim: int | tuple[int, ...] | None = None,
    dtype: torch.dtype | None = None,
    gather_distributed: bool = False,
    create_if_missing: bool = True,
) -> OnlineQueue:
    """The Trainer's queue of a key and length; added, ahead of the checkpoint callbacks, if missing.

    Args:
        trainer: Whose callbacks are searched.
        key: Key of the queue.
        queue_length: Its length.
        dim: Shape of a row.
        dtype: Type in which to keep the rows.
        gather_distributed: Whether its ``data`` holds the rows of all ranks.
        create_if_missing: Add a queue if there is none.

    Raises:
        ValueError: If there is none and none may be made, or if another callback asked for rows
            of another shape or type under this key.
    """
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    queues = [callback for callback in callbacks if isinstance(callback, OnlineQueue)]
    wanted = (key, queue_length, gather_distributed)
    for queue in queues:
        if (queue.key, queue.queue_length, queue.gather_distributed) == wanted:
            queues_of(trainer).agree(key, dim, dtype, queue.caller)
            return queue
    if not create_if_missing:
        known = [(queue.key, queue.queue_length) for queue in queues]
        raise ValueError(
            f"There is no queue of {key!r} with {queue_length} rows; the Trainer has {known}. Add "
            "`OnlineQueue`, or pass `create_if_missing=True`."
        )
    queue = OnlineQueue(key, queue_length, dim, dtype, gather_distributed)
    queue.setup(trainer, trainer.lightning_module, "fit")
    savers = [i for i, c in enumerate(callbacks) if isinstance(c, pl.pytorch.callbacks.Checkpoint)]
    callbacks.insert(savers[0] if savers else len(callbacks), queue)
    return queue
