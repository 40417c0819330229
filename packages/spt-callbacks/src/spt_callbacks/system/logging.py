"""A table of metrics after each validation."""

from __future__ import annotations

import lightning as pl
import torch
from rich.console import Console
from rich.table import Table


class LoggingCallback(pl.Callback):
    """Print the run's metrics after each validation, on rank 0.

    Per-step and per-epoch forms of one metric appear once.
    """

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        Console(soft_wrap=True).print(metrics_table(trainer))


def metrics_table(trainer: pl.Trainer) -> Table:
    """Every metric in alphabetical order, under the epoch and the step."""
    epochs = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
    title = f"epoch {trainer.current_epoch + 1}{epochs}, step {trainer.global_step}"
    table = Table("metric", "value", title=title, title_justify="left")
    metrics = {
        name: value
        for name, value in sorted(trainer.callback_metrics.items())
        if not name.endswith(("_step", "_epoch"))
    }
    if not metrics:
        return table
    values = torch.stack([value.detach().float().mean() for value in metrics.values()])
    for name, value in zip(metrics, values.tolist(), strict=True):  # read back all at once
        table.add_row(name, f"{value:.4g}")
    return table
