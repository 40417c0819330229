"""The one number of a run that a hyperparameter search looks at."""

from __future__ import annotations

import math
from typing import Any, Literal

import lightning as pl

from spt_callbacks.training.monitored import log_now, metric_value


class HPMetricLogger(pl.Callback):
    """Log the best value so far of a metric as ``hp_metric``, after each validation.

    Args:
        metric_name: Name in ``trainer.callback_metrics``.
        mode: Whether ``"min"`` or ``"max"`` is better.

    Attributes:
        best: The best value so far; infinite before the first. Also ``pl_module.hp_metric``, where
            a search that only keeps the module finds it.

    Raises:
        ValueError: If ``mode`` is unknown; after a validation, if there is no such metric.
    """

    def __init__(self, metric_name: str, mode: Literal["min", "max"] = "min") -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max', got {mode!r}.")
        self.metric_name = metric_name
        self.mode = mode
        self.best = math.inf if mode == "min" else -math.inf

    @property
    def state_key(self) -> str:
        """Distinguishes metrics."""
        return f"HPMetricLogger[metric_name={self.metric_name},mode={self.mode}]"

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare and log."""
        if trainer.sanity_checking:
            return
        value = metric_value(trainer, self.metric_name, "HPMetricLogger")
        if not math.isnan(value):
            self.best = min(self.best, value) if self.mode == "min" else max(self.best, value)
        pl_module.hp_metric = self.best  # type: ignore[assignment]
        log_now(trainer, {"hp_metric": self.best})

    def state_dict(self) -> dict[str, Any]:
        """The best value."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.best = state_dict["best"]
