"""What a callback offers to the Trainer: pure functions for the compiled steps, hooks for Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from spt_jax.batches import WEIGHT, tiled_weight

State = Any
Logs = dict[str, jax.Array]


class Callback:
    """Override what you need.

    The first four methods are pure functions on a state of arrays; they are compiled into the
    two steps, and the state is part of the checkpoint. ``init`` gets the shapes of a training
    step's outputs, which include the row weights under ``sample_weight``. ``train`` and ``evaluate`` run on the device with detached outputs; ``finish``
    turns what an evaluation has gathered into numbers and clears it.

    The others are hooks for Python code on the host. A step's outputs come to the host only if
    ``on_train_batch_end`` or ``on_validation_batch_end`` is overridden. ``state_dict`` is what a hook
    keeps over a restart, as values that JSON can hold.
    """

    name = "callback"

    def init(self, outputs: Mapping[str, Any]) -> State:
        """The first state, from the shapes of a training step's outputs."""
        return {}

    def train(self, state: State, outputs: Mapping[str, Any]) -> tuple[State, Logs]:
        """After a training step: the new state, and scalars to log."""
        return state, {}

    def evaluate(self, state: State, outputs: Mapping[str, Any], mask: jax.Array) -> State:
        """After a validation step; ``mask`` ``(B,)`` is 0 for rows that only fill the batch."""
        return state

    def finish(self, state: State) -> tuple[State, dict[str, float]]:
        """After a validation epoch, on the host."""
        return state, {}

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Before anything else of ``fit``, ``validate``, ``test`` or ``predict``."""

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """The state is ready, restored if there was a checkpoint."""

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Before an epoch's first batch."""

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a training step; ``outputs`` are arrays on the device, ``batch`` is the loader's."""

    def on_boundary(self, trainer: Any, module: Any) -> None:
        """After a training or validation step, without its outputs; may ask the run to stop."""

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """After an epoch's last batch, before its validation."""

    def on_validation_epoch_start(self, trainer: Any, module: Any) -> None:
        """Before the first validation batch."""

    def on_validation_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a validation step."""

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        """After a validation or test; its metrics are in ``trainer.callback_metrics``."""

    def on_epoch_end(self, trainer: Any, module: Any) -> None:
        """The epoch is complete, its validation included."""

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        """The last hook of a run, before loggers are closed."""

    def reads_outputs(self, phase: Literal["train", "val"]) -> bool:
        """Whether the steps of a phase must return their outputs for this callback's hook."""
        hook = {"train": "on_train_batch_end", "val": "on_validation_batch_end"}[phase]
        return getattr(type(self), hook) is not getattr(Callback, hook)

    def state_dict(self) -> dict[str, Any]:
        """What the hooks keep over a restart."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""

    def need(self, outputs: Mapping[str, Any], *keys: str) -> tuple[Any, ...]:
        """Values of the outputs.

        Raises:
            KeyError: If one is missing.
        """
        missing = [key for key in keys if key not in outputs]
        if missing:
            held = sorted(key for key in outputs if key != WEIGHT)
            raise KeyError(
                f"{type(self).__name__} {self.name!r} needs {missing}; the step returned {held}."
            )
        return tuple(outputs[key] for key in keys)

    def weights(self, outputs: Mapping[str, Any], rows: jax.Array) -> jax.Array:
        """1 for each row of the data, 0 for one that fills the batch, for outputs of all views."""
        return tiled_weight(outputs[WEIGHT], len(rows), f"{type(self).__name__} {self.name!r}")


def hits(
    totals: dict[str, jax.Array], scores: jax.Array, labels: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
    """Add the right answers of a batch to running totals."""
    right = (scores.argmax(-1) == labels) * mask
    return {"right": totals["right"] + right.sum(), "count": totals["count"] + mask.sum()}


def no_hits() -> dict[str, jax.Array]:
    """Running totals before the first batch."""
    return {"right": jnp.zeros(()), "count": jnp.zeros(())}


def share(totals: dict[str, jax.Array]) -> float:
    """Right answers per answer; NaN without any."""
    right, count = (float(value) for value in jax.device_get((totals["right"], totals["count"])))
    return right / count if count else float("nan")
