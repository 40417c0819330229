"""What a Trainer is going to do."""

from __future__ import annotations

import lightning as pl
from rich.console import Console
from rich.table import Table


class TrainerInfo(pl.Callback):
    """Print a Trainer's settings and its callbacks in the order in which they run, on rank 0.

    A datamodule with ``set_pl_trainer``, such as ``spt_data.DataModule``, gets the Trainer: its
    samples then hold the step and the epoch.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the Trainer to the datamodule."""
        give = getattr(getattr(trainer, "datamodule", None), "set_pl_trainer", None)
        if give is not None:
            give(trainer)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print."""
        if trainer.is_global_zero:
            Console(soft_wrap=True).print(trainer_table(trainer))


def trainer_table(trainer: pl.Trainer) -> Table:
    """Settings and callbacks as a table."""
    table = Table("setting", "value", title="Trainer")
    for name, value in trainer_settings(trainer).items():
        table.add_row(name, value)
    for place, callback in enumerate(trainer.callbacks):  # type: ignore[attr-defined]
        table.add_row("callbacks" if place == 0 else "", callback.state_key)
    return table


def trainer_settings(trainer: pl.Trainer) -> dict[str, str]:
    """The settings that decide what a run costs and how long it lasts."""
    return {
        "accelerator": f"{trainer.num_devices} x {type(trainer.accelerator).__name__}",
        "nodes": str(trainer.num_nodes),
        "strategy": type(trainer.strategy).__name__,
        "precision": str(trainer.precision),
        "max epochs": str(trainer.max_epochs),
        "max steps": str(trainer.max_steps),
        "accumulated batches": str(trainer.accumulate_grad_batches),
        "gradient clip": str(trainer.gradient_clip_val),
        "loggers": ", ".join(type(logger).__name__ for logger in trainer.loggers) or "none",
        "directory": str(trainer.default_root_dir),
    }
