"""Several optimizers on one loss: each steps in its own rhythm."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import lightning as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer, do_nothing_closure
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from spt_methods.optim.build import frequency_of, horizon
from spt_methods.optim.grammar import Entry
from spt_methods.optim.values import scale


@dataclass
class Stepper:
    """One optimizer of several.

    Attributes:
        name: Its name.
        entry: Its settings.
        optimizer: Lightning's handle of it.
        scheduler: Of its rate, if it has one.
        frequency: Batches per step.
        total: Steps of the run; ``None`` if it has no end.
        steps: Steps so far.
        window: Batches whose gradients it holds.
    """

    name: str
    entry: Entry
    optimizer: LightningOptimizer
    scheduler: Any
    frequency: int
    total: int | None
    steps: int = 0
    window: int = 0
    parameters: list[Tensor] = field(default_factory=list)

    @property
    def by_step(self) -> bool:
        """Whether its schedule counts optimizer steps."""
        plateau = isinstance(self.scheduler, ReduceLROnPlateau)
        return self.entry.interval == "step" and not plateau

    def grads(self) -> list[Tensor]:
        """The gradients there are."""
        return [p.grad for p in self.parameters if p.grad is not None]


class Steppers:
    """Backward, steps and schedules of several optimizers.

    The first is the main one: its steps are the Trainer's ``global_step``. Gradients are averaged
    over the batches that an optimizer's step is made of, a shorter last window of an epoch by its
    own number; ranks exchange gradients only for a batch after which one steps.

    Args:
        module: Whose optimizers.
        entries: Their settings, by name.
    """

    def __init__(self, module: pl.LightningModule, entries: dict[str, Entry]) -> None:
        self.module = module
        optimizers: Any = module.optimizers()
        schedulers = [config.scheduler for config in module.trainer.lr_scheduler_configs]
        by_optimizer = {id(scheduler.optimizer): scheduler for scheduler in schedulers}
        self.steppers = []
        for (name, entry), optimizer in zip(entries.items(), optimizers, strict=True):
            frequency = frequency_of(entry, module.trainer)
            stepper = Stepper(
                name,
                entry,
                optimizer,
                by_optimizer.get(id(optimizer.optimizer)),
                frequency,
                horizon(module.trainer, "step", frequency),
            )
            stepper.parameters = [p for g in optimizer.param_groups for p in g["params"]]
            self.steppers.append(stepper)

    def run(self, loss: Tensor, batch_idx: int, last: bool) -> None:
        """Everything after the forward pass of a batch.

        Args:
            loss: The batch's.
            batch_idx: Its number in the epoch.
            last: Whether it is the epoch's last.
        """
        due = [s for s in self.steppers if last or (batch_idx + 1) % s.frequency == 0]
        with contextlib.nullcontext() if due else self._without_exchange():
            self.module.manual_backward(loss)
        self.module.after_manual_backward()  # type: ignore[operator]
        for stepper in self.steppers:
            stepper.window += 1
        for stepper in due:
            self._step(stepper)

    def epoch_end(self) -> None:
        """Step the schedulers that count epochs, and those that follow a metric."""
        for stepper in self.steppers:
            if stepper.scheduler is None or stepper.by_step:
                continue
            if (self.module.trainer.current_epoch + 1) % stepper.entry.scheduler_frequency:
                continue
            if isinstance(stepper.scheduler, ReduceLROnPlateau):
                stepper.scheduler.step(self._monitored(stepper.entry.monitor))
            else:
                stepper.scheduler.step()

    def state_dict(self) -> dict[str, int]:
        """Steps of each optimizer."""
        return {stepper.name: stepper.steps for stepper in self.steppers}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a checkpoint's counts."""
        for stepper in self.steppers:
            stepper.steps = state.get(stepper.name, stepper.steps)

    def of(self, optimizer: Any) -> Stepper:
        """The stepper of an optimizer, wrapped or bare."""
        bare = getattr(optimizer, "optimizer", optimizer)
        return next(s for s in self.steppers if s.optimizer.optimizer is bare)

    def _step(self, stepper: Stepper) -> None:
        if stepper.window > 1:
            scale(stepper.grads(), 1.0 / stepper.window)
        if stepper is not self.steppers[0]:  # only the main optimizer moves `global_step`
            stepper.optimizer._on_before_step = do_nothing_closure
            stepper.optimizer._on_after_step = do_nothing_closure
        with self._same_scale(stepper):
            stepper.optimizer.step()
        stepper.optimizer.zero_grad(set_to_none=True)
        stepper.steps += 1
        stepper.window = 0
        due = stepper.steps % stepper.entry.scheduler_frequency == 0
        if stepper.scheduler is not None and stepper.by_step and due:
            stepper.scheduler.step()

    @contextlib.contextmanager
    def _same_scale(self, stepping: Stepper) -> Iterator[None]:
        """Keep the gradients of the others true when this step changes the fp16 loss scale."""
        scaler = getattr(self.module.trainer.precision_plugin, "scaler", None)
        if scaler is None:
            yield
            return
        one = torch.ones((), device=self.module.device)
        before = scaler.scale(one)
        yield
        ratio = scaler.scale(one) / before  # stays on the device
        for stepper in self.steppers:
            if stepper is not stepping and stepper.grads():
                scale(stepper.grads(), ratio)

    def _without_exchange(self) -> Any:
        block = getattr(self.module.trainer.strategy, "block_backward_sync", None)
        return contextlib.nullcontext() if block is None else block()

    def _monitored(self, monitor: str | None) -> Any:
        metrics = self.module.trainer.callback_metrics
        if monitor not in metrics:
            raise ValueError(
                f"ReduceLROnPlateau follows {monitor!r}, which was not logged; there are "
                f"{sorted(metrics)}. Name one of them in `monitor`."
            )
        return metrics[monitor]
