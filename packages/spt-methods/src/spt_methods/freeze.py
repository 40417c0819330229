"""Prototypes that stay where they started for a while."""

from __future__ import annotations

from typing import Any

import lightning as pl
from spt_callbacks.training.steps import StepCounter
from torch import nn

from spt_methods.epochs import require_epochs


class FrozenPrototypes(pl.Callback):
    """Drop the gradients of named layers for the first epochs or optimizer steps.

    The optimizer then skips them altogether: neither decay nor momentum moves them, as in the
    official codes of DINO (the first epoch) and SwAV (313 steps).

    Args:
        layers: Names of submodules of the module that is trained.
        epochs: Epochs at the start.
        steps: Optimizer steps at the start.

    Raises:
        ValueError: In ``fit``, if there is no such submodule, or epochs are counted and may never end.
    """

    def __init__(self, layers: tuple[str, ...], *, epochs: int = 0, steps: int = 0) -> None:
        self.layers = layers
        self.epochs = epochs
        self.steps = steps
        self._counter = StepCounter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the names."""
        self._counter.begin(trainer)
        known = dict(pl_module.named_modules())
        missing = [name for name in self.layers if name not in known]
        if missing:
            raise ValueError(f"{type(pl_module).__name__} has no submodules {missing}.")
        if self.epochs:
            require_epochs(trainer, "The frozen start of the prototypes")

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Drop the gradients."""
        done = self._counter.steps or 0
        if trainer.current_epoch >= self.epochs and done >= self.steps:
            return
        for name in self.layers:
            drop_gradients(pl_module.get_submodule(name))

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Count the step."""
        self._counter.stepped(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The number of steps."""
        return self._counter.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's count."""
        self._counter.load_state_dict(state_dict)


def drop_gradients(module: nn.Module) -> None:
    """Set the gradients of a module's parameters to ``None``."""
    for parameter in module.parameters():
        parameter.grad = None
