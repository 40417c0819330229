"""A probe trained alongside the model on its detached features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import lightning as pl
import torch
from torch import Tensor, nn

from spt_callbacks.evaluation._head import Head, WithHead
from spt_callbacks.evaluation._own_loss import loss_in, made_by
from spt_callbacks.keys import Key, check_rows, expose, holds, look_up, look_up_float
from spt_callbacks.metrics import StageMetrics


class OnlineProbe(WithHead):
    """Train a head on detached features of any LightningModule whose step returns a mapping.

    The probe owns its network, optimizer, scheduler and metrics and saves them in its own
    state; nothing is registered on the module, and its gradients, metrics and random state are
    as they would be without the probe. It computes in the type of its weights, float32 as a rule,
    whatever the precision of the run.

    Logs ``train/{name}_loss`` (and ``..._step``, ``..._epoch``) and, per metric,
    ``eval/{name}_{metric}`` in validation and ``test/{name}_{metric}`` in testing. Without metrics
    given these are ``acc`` (and ``top5``) for classes, ``map`` for multi-label targets and ``mse``
    for a regression loss. The predictions are put into the step's dict as ``{name}_preds``.

    Args:
        module: Accepted so that ``OnlineProbe(module, name=...)`` works; not used.
        name: Name in the logs and in checkpoints.
        input: Key of the features, in the step's outputs or in the batch; dots descend. Or a
            function of (outputs, batch).
        target: Key of the targets.
        probe: The head, or a function of the LightningModule that makes it.
        loss: From predictions and targets to a scalar. With ``loss``, ``input`` and ``target``
            all ``None`` the head is called as ``probe(batch, outputs, pl_module)`` on detached
            outputs; it returns a mapping, in training with its own ``loss``, and whatever else
            that holds joins the step's dict.
        optimizer: As for ``spt_optim.create_optimizer``; LARS by default.
        scheduler: As for ``spt_optim.create_scheduler``; a mapping may hold ``interval``,
            ``"step"`` (default) or ``"epoch"``, and ``frequency``.
        accumulate_grad_batches: Batches per step of the probe.
        gradient_clip_val: Largest norm, or value, of the probe's gradient.
        gradient_clip_algorithm: ``"norm"`` or ``"value"``.
        metrics: torchmetrics metrics: one, a list, a mapping of names, or a mapping of
            ``train`` and ``val`` to such.
        verbose: Also log the probe's learning rate, ``hparams/lr_{name}``.
        loss_fn: Another name of ``loss``.

    Raises:
        TypeError: If the probe or the loss cannot be called, or a probe without a loss returns
            no mapping with its own.
        ValueError: If there is no loss, or two, or a setting is out of range, or metrics are
            given to a probe that brings its own loss.
    """

    def __init__(
        self,
        module: pl.LightningModule | None = None,
        name: str = "probe",
        input: Key | None = "embedding",
        target: Key | None = "label",
        probe: nn.Module | Callable[[pl.LightningModule], nn.Module] | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        optimizer: Any = None,
        scheduler: Any = None,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
        metrics: Any = None,
        verbose: bool | None = None,
        *,
        loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.name = name
        self.brings_loss = input is None and target is None and loss is None and loss_fn is None
        if self.brings_loss and metrics is not None:
            raise ValueError(f"{self.caller} brings its own loss, so it takes no `metrics`.")
        self.loss = None if self.brings_loss else one_loss(loss, loss_fn, self.caller)
        self.input = input
        self.target = target
        self.head = Head(
            self.caller,
            probe,
            optimizer,
            scheduler,
            accumulate_grad_batches,
            gradient_clip_val,
            gradient_clip_algorithm,
        )
        self.verbose = verbose
        staged = isinstance(metrics, Mapping) and set(metrics) == {"train", "val"}
        self.train_metrics = StageMetrics(metrics["train"] if staged else [], self.loss)
        self.eval_metrics = StageMetrics(metrics["val"] if staged else metrics, self.loss)
        self._loss_sum: Tensor | None = None
        self._rows_seen = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Place the probe and make its optimizer."""
        super().on_fit_start(trainer, pl_module)
        self._loss_sum, self._rows_seen = None, 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Train the probe on this batch's features."""
        assert self.module is not None
        if self.loss is None:
            with torch.enable_grad(), self.head.isolated(pl_module.device):
                made = made_by(self.module.train(), outputs, batch, pl_module, self.caller)
                loss = loss_in(made, self.caller)
                self.head.descend(loss, flush=trainer.is_last_batch)
            self._log_step(pl_module, loss.detach(), 1)
            return
        features, targets = self._rows(outputs, batch)
        with torch.enable_grad(), self.head.isolated(features.device):
            self.module.train()
            predictions = self.module(features)
            loss = self.loss(predictions, targets)
            self.head.descend(loss, flush=trainer.is_last_batch)
        expose(outputs, f"{self.name}_preds", predictions.detach(), self.caller)
        self._log_step(pl_module, loss.detach(), len(targets))
        if self.train_metrics.metrics:
            self.train_metrics.update(predictions.detach(), targets)

    def _log_step(self, pl_module: pl.LightningModule, loss: Tensor, rows: int) -> None:
        weighted = loss * rows
        self._loss_sum = weighted if self._loss_sum is None else self._loss_sum + weighted
        self._rows_seen += rows
        values: dict[str, Any] = {f"train/{self.name}_loss_step": loss}
        if self.verbose and self.head.optimizer is not None:
            values[f"hparams/lr_{self.name}"] = self.head.optimizer.param_groups[0]["lr"]
        pl_module.log_dict(values, on_step=True, on_epoch=False, batch_size=rows)

    def _rows(self, outputs: Any, batch: Any) -> tuple[Tensor, Tensor]:
        assert self.input is not None
        assert self.target is not None
        features = look_up_float(self.input, outputs, batch, self.caller, self.head.dtype)
        targets = look_up(self.target, outputs, batch, self.caller)
        check_rows(features, targets, (self.input, self.target), self.caller)
        return features, targets

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch's loss and metrics."""
        if self._loss_sum is not None:
            mean = self._loss_sum / self._rows_seen
            names = (f"train/{self.name}_loss", f"train/{self.name}_loss_epoch")
            pl_module.log_dict(
                dict.fromkeys(names, mean),
                on_step=False,
                on_epoch=True,
                sync_dist=True,
                batch_size=self._rows_seen,
            )
        self._loss_sum, self._rows_seen = None, 0
        self.train_metrics.log(pl_module, f"train/{self.name}")
        super().on_train_epoch_end(trainer, pl_module)

    def _predict(self, outputs: Any, batch: Any) -> Tensor:
        assert self.input is not None
        features = look_up_float(self.input, outputs, batch, self.caller, self.head.dtype)
        assert self.module is not None
        with torch.no_grad(), self.head.isolated(features.device):
            self.module.eval()
            predictions: Tensor = self.module(features)
        expose(outputs, f"{self.name}_preds", predictions, self.caller)
        return predictions

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Judge this batch."""
        if self.loss is None:
            self._make(outputs, batch, pl_module)
            return
        _, targets = self._rows(outputs, batch)
        predictions = self._predict(outputs, batch)
        self.eval_metrics.judge(trainer, predictions, targets, batch_idx, dataloader_idx)

    on_test_batch_end = on_validation_batch_end

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the predictions to what ``predict_step`` returned, if it holds the features."""
        if self.input is None:
            self._make(outputs, batch, pl_module)
        elif isinstance(outputs, Mapping) and holds(self.input, outputs, batch):
            self._predict(outputs, batch)

    def _make(self, outputs: Any, batch: Any, pl_module: pl.LightningModule) -> None:
        assert self.module is not None
        with torch.no_grad(), self.head.isolated(pl_module.device):
            made_by(self.module.eval(), outputs, batch, pl_module, self.caller)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of the epoch."""
        self.eval_metrics.log(pl_module, f"eval/{self.name}")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of the test."""
        self.eval_metrics.log(pl_module, f"test/{self.name}")


def one_loss(loss: Any, loss_fn: Any, caller: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss, by whichever name it came."""
    if (loss is None) == (loss_fn is None):
        raise ValueError(
            f"{caller} needs a loss, as `loss` or as `loss_fn`; got "
            f"{'neither' if loss is None else 'both'}. A probe that brings its own needs "
            "`input=None` and `target=None`."
        )
    found: Callable[[Tensor, Tensor], Tensor] = loss if loss is not None else loss_fn
    if not callable(found):
        raise TypeError(f"`loss` of {caller} must be callable, got {type(found).__name__}.")
    return found
