"""Stop when a metric has not improved for a while."""

from __future__ import annotations

import math
from typing import Any, Literal

from loguru import logger

from spt_jax.callbacks.base import Callback


class EarlyStopping(Callback):
    """Check a metric after each validation; its counters are part of the checkpoint.

    A run that it has ended stays ended when it is called again, until ``patience`` is raised.

    The metric is the epoch's: a mean over the validation, or the epoch's mean of what training logs.
    Without a validation loader nothing is checked, and neither by ``Trainer.validate`` and ``test``.

    Args:
        monitor: Name of the metric, such as ``eval/knn_acc`` or ``fit/loss``.
        mode: Whether smaller (``"min"``) or larger (``"max"``) is better.
        patience: Validations without improvement after which the run stops.
        min_delta: Smallest change that counts.

    Raises:
        ValueError: If the mode is unknown, or a number is negative.
    """

    name = "early_stopping"

    def __init__(
        self,
        monitor: str,
        mode: Literal["min", "max"] = "min",
        patience: int = 3,
        min_delta: float = 0.0,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max', got {mode!r}.")
        if patience < 0 or min_delta < 0:
            raise ValueError(
                f"`patience` and `min_delta` must be >= 0, got {patience} and {min_delta}."
            )
        self.monitor = monitor
        self.mode = mode
        self.patience = patience
        self.min_delta = min_delta
        self._worst = math.inf if mode == "min" else -math.inf
        self.best = self._worst
        self.waited = 0
        self._stage = "fit"

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Remember whether this is a training."""
        self._stage = stage

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Begin anew, or stop a continued run that was to end here."""
        if trainer.global_step == 0:
            self.best, self.waited = self._worst, 0
        elif 0 < self.waited >= self.patience:
            logger.info(f"{self.monitor} had not improved for {self.waited} validations; stopping.")
            trainer.stop()

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        """Compare with the best so far.

        Raises:
            KeyError: If there is no such metric.
        """
        if self._stage != "fit":
            return
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise KeyError(f"EarlyStopping watches {self.monitor!r}; there are {sorted(metrics)}.")
        value = metrics[self.monitor]
        gain = self.best - value if self.mode == "min" else value - self.best
        if gain > self.min_delta:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            logger.info(f"{self.monitor} has not improved for {self.waited} validations; stopping.")
            trainer.stop()

    def state_dict(self) -> dict[str, Any]:
        """Best value and counter."""
        return {"best": self.best if math.isfinite(self.best) else None, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        if state["best"] is not None:
            self.best = state["best"]
        self.waited = state["waited"]
