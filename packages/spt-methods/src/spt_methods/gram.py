"""When DINOv3's Gram teacher takes over the teacher."""

from __future__ import annotations

from typing import Any

import lightning as pl
from spt_callbacks.training.steps import StepCounter


class GramAnchoring(pl.Callback):
    """Refresh the Gram teacher at a step, and then at intervals.

    The module that is trained has a ``gram_teacher`` with ``refresh(teacher)`` and ``refreshes``, and a
    ``backbone`` with a ``teacher``; see :class:`spt_methods.methods.DINOv3`.

    Args:
        start: Optimizer step before which the first Gram teacher is taken.
        every: Optimizer steps from one to the next.
        max_updates: How often it is replaced after the first.

    Raises:
        ValueError: If ``start`` or ``max_updates`` is below 0, or ``every`` below 1.
    """

    def __init__(self, start: int, every: int, max_updates: int) -> None:
        if start < 0 or every < 1 or max_updates < 0:
            raise ValueError(
                "Gram anchoring needs `start` >= 0, `every` >= 1 and `max_updates` >= 0, got "
                f"{start}, {every} and {max_updates}."
            )
        self.start = start
        self.every = every
        self.max_updates = max_updates
        self._counter = StepCounter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self._counter.begin(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Take the teacher over if it is time."""
        past = (self._counter.steps or 0) - self.start
        due = min(past // self.every, self.max_updates) + 1 if past >= 0 else 0
        if pl_module.gram_teacher.refreshes < due:
            pl_module.gram_teacher.refresh(pl_module.backbone.teacher)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Count the step."""
        self._counter.stepped(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The number of steps."""
        return self._counter.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's count."""
        self._counter.load_state_dict(state_dict)
