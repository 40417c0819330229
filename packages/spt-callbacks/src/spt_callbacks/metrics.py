"""Metrics of an evaluation callback: given in any form, or accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric


class TopOne(Metric):
    """Share of rows whose largest score is at the target class, whatever the number of classes."""

    higher_is_better = True
    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Add scores ``(N, C)`` and classes ``(N,)``."""
        # not in place: under inference mode the state would become unwritable outside of it
        self.correct = self.correct + (scores.argmax(1) == targets).sum()
        self.total = self.total + len(targets)

    def compute(self) -> Tensor:
        """Accuracy in [0, 1]."""
        return self.correct / self.total


def named_metrics(metrics: Any) -> dict[str, Metric]:
    """Metrics by name; a metric without one is named after its class.

    Raises:
        TypeError: If something is not a torchmetrics ``Metric``.
    """
    if metrics is None:
        return {}
    if isinstance(metrics, Metric):
        metrics = [metrics]
    items = (
        list(metrics.items())
        if isinstance(metrics, (Mapping, nn.ModuleDict))
        else [(type(metric).__name__, metric) for metric in metrics]
    )
    for name, metric in items:
        if not isinstance(metric, Metric):
            raise TypeError(
                f"`metrics` must hold torchmetrics metrics, got {type(metric).__name__} as {name!r}."
            )
    return {name: metric.clone() for name, metric in items}


class StageMetrics:
    """The metrics of one stage: updated per batch, computed and logged at the epoch's end.

    Args:
        metrics: Metrics in any form; ``None`` means top-1 accuracy, named ``acc``, for integer
            targets.
    """

    def __init__(self, metrics: Any = None) -> None:
        self.metrics = named_metrics(metrics)
        self.default = metrics is None
        self.updated = False

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Add a batch: scores ``(N, K)`` or predictions, and targets."""
        if self.default and not self.metrics:
            self.metrics = default_metrics(scores, targets)
        for metric in self.metrics.values():
            metric.to(scores.device).update(scores, targets)
        self.updated = True

    def log(self, pl_module: pl.LightningModule, prefix: str) -> None:
        """Log the epoch's values under ``{prefix}_{name}`` and start anew."""
        if not self.updated:
            return
        for name, metric in self.metrics.items():
            value = metric.compute()
            pl_module.log(f"{prefix}_{name}", value, on_step=False, on_epoch=True)
            metric.reset()
        self.updated = False


def default_metrics(scores: Tensor, targets: Tensor) -> dict[str, Metric]:
    """Top-1 accuracy for integer targets of scores ``(N, K)``; otherwise none."""
    integral = not targets.is_floating_point() and targets.ndim == 1
    if not integral or scores.ndim != 2 or scores.shape[1] < 2:
        return {}
    return {"acc": TopOne()}
