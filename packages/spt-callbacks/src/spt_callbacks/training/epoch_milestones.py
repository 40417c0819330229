"""Stop at given epochs if a metric is not there yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import lightning as pl
from loguru import logger

from spt_callbacks.training.monitored import log_now, metric_value


class EpochMilestones(pl.Callback):
    """Stop the run at the end of a listed epoch if the best of the metrics misses its threshold.

    Args:
        milestones: Epoch (counted from 0) to threshold.
        monitor: Names of metrics.
        contains: Or: every metric whose name contains this text.
        direction: ``"max"``: stop below the threshold; ``"min"``: stop above it.
        after_validation: Check after validation; else at the end of the training epoch.
        strict: Raise if no metric is found; else warn and go on.
        verbose: Log ``epoch_milestones/value`` and ``epoch_milestones/threshold``.

    Raises:
        ValueError: If neither or both of ``monitor`` and ``contains`` are given, or ``direction``
            is unknown; at a milestone, if ``strict`` and no metric is found.
    """

    def __init__(
        self,
        milestones: Mapping[int, float],
        monitor: str | Sequence[str] | None = None,
        contains: str | None = None,
        direction: Literal["max", "min"] = "max",
        after_validation: bool = True,
        strict: bool = True,
        verbose: bool | None = None,
    ) -> None:
        if (monitor is None) == (contains is None):
            raise ValueError(
                f"Give one of `monitor` and `contains`, got {monitor!r} and {contains!r}."
            )
        if direction not in ("max", "min"):
            raise ValueError(f"`direction` must be 'max' or 'min', got {direction!r}.")
        self.milestones = {int(epoch): float(value) for epoch, value in milestones.items()}
        self.monitor = (monitor,) if isinstance(monitor, str) else monitor
        self.contains = contains
        self.direction = direction
        self.after_validation = after_validation
        self.strict = strict
        self.verbose = verbose

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check, if that is the time."""
        if self.after_validation and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check, if that is the time."""
        if not self.after_validation:
            self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        threshold = self.milestones.get(trainer.current_epoch)
        if threshold is None:
            return
        values = [metric_value(trainer, name, "EpochMilestones") for name in self._names(trainer)]
        if not values:
            logger.warning(
                f"EpochMilestones: no metric at epoch {trainer.current_epoch}; going on."
            )
            return
        best = max(values) if self.direction == "max" else min(values)
        if self.verbose:
            log_now(
                trainer, {"epoch_milestones/value": best, "epoch_milestones/threshold": threshold}
            )
        reached = best >= threshold if self.direction == "max" else best <= threshold
        if trainer.strategy.reduce_boolean_decision(not reached, all=False):
            logger.info(
                f"EpochMilestones: {best:.4g} at epoch {trainer.current_epoch}, {threshold:.4g} "
                "was asked for; stopping."
            )
            trainer.should_stop = True

    def _names(self, trainer: pl.Trainer) -> list[str]:
        present = list(trainer.callback_metrics)
        if self.contains is not None:
            names = [name for name in present if self.contains in name]
            if not names and self.strict:
                raise ValueError(
                    f"EpochMilestones: no metric contains {self.contains!r}; there are {sorted(present)}."
                )
            return names
        wanted = list(self.monitor or ())
        return wanted if self.strict else [name for name in wanted if name in present]
