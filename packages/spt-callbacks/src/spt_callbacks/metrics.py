"""Metrics of an evaluation callback: given in any form, or what the task calls for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import MeanSquaredError, Metric
from torchmetrics.classification import MultilabelAveragePrecision

from spt_callbacks.distributed import largest_of_ranks
from spt_callbacks.evaluation._batches import loader_number, rows_that_count

Task = Literal["classification", "multilabel", "regression", "other"]
TASKS: tuple[Task, ...] = ("classification", "multilabel", "regression", "other")


class TopK(Metric):
    """Share of rows whose target class is among the largest scores, whatever their number.

    Args:
        k: How many of the largest scores count.
    """

    higher_is_better = True
    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.k = k
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Add scores ``(N, C)`` and classes ``(N,)``."""
        if self.k == 1:
            hits = scores.argmax(1) == targets
        else:
            best = scores.topk(min(self.k, scores.shape[1]), dim=1)
            # a score of 0 is a class without a single vote
            hits = ((best.indices == targets[:, None]) & (best.values != 0)).any(1)
        self.correct += hits.sum()
        self.total += len(targets)

    def compute(self) -> Tensor:
        """Accuracy in [0, 1]."""
        return self.correct / self.total


class MultilabelAP(MultilabelAveragePrecision):
    """Mean average precision over labels, from logits."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add logits ``(N, L)`` and labels ``(N, L)`` of 0 and 1."""
        super().update(preds.sigmoid(), target.long())


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


def task_of(targets: Tensor, loss: Any = None) -> Task:
    """What is to be predicted, by the loss and the targets.

    Args:
        targets: Classes ``(N,)`` of integers, labels ``(N, L)`` of 0 and 1, or real values.
        loss: The loss, if there is one.
    """
    if isinstance(loss, (nn.BCEWithLogitsLoss, nn.MultiLabelSoftMarginLoss)):
        return "multilabel" if targets.ndim == 2 else "other"
    if targets.is_floating_point():
        squared = isinstance(loss, (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss))
        return "regression" if squared else "other"
    if targets.ndim == 2:
        return "multilabel"
    return "classification" if targets.ndim == 1 else "other"


def default_metrics(task: Task, width: int) -> dict[str, Metric]:
    """The field's usual metrics of a task with this many scores or labels.

    Example:
        >>> list(default_metrics("classification", 10))
        ['acc', 'top5']
    """
    if task == "classification" and width > 1:
        return {"acc": TopK(1), **({"top5": TopK(5)} if width > 5 else {})}
    if task == "multilabel":
        return {"map": MultilabelAP(num_labels=width, thresholds=None)}
    return {"mse": MeanSquaredError()} if task == "regression" else {}


class StageMetrics:
    """The metrics of one stage: updated per batch, computed and logged at the epoch's end.

    With several loaders each is also judged by itself, under Lightning's names
    ``{prefix}_{name}/dataloader_idx_{i}``.

    Args:
        metrics: Metrics in any form; ``None`` means what the task calls for.
        loss: The loss, from which the task can be told.
    """

    def __init__(self, metrics: Any = None, loss: Any = None) -> None:
        self.metrics = named_metrics(metrics)
        self.default = metrics is None
        self.loss = loss
        self.kind = 0
        self.by_loader: dict[int, dict[str, Metric]] = {}

    def judge(
        self,
        trainer: pl.Trainer,
        scores: Tensor,
        targets: Tensor,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Add an evaluation batch, without the rows that a sampler repeats on several ranks."""
        n = rows_that_count(trainer, batch_idx, dataloader_idx, len(targets))
        if n:
            self.update(scores[:n], targets[:n], loader_number(trainer, dataloader_idx))

    def update(self, scores: Tensor, targets: Tensor, loader: int | None = None) -> None:
        """Add a batch: scores ``(N, K)`` or predictions, and targets.

        Args:
            scores: Predictions.
            targets: What was to be predicted.
            loader: Number of the loader, if there are several.
        """
        with torch.inference_mode(False), torch.no_grad():  # states must stay writable elsewhere
            self.kind = self._kind(scores, targets)
            self._prepare(self.kind)
            groups = [self.metrics]
            if loader is not None:
                fresh = {name: metric.clone() for name, metric in self.metrics.items()}
                groups.append(self.by_loader.setdefault(loader, _emptied(fresh)))
            for metric in (metric for group in groups for metric in group.values()):
                if metric.device != scores.device:
                    metric.to(scores.device)
                metric.update(scores, targets)

    def _kind(self, scores: Tensor, targets: Tensor) -> int:
        """Task and width as one number, on which ranks can agree; never 0."""
        width = scores.shape[1] if scores.ndim == 2 else 0
        return 1 + TASKS.index(task_of(targets, self.loss)) + len(TASKS) * width

    def _prepare(self, kind: int) -> None:
        if self.default and not self.metrics:
            width, task = divmod(kind - 1, len(TASKS))
            self.metrics = default_metrics(TASKS[task], width)

    def log(self, pl_module: pl.LightningModule, prefix: str) -> None:
        """Log the epoch's values under ``{prefix}_{name}`` and start anew."""
        if not self.metrics and not self.default:
            return
        kind = largest_of_ranks(self.kind, pl_module.device)  # a rank may have had no batch
        if not kind:
            return
        with torch.inference_mode(False), torch.no_grad():
            self._prepare(kind)
            values = {f"{prefix}_{name}": _value(m) for name, m in self.metrics.items()}
            for loader, metrics in sorted(self.by_loader.items()):
                suffix = f"/dataloader_idx_{loader}"
                values |= {f"{prefix}_{name}{suffix}": _value(m) for name, m in metrics.items()}
        pl_module.log_dict(
            values, on_step=False, on_epoch=True, sync_dist=True, add_dataloader_idx=False
        )
        self.kind = 0


def _emptied(metrics: dict[str, Metric]) -> dict[str, Metric]:
    for metric in metrics.values():
        metric.reset()
    return metrics


def _value(metric: Metric) -> Tensor:
    value: Tensor = metric.compute()
    metric.reset()
    return value
