"""A probe trained alongside the model on its detached features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightning as pl
import torch
from spt_optim import create_optimizer, create_scheduler
from torch import Tensor, nn

from spt_callbacks.distributed import average_gradients, same_on_all_ranks
from spt_callbacks.keys import Key, check_rows, look_up
from spt_callbacks.metrics import StageMetrics

OPTIMIZER = {"type": "LARS", "lr": 0.1, "clip_lr": True, "eta": 0.02, "weight_decay": 0.0}


class OnlineProbe(pl.Callback):
    """Train a head on detached features of any LightningModule whose step returns a mapping.

    The probe owns its network, optimizer, scheduler and metrics and saves them in its own
    state; nothing is registered on the module, and its gradients, metrics and random state are
    as they would be without the probe.

    Logs ``train/{name}_loss`` and, per metric, ``eval/{name}_{metric}`` in validation and
    ``test/{name}_{metric}`` in testing; ``eval/{name}_acc`` when no metric is given and the
    targets are classes.

    Args:
        module: Accepted so that ``OnlineProbe(module, name=...)`` works; not used.
        name: Name in the logs and in checkpoints.
        input: Key of the features, in the step's outputs or in the batch; dots descend.
        target: Key of the targets.
        probe: The head, or a function of the LightningModule that makes it.
        loss: From predictions and targets to a scalar.
        loss_fn: Another name of ``loss``.
        optimizer: As for ``spt_optim.create_optimizer``; LARS by default.
        scheduler: As for ``spt_optim.create_scheduler``; stepped with the optimizer.
        accumulate_grad_batches: Batches per step of the probe.
        gradient_clip_val: Largest norm of the probe's gradient.
        metrics: torchmetrics metrics: one, a list, a mapping of names, or a mapping of
            ``train`` and ``val`` to such.

    Raises:
        TypeError: If the probe or the loss cannot be called.
        ValueError: If there is no loss, or two.
    """

    def __init__(
        self,
        module: pl.LightningModule | None = None,
        name: str = "probe",
        input: Key = "embedding",
        target: Key = "label",
        probe: nn.Module | Callable[[pl.LightningModule], nn.Module] | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        optimizer: Any = None,
        scheduler: Any = None,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: float | None = None,
        metrics: Any = None,
        *,
        loss_fn: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        if (loss is None) == (loss_fn is None):
            raise ValueError(
                f"OnlineProbe {name!r} needs a loss, as `loss` or as `loss_fn`; got "
                f"{'neither' if loss is None else 'both'}."
            )
        if not callable(probe):
            raise TypeError(
                f"`probe` of OnlineProbe {name!r} must be a module or a function that makes one, "
                f"got {type(probe).__name__}."
            )
        if accumulate_grad_batches < 1:
            raise ValueError(
                f"`accumulate_grad_batches` must be >= 1, got {accumulate_grad_batches}."
            )
        self.name = name
        self.input = input
        self.target = target
        self.make = probe
        self.loss = loss if loss is not None else loss_fn
        self.optimizer_config = OPTIMIZER if optimizer is None else optimizer
        self.scheduler_config = scheduler
        self.accumulate_grad_batches = accumulate_grad_batches
        self.gradient_clip_val = gradient_clip_val
        staged = isinstance(metrics, Mapping) and set(metrics) == {"train", "val"}
        self.train_metrics = StageMetrics(metrics["train"] if staged else [])
        self.eval_metrics = StageMetrics(metrics["val"] if staged else metrics)
        self.module: nn.Module | None = probe if isinstance(probe, nn.Module) else None
        self.optimizer: torch.optim.Optimizer | None = None
        self.scheduler: Any = None
        self._saved: dict[str, Any] = {}
        self._waiting = 0

    @property
    def state_key(self) -> str:
        """Distinguishes probes of different names."""
        return f"OnlineProbe[name={self.name}]"

    @property
    def caller(self) -> str:
        """How messages call this callback."""
        return f"OnlineProbe {self.name!r}"

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer and scheduler, made of tensors and plain values."""
        if self.module is None:
            return dict(self._saved)
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the device is known."""
        self._saved = dict(state_dict)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Place the probe and make its optimizer."""
        self._place(pl_module)
        assert self.module is not None
        if self.optimizer is None:
            self.optimizer = create_optimizer(
                self.module.parameters(), self.optimizer_config, module=self.module
            )
            self.scheduler = self._make_scheduler(trainer)
        self._restore(with_optimizer=True)
        same_on_all_ranks([*self.module.parameters(), *self.module.buffers()])

    def _make_scheduler(self, trainer: pl.Trainer) -> Any:
        if self.scheduler_config is None:
            return None
        steps = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches
        horizon = int(steps // self.accumulate_grad_batches) if steps != float("inf") else None
        assert self.optimizer is not None
        return create_scheduler(self.optimizer, self.scheduler_config, total_steps=horizon)

    def _place(self, pl_module: pl.LightningModule) -> None:
        if self.module is None:
            self.module = self.make(pl_module)
        assert self.module is not None
        self.module.to(pl_module.device)

    def _restore(self, *, with_optimizer: bool) -> None:
        """Apply a state loaded before the probe was placed."""
        assert self.module is not None
        if "module" in self._saved:
            self.module.load_state_dict(self._saved.pop("module"))
        for part in ("optimizer", "scheduler") if with_optimizer else ():
            state, owner = self._saved.pop(part, None), getattr(self, part)
            if state is not None and owner is not None:
                owner.load_state_dict(state)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Train the probe on this batch's features."""
        features, targets = self._rows(outputs, batch)
        assert self.module is not None
        assert self.loss is not None
        with isolated(features.device):
            self.module.train()
            predictions = self.module(features)
            loss = self.loss(predictions, targets)
            loss.backward()
        self._waiting += 1
        if self._waiting == self.accumulate_grad_batches or trainer.is_last_batch:
            self._step()
        pl_module.log(
            f"train/{self.name}_loss", loss.detach(), on_step=False, on_epoch=True, sync_dist=True
        )
        self.train_metrics.update(predictions.detach(), targets)

    def _step(self) -> None:
        assert self.module is not None
        assert self.optimizer is not None
        parameters = list(self.module.parameters())
        grads = [p.grad for p in parameters if p.grad is not None]
        if self._waiting > 1:  # the mean over the batches that really came
            torch._foreach_div_(grads, self._waiting)
        self._waiting = 0
        average_gradients(parameters)
        if self.gradient_clip_val is not None:
            nn.utils.clip_grad_norm_(parameters, self.gradient_clip_val)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scheduler is not None:
            self.scheduler.step()

    def _rows(self, outputs: Any, batch: Any) -> tuple[Tensor, Tensor]:
        features = look_up(self.input, outputs, batch, self.caller)
        targets = look_up(self.target, outputs, batch, self.caller)
        check_rows(features, targets, (self.input, self.target), self.caller)
        return features.float() if features.is_floating_point() else features, targets

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the training metrics."""
        self.train_metrics.log(pl_module, f"train/{self.name}")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Place the probe when validation runs alone."""
        self._place(pl_module)
        self._restore(with_optimizer=False)

    on_test_start = on_validation_start

    @torch.no_grad()
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
        features, targets = self._rows(outputs, batch)
        assert self.module is not None
        with isolated(features.device):
            self.module.eval()
            self.eval_metrics.update(self.module(features), targets)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of the epoch."""
        self.eval_metrics.log(pl_module, f"eval/{self.name}")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of the test."""
        self.eval_metrics.log(pl_module, f"test/{self.name}")


class isolated:
    """Compute in full precision and leave the random state as it was found.

    Args:
        device: Whose autocast is switched off and whose random state is kept.
    """

    def __init__(self, device: torch.device) -> None:
        accelerators = [device] if device.type == "cuda" else []
        self.contexts = (
            torch.autocast(device.type, enabled=False),
            torch.random.fork_rng(devices=accelerators),
        )

    def __enter__(self) -> None:
        for context in self.contexts:
            context.__enter__()

    def __exit__(self, *error: Any) -> None:
        for context in reversed(self.contexts):
            context.__exit__(*error)
