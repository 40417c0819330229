"""What the measures of recent embeddings have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import lightning as pl
import torch
from torch import Tensor

from spt_callbacks.keys import Key, check_width
from spt_callbacks.queue import queues_of
from spt_callbacks.queue_reader import QueueReader


class QueueMeasure(QueueReader):
    """Log a number of the newest training embeddings of all ranks at each validation and test.

    Logs ``{name}`` in validation and ``test/{name}`` in testing, the same on all ranks. Nothing is
    logged before the first training step.

    Args:
        name: Key in the logs.
        keys: Keys of one record; the first is the embeddings'.
        queue_length: Embeddings kept on each rank.
        target_shape: Shape of an embedding, checked if given; several dimensions are flattened.
        verbose: Log the details of the measure too, as ``{name}/...``.
        save_queues: Keep the embeddings in checkpoints.
    """

    def __init__(
        self,
        name: str,
        keys: Sequence[Key],
        queue_length: int,
        target_shape: int | tuple[int, ...] | None = None,
        verbose: bool | None = None,
        save_queues: bool = False,
    ) -> None:
        super().__init__(name, keys, queue_length, save_queues, shape=target_shape)
        self.target = self.keys[0]
        self.target_shape = target_shape
        self.verbose = verbose

    @abstractmethod
    def measure(self, trainer: pl.Trainer) -> dict[str, Tensor] | None:
        """The number under ``""`` and details under their names; ``None`` if there is no data."""

    def own_rows(self, trainer: pl.Trainer) -> Tensor | None:
        """This rank's newest embeddings, ``(N, D)``."""
        found = queues_of(trainer).snapshot(self.keys[:1], self.queue_length, gather=False)
        return None if found is None else self._flat(found[0])

    def all_rows(self, trainer: pl.Trainer) -> tuple[Tensor, ...] | None:
        """The newest records of all ranks, the embeddings ``(N, D)`` first, oldest row first."""
        found = queues_of(trainer).snapshot(self.keys, self.queue_length, by_age=True)
        return None if found is None else (self._flat(found[0]), *found[1:])

    def _flat(self, rows: Tensor) -> Tensor:
        check_width(rows, self.target_shape, "target_shape", self.target, self.caller)
        return rows.flatten(1)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute and log."""
        self._log(trainer, pl_module, self.name)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute and log."""
        self._log(trainer, pl_module, f"test/{self.name}")

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, name: str) -> None:
        with torch.autocast(pl_module.device.type, enabled=False):
            found = self.measure(trainer)
        if found is None:
            return
        values = {
            f"{name}/{detail}" if detail else name: value.to(pl_module.device, torch.float32)
            for detail, value in found.items()
            if not detail or self.verbose
        }
        pl_module.log_dict(values, on_step=False, on_epoch=True, sync_dist=True)
