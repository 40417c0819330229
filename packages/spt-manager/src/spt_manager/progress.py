"""Progress as plain lines, for log files and other places where a bar would be rubbish."""

from __future__ import annotations

import time
from typing import Any

import lightning as pl
from lightning.pytorch.callbacks import ProgressBar


class LineProgress(ProgressBar):
    """Print a line every n training batches, on rank 0.

    Args:
        every_n_batches: Batches between two lines, at least 1. Metrics are read from the device
            for a line alone.

    Raises:
        ValueError: If ``every_n_batches`` is less than 1.
    """

    def __init__(self, every_n_batches: int = 50) -> None:
        super().__init__()
        if every_n_batches < 1:
            raise ValueError(f"`every_n_batches` must be >= 1, got {every_n_batches}.")
        self.every_n_batches = every_n_batches
        self.enabled = True
        self._since: tuple[float, int] | None = None

    def disable(self) -> None:
        """Print nothing."""
        self.enabled = False

    def enable(self) -> None:
        """Print again."""
        self.enabled = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure anew."""
        self._since = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The first batch of the epoch, or of a resumed part of it, begins the measurement."""
        if self._since is None:
            self._since = (time.monotonic(), batch_idx)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Print if it is time."""
        done = batch_idx + 1
        total = self.total_train_batches
        if self.enabled and (done % self.every_n_batches == 0 or done == total):
            self.print(self.line(trainer, pl_module, done, total))

    def line(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, done: int, total: float
    ) -> str:
        """What is printed.

        Args:
            trainer: Knows the epoch.
            pl_module: Has logged the metrics.
            done: Batches of this epoch so far.
            total: Batches of this epoch; infinite if unknown.
        """
        began, before = self._since or (time.monotonic(), done)
        speed = (done - before) / max(time.monotonic() - began, 1e-9)
        known = f"/{int(total)}" if total != float("inf") else ""
        metrics = self.get_metrics(trainer, pl_module)
        shown = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in metrics.items()]
        head = f"epoch {trainer.current_epoch + 1}  batch {done}{known}  {speed:.1f} batches/s"
        return "  ".join([head, *shown])
