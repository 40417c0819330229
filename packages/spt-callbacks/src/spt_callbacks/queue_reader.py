"""What the callbacks that read recent training rows have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning as pl
import torch
from torch import Tensor

from spt_callbacks.keys import Key
from spt_callbacks.named import NamedCallback
from spt_callbacks.queue import Queues, queues_of


class QueueReader(NamedCallback):
    """Asks for queues, feeds them in training, and saves them if told to.

    Args:
        name: Name in the logs.
        keys: Keys of one record; the first is the features'.
        queue_length: Rows kept on each rank.
        save_queues: Keep the rows in checkpoints; otherwise they refill by themselves.
        shape: Shape of a row of the first key, checked if given.
        dtype: Type in which to keep the first key; that of the data by default.
    """

    def __init__(
        self,
        name: str,
        keys: Sequence[Key],
        queue_length: int,
        save_queues: bool = False,
        shape: int | tuple[int, ...] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if queue_length < 1:
            raise ValueError(
                f"`queue_length` of {type(self).__name__} {name!r} must be >= 1, got "
                f"{queue_length}."
            )
        self.name = name
        self.keys = tuple(keys)
        self.queue_length = queue_length
        self.save_queues = save_queues
        self._shape = shape
        self._dtype = dtype
        self._queues: Queues | None = None

    @property
    def is_stateful(self) -> bool:
        """Whether checkpoints hold something of this callback."""
        return self.save_queues

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Ask for the queues of this trainer."""
        self._queues = queues_of(trainer)
        self._queues.request(
            self.keys,
            self.queue_length,
            self.caller,
            shape=self._shape,
            dtype=self._dtype,
            save=self.save_queues,
        )

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

    def recent(self, trainer: pl.Trainer) -> tuple[Tensor, ...] | None:
        """The newest rows of all ranks, a tensor a key; ``None`` before training."""
        return queues_of(trainer).snapshot(self.keys, self.queue_length)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let go of the snapshot."""
        queues_of(trainer).release()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let go of the snapshot."""
        queues_of(trainer).release()

    def state_dict(self) -> dict[str, Any]:
        """The rows, if they are to be saved and no other callback saves them."""
        if not self.save_queues or self._queues is None:
            return {}
        return {"queues": self._queues.state(self.keys, self.caller)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Fill the queues."""
        if self.save_queues and self._queues is not None and "queues" in state_dict:
            self._queues.restore(self.keys, state_dict["queues"])
