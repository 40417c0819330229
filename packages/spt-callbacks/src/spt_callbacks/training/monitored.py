"""Reading metrics of the run, and writing values that belong to no step."""

from __future__ import annotations

import lightning as pl


def metric_value(trainer: pl.Trainer, name: str, caller: str) -> float:
    """A metric of ``trainer.callback_metrics``.

    Raises:
        ValueError: If there is none of that name.
    """
    present = trainer.callback_metrics
    if name not in present:
        raise ValueError(f"{caller} found no metric {name!r}; there are {sorted(present)}.")
    return float(present[name])


def log_now(trainer: pl.Trainer, values: dict[str, float]) -> None:
    """Give values to the loggers at the current step, outside of Lightning's bookkeeping."""
    if values and trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
