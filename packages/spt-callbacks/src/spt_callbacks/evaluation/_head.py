"""A small network trained beside a run: its optimizer, scheduler, clipping and state."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, Literal

import lightning as pl
import torch
from spt_optim import create_optimizer, create_scheduler
from torch import Tensor, nn

from spt_callbacks.distributed import average_gradients, same_on_all_ranks
from spt_callbacks.evaluation._isolation import isolated
from spt_callbacks.named import NamedCallback

OPTIMIZER = {"type": "LARS", "lr": 0.1, "clip_lr": True, "eta": 0.02, "weight_decay": 0.0}
PARTS = ("optimizer", "scheduler")


class Head:
    """A network that a callback trains; nothing of it is known to the watched module.

    It computes in the type of its weights whatever the precision of the run, so it needs no loss
    scaling.

    Args:
        caller: Whose head it is, for messages and for its random stream.
        make: The network, or a function of the LightningModule that makes it.
        optimizer: As for ``spt_optim.create_optimizer``; LARS by default.
        scheduler: As for ``spt_optim.create_scheduler``; a mapping may also hold ``interval``,
            ``"step"`` or ``"epoch"``, and ``frequency``.
        accumulate_grad_batches: Backward passes per optimizer step.
        gradient_clip_val: Largest norm, or largest value, of the gradient.
        gradient_clip_algorithm: ``"norm"`` or ``"value"``.

    Raises:
        TypeError: If ``make`` cannot be called.
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        caller: str,
        make: nn.Module | Callable[[pl.LightningModule], nn.Module] | None,
        optimizer: Any = None,
        scheduler: Any = None,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] = "norm",
    ) -> None:
        if not callable(make):
            raise TypeError(
                f"`probe` of {caller} must be a module or a function that makes one, "
                f"got {type(make).__name__}."
            )
        if accumulate_grad_batches < 1:
            raise ValueError(
                f"`accumulate_grad_batches` must be >= 1, got {accumulate_grad_batches}."
            )
        if gradient_clip_algorithm not in ("norm", "value"):
            raise ValueError(
                '`gradient_clip_algorithm` must be "norm" or "value", got '
                f"{gradient_clip_algorithm!r}."
            )
        self.caller = caller
        self.make = make
        self.optimizer_config = OPTIMIZER if optimizer is None else optimizer
        self.scheduler_config, self.interval, self.frequency = _timed(scheduler)
        self.accumulate_grad_batches = accumulate_grad_batches
        self.gradient_clip_val = gradient_clip_val
        self.gradient_clip_algorithm = gradient_clip_algorithm
        self.module: nn.Module | None = make if isinstance(make, nn.Module) else None
        self.optimizer: torch.optim.Optimizer | None = None
        self.scheduler: Any = None
        self.steps = 0
        self._passes = 0
        self._waiting = 0
        self._saved: dict[str, Any] = {}
        self._trainer: weakref.ref[pl.Trainer] | None = None

    def isolated(self, device: torch.device) -> Any:
        """A context in which to compute; see :func:`isolated`."""
        return isolated(device, self.caller, self._passes)

    def place(self, pl_module: pl.LightningModule) -> nn.Module:
        """The network, on the device of the module, with what a checkpoint held."""
        with torch.inference_mode(False):  # weights made in inference mode could never be trained
            if self.module is None:
                with self.isolated(pl_module.device):
                    self.module = self.make(pl_module)
            self.module.to(pl_module.device)
            if "module" in self._saved:
                self.module.load_state_dict(self._saved.pop("module"))
        return self.module

    @property
    def dtype(self) -> torch.dtype:
        """The type in which the network computes; float32 if its weights do not say."""
        weights = self.module.parameters() if self.module is not None else iter(())
        return next((p.dtype for p in weights if p.is_floating_point()), torch.float32)

    def start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prepare to train: place the network, make the optimizer anew for a new Trainer."""
        module = self.place(pl_module)
        if self._trainer is None or self._trainer() is not trainer:
            self._trainer = weakref.ref(trainer)
            self.steps = self._passes = 0
            self.optimizer = create_optimizer(
                module.parameters(), self.optimizer_config, module=module
            )
            self.scheduler = create_scheduler(
                self.optimizer, self.scheduler_config, total_steps=self._horizon(trainer)
            )
        self._waiting = 0
        self.optimizer.zero_grad(set_to_none=True)  # type: ignore[union-attr]
        self._restore()
        same_on_all_ranks([*module.parameters(), *module.buffers()])

    def _horizon(self, trainer: pl.Trainer) -> int | None:
        """How often the scheduler will step, if the run has an end."""
        if self.scheduler_config is None:
            return None
        total = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches
        batches = trainer.num_training_batches
        if total == float("inf"):
            return None
        if batches == float("inf"):
            return max(int(total) // self.accumulate_grad_batches, 1)
        epochs = max(round(total / batches), 1)
        if self.interval == "epoch":
            return max(epochs // self.frequency, 1)
        per_epoch = -(-int(batches) // self.accumulate_grad_batches)
        return max(min(per_epoch * epochs, int(total)) // self.frequency, 1)

    def _restore(self) -> None:
        """Apply the rest of a state that was loaded before the network was placed."""
        for part in PARTS:
            state, owner = self._saved.pop(part, None), getattr(self, part)
            if state is not None and owner is not None:
                owner.load_state_dict(state)
        self.steps = self._saved.pop("steps", self.steps)
        self._passes = self._saved.pop("passes", self._passes)

    def descend(self, loss: Tensor, *, flush: bool = False) -> None:
        """Back-propagate to the network alone, and step when enough passes have come.

        Args:
            loss: Scalar of one pass.
            flush: Step with what there is, however few passes came.
        """
        assert self.module is not None
        loss.backward(inputs=[p for p in self.module.parameters() if p.requires_grad])
        self._passes += 1
        self._waiting += 1
        if self._waiting == self.accumulate_grad_batches or flush:
            self._step()

    def _step(self) -> None:
        assert self.module is not None
        assert self.optimizer is not None
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        grads = [p.grad for p in parameters if p.grad is not None]
        if self._waiting > 1:  # the mean over the passes that really came
            torch._foreach_div_(grads, self._waiting)
        self._waiting = 0
        average_gradients(parameters)
        if self.gradient_clip_val is not None:
            clip = getattr(nn.utils, f"clip_grad_{self.gradient_clip_algorithm}_")
            clip(parameters, self.gradient_clip_val)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        if self.interval == "step":
            self._advance(self.steps)

    def end_epoch(self, epoch: int) -> None:
        """Move a scheduler that goes by epochs."""
        if self.interval == "epoch":
            self._advance(epoch + 1)

    def _advance(self, count: int) -> None:
        if self.scheduler is not None and count % self.frequency == 0:
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, scheduler and counters, made of tensors and plain values."""
        if self.module is None:
            return dict(self._saved)
        owners = {part: getattr(self, part) for part in PARTS}
        parts = {part: owner.state_dict() for part, owner in owners.items() if owner is not None}
        kept = {part: self._saved[part] for part in PARTS if part in self._saved}
        return {
            "module": self._saved.get("module", self.module.state_dict()),
            "steps": self._saved.get("steps", self.steps),
            "passes": self._saved.get("passes", self._passes),
            **parts,
            **kept,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the device is known."""
        self._saved = dict(state_dict)


def _timed(scheduler: Any) -> tuple[Any, str, int]:
    """A scheduler's configuration without its ``interval`` and ``frequency``, and these."""
    if not isinstance(scheduler, Mapping):
        return scheduler, "step", 1
    config = dict(scheduler)
    interval, frequency = config.pop("interval", "step"), int(config.pop("frequency", 1))
    if interval not in ("step", "epoch"):
        raise ValueError(f'`interval` of a scheduler must be "step" or "epoch", got {interval!r}.')
    if frequency < 1:
        raise ValueError(f"`frequency` of a scheduler must be >= 1, got {frequency}.")
    return config, interval, frequency


class WithHead(NamedCallback):
    """What callbacks with a network of their own have in common: its state, its place, its device."""

    is_stateful = True
    head: Head

    @property
    def module(self) -> nn.Module | None:
        """The network; ``None`` until it is made."""
        return self.head.module

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimizer, scheduler and counters, made of tensors and plain values."""
        return self.head.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the device is known."""
        self.head.load_state_dict(state_dict)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Place the network and make its optimizer."""
        self.head.start(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move a scheduler that goes by epochs."""
        self.head.end_epoch(trainer.current_epoch)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Place the network when evaluation runs alone; one set of statistics for all ranks."""
        same_on_all_ranks(self.head.place(pl_module).buffers())

    on_test_start = on_validation_start
    on_predict_start = on_validation_start
