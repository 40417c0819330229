"""A ring of the newest training embeddings, on the device and in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from spt_jax.callbacks.base import Callback, Logs
from spt_jax.ring import push


class OnlineQueue(Callback):
    """Keep the newest rows of an output, and their labels beside them.

    Args:
        key: Key of the rows ``(N, ...)``.
        queue_length: Rows kept.
        label_key: Key of one integer per row; none by default.
        name: Name in errors.

    Raises:
        ValueError: If the length is not above 0.
    """

    def __init__(
        self,
        key: str = "embedding",
        queue_length: int = 8192,
        label_key: str | None = None,
        name: str = "queue",
    ) -> None:
        if queue_length < 1:
            raise ValueError(f"`queue_length` of {name!r} must be > 0, got {queue_length}.")
        self.key = key
        self.queue_length = queue_length
        self.label_key = label_key
        self.name = name
        self._trainer: Any = None

    def init(self, outputs: Mapping[str, Any]) -> Any:
        """An empty ring."""
        rows, *labels = self._read(outputs)
        state = {
            "rows": jnp.zeros((self.queue_length, *rows.shape[1:])),
            "seen": jnp.zeros((), jnp.int32),
        }
        if labels:
            state["labels"] = jnp.full((self.queue_length,), -1, jnp.int32)
        return state

    def _read(self, outputs: Mapping[str, Any]) -> tuple[Any, ...]:
        return self.need(
            outputs, *([self.key] if self.label_key is None else [self.key, self.label_key])
        )

    def train(self, state: Any, outputs: Mapping[str, Any]) -> tuple[Any, Logs]:
        """Add this batch, without the rows that only fill it."""
        new = dict(zip(("rows", "labels"), self._read(outputs), strict=False))
        weight = self.weights(outputs, new["rows"])
        pushed = {
            name: push(state[name], state["seen"], value, weight) for name, value in new.items()
        }
        rings = {name: ring for name, (ring, _) in pushed.items()}
        return {**rings, "seen": pushed["rows"][1]}, {}

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Remember where the state is."""
        self._trainer = trainer

    def _state(self) -> Any:
        if self._trainer is None or not (self._trainer.state or {}).get("callbacks"):
            raise RuntimeError(f"OnlineQueue {self.name!r} is empty before a run has started.")
        return self._trainer.state["callbacks"][self._trainer.callbacks.index(self)]

    def __len__(self) -> int:
        return min(int(self._state()["seen"]), self.queue_length)

    @property
    def features(self) -> np.ndarray:
        """The rows, the oldest first."""
        return self._ordered("rows")

    @property
    def labels(self) -> np.ndarray | None:
        """Their labels."""
        return None if self.label_key is None else self._ordered("labels")

    def _ordered(self, name: str) -> np.ndarray:
        return oldest_first(self._state(), name)


def oldest_first(state: Mapping[str, Any], name: str = "rows") -> np.ndarray:
    """What a ring holds, on the host, the oldest first."""
    ring, seen = np.asarray(state[name]), int(state["seen"])
    return np.roll(ring, -(seen % len(ring)), axis=0) if seen >= len(ring) else ring[:seen]
