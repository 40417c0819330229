"""Counting optimizer steps, and how many there will be."""

from __future__ import annotations

import math
from typing import Any

import lightning as pl


class StepCounter:
    """Counts the batches after which an optimizer stepped, once each.

    ``trainer.global_step`` counts the steps of all optimizers together, and micro-batches of an
    accumulated step do not move it. This counter adds one for each batch that moved it.

    Attributes:
        steps: Optimizer steps so far, of this run and of the ones that it resumes.
    """

    def __init__(self) -> None:
        self.steps: int | None = None
        self._seen = 0

    def begin(self, trainer: pl.Trainer) -> None:
        """Start from the restored count, else from the trainer's."""
        self._seen = trainer.global_step
        if self.steps is None:
            self.steps = trainer.global_step

    def stepped(self, trainer: pl.Trainer) -> bool:
        """Whether an optimizer stepped since the last call; counts it."""
        moved = trainer.global_step != self._seen
        self._seen = trainer.global_step
        if moved:
            self.steps = (self.steps or 0) + 1
        return moved

    def state_dict(self) -> dict[str, Any]:
        """The count."""
        return {} if self.steps is None else {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a count over."""
        self.steps = state.get("steps")


def total_steps(trainer: pl.Trainer, caller: str) -> int:
    """Optimizer steps of the whole run.

    Raises:
        ValueError: If the run has no end, so that a schedule over it means nothing.
    """
    total = trainer.estimated_stepping_batches
    if math.isinf(total) or total < 1:
        raise ValueError(
            f"{caller} follows a schedule over the whole run, but the Trainer has no end: set "
            f"`max_steps` or `max_epochs` (got {trainer.max_steps} and {trainer.max_epochs})."
        )
    return int(total)
