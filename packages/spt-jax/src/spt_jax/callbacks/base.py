"""What a callback offers to the Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

State = Any
Logs = dict[str, jax.Array]


class Callback:
    """Pure functions on a state of arrays; the Trainer compiles them into its two steps.

    ``init`` gets the shapes of a training step's outputs. ``train`` and ``evaluate`` run on the
    device with detached outputs; ``finish`` turns what a validation has gathered into numbers
    and clears it.
    """

    name = "callback"

    def init(self, outputs: Mapping[str, Any]) -> State:
        """The first state, from the shapes of a training step's outputs."""
        return {}

    def train(self, state: State, outputs: Mapping[str, Any]) -> tuple[State, Logs]:
        """After a training step."""
        return state, {}

    def evaluate(self, state: State, outputs: Mapping[str, Any], mask: jax.Array) -> State:
        """After a validation step; ``mask`` is 0 for rows that only fill the batch."""
        return state

    def finish(self, state: State) -> tuple[State, dict[str, float]]:
        """After a validation epoch, on the host."""
        return state, {}

    def need(self, outputs: Mapping[str, Any], *keys: str) -> tuple[Any, ...]:
        """Values of the outputs.

        Raises:
            KeyError: If one is missing.
        """
        missing = [key for key in keys if key not in outputs]
        if missing:
            raise KeyError(
                f"{type(self).__name__} {self.name!r} needs {missing}; the step returned "
                f"{sorted(outputs)}."
            )
        return tuple(outputs[key] for key in keys)


def push(rows: jax.Array, seen: jax.Array, new: jax.Array) -> jax.Array:
    """Write rows into a ring after ``seen`` rows; an oversized batch keeps its newest."""
    length = len(rows)
    kept = new[-length:]
    start = seen + len(new) - len(kept)
    return rows.at[(start + jnp.arange(len(kept))) % length].set(kept.astype(rows.dtype))


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
    return float(totals["right"] / totals["count"])
