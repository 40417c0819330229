"""One line of metrics after each validation, on terminals and in log files alike."""

from __future__ import annotations

import lightning as pl
from rich.console import Console
from rich.text import Text


class LoggingCallback(pl.Callback):
    """Print the run's metrics after each validation, on rank 0.

    Per-step and per-epoch forms of one metric appear once.
    """

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        Console(soft_wrap=True).print(metrics_line(trainer))


def metrics_line(trainer: pl.Trainer) -> Text:
    """The epoch, the step, and every metric in alphabetical order."""
    epochs = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
    line = Text(f"epoch {trainer.current_epoch + 1}{epochs}  step {trainer.global_step}")
    for name, value in sorted(trainer.callback_metrics.items()):
        if not name.endswith(("_step", "_epoch")):
            line.append(f"  {name} ", style="dim").append(f"{float(value):.4g}", style="bold")
    return line
