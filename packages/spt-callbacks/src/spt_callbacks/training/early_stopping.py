"""Stop a run that misses its milestones or no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import lightning as pl

from spt_callbacks.training.monitored import metric_value


class EarlyStopping(pl.Callback):
    """Stop when a metric misses a milestone, or has not improved for ``patience`` checks.

    As a callback it checks ``metric_name`` after each validation, with the epoch as step; by hand,
    call :meth:`should_stop`.

    Args:
        mode: Whether ``"min"`` or ``"max"`` is better.
        milestones: Step to threshold: at that step the metric must have reached the threshold.
        metric_name: Name in ``trainer.callback_metrics``; needed as a callback.
        patience: Checks without an improvement before stopping; ``None`` for no such limit.
        min_delta: Smallest change that counts as an improvement, at least 0.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> stopping = EarlyStopping(mode="max", milestones={10: 0.5}, patience=None)
        >>> stopping.should_stop(0.4, step=9), stopping.should_stop(0.4, step=10)
        (False, True)
    """

    def __init__(
        self,
        mode: Literal["min", "max"] = "min",
        milestones: Mapping[int, float] | None = None,
        metric_name: str | None = None,
        patience: int | None = 10,
        min_delta: float = 0.0,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"`mode` must be 'min' or 'max', got {mode!r}.")
        if patience is not None and patience < 1:
            raise ValueError(f"`patience` must be >= 1 or None, got {patience}.")
        if min_delta < 0:
            raise ValueError(f"`min_delta` must be >= 0, got {min_delta}.")
        self.mode = mode
        self.milestones = dict(milestones or {})
        self.metric_name = metric_name
        self.patience = patience
        self.min_delta = min_delta
        self.best = math.inf if mode == "min" else -math.inf
        self.wait = 0

    def should_stop(self, metric: float, step: int) -> bool:
        """Whether to stop, given the metric of this check. A NaN never improves.

        Args:
            metric: The value.
            step: When: an epoch or a step, in the unit of the milestones.
        """
        value = float(metric)
        gain = self.best - value if self.mode == "min" else value - self.best
        if gain > self.min_delta:
            self.best, self.wait = value, 0
        else:
            self.wait += 1
        return self._missed(value, step) or (
            self.patience is not None and self.wait >= self.patience
        )

    def _missed(self, value: float, step: int) -> bool:
        if step not in self.milestones:
            return False
        threshold = self.milestones[step]
        return not (value <= threshold if self.mode == "min" else value >= threshold)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check, and stop all ranks if one says so."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self.metric_name is None:
            raise ValueError("EarlyStopping needs `metric_name` to work as a callback.")
        value = metric_value(trainer, self.metric_name, "EarlyStopping")
        stop = self.should_stop(value, trainer.current_epoch)
        if trainer.strategy.reduce_boolean_decision(stop, all=False):
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Best value and checks since."""
        return {"best": self.best, "wait": self.wait}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.best, self.wait = state_dict["best"], state_dict["wait"]
