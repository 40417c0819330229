"""LiDAR: the effective rank of what tells images apart, beside what varies between their views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from spt_jax.batches import WEIGHT
from spt_jax.callbacks.base import Callback, Logs
from spt_jax.callbacks.queue import oldest_first
from spt_jax.callbacks.spectrum import entropy_of, lidar_spectrum
from spt_jax.callbacks.spectrum import lidar as lidar
from spt_jax.ring import push


class LiDAR(Callback):
    """Log LiDAR of the newest training embeddings at each validation.

    Rows of a batch that belong to one sample (its views, one block of rows after the other) are
    views of one image; ``group`` names numbers that say so across batches. Logs ``{name}``; with
    ``verbose`` also ``{name}/entropy`` and ``{name}/top_eigenvalue``; nothing with fewer than two
    images of two views.

    Args:
        name: Key in the logs.
        input: Key of the embeddings ``(V * B, D)``.
        group: Key of the images' numbers, ``(V * B,)`` or ``(B,)``.
        delta: Regularisation of the covariance within images.
        verbose: Log the details, too.
        queue_length: Embeddings kept.
        epsilon: Added to each share of the spectrum.
        target: Another name of ``group``, that of stable-pretraining.

    Raises:
        ValueError: If a number is not above 0, or both names are given.
    """

    def __init__(
        self,
        name: str = "lidar",
        input: str = "embedding",
        group: str | None = None,
        delta: float = 1e-4,
        verbose: bool = False,
        queue_length: int = 8192,
        epsilon: float = 1e-8,
        *,
        target: str | None = None,
    ) -> None:
        if group is not None and target is not None:
            raise ValueError(
                f"`group` and `target` of LiDAR {name!r} are one setting, got {group!r} and {target!r}."
            )
        for label, value in (("delta", delta), ("queue_length", queue_length)):
            if not value > 0:
                raise ValueError(f"`{label}` of LiDAR {name!r} must be > 0, got {value}.")
        self.name = name
        self.input = input
        self.group = target if group is None else group
        self.delta = delta
        self.verbose = verbose
        self.queue_length = queue_length
        self.epsilon = epsilon

    def init(self, outputs: Mapping[str, Any]) -> Any:
        """An empty ring."""
        (rows,) = self.need(outputs, self.input)
        return {
            "rows": jnp.zeros((self.queue_length, rows.shape[-1])),
            "groups": jnp.zeros((self.queue_length,), jnp.int32),
            "seen": jnp.zeros((), jnp.int32),
            "images": jnp.zeros((), jnp.int32),
        }

    def train(self, state: Any, outputs: Mapping[str, Any]) -> tuple[Any, Logs]:
        """Add this batch."""
        (rows,) = self.need(outputs, self.input)
        size = len(outputs[WEIGHT])
        own = state["images"] + jnp.arange(size)
        if self.group is not None:
            (own,) = self.need(outputs, self.group)
        groups = jnp.tile(own, len(rows) // len(own)).astype(jnp.int32)
        weight = self.weights(outputs, rows)
        ring, seen = push(state["rows"], state["seen"], rows, weight)
        ids, _ = push(state["groups"], state["seen"], groups, weight)
        return {"rows": ring, "groups": ids, "seen": seen, "images": state["images"] + size}, {}

    def finish(self, state: Any) -> tuple[Any, dict[str, float]]:
        """LiDAR, and what it is made of."""
        rows, groups = oldest_first(state), oldest_first(state, "groups")
        _, views = np.unique(groups, return_counts=True)
        kept = np.isin(
            groups, np.unique(groups)[views > 1]
        )  # an image cut in two has one view left
        if (views > 1).sum() < 2:
            return state, {}
        spectrum = lidar_spectrum(rows[kept], groups[kept], delta=self.delta)
        entropy = entropy_of(spectrum, self.epsilon)
        found = {self.name: float(np.exp(entropy))}
        if self.verbose:
            found[f"{self.name}/entropy"] = entropy
            found[f"{self.name}/top_eigenvalue"] = float(spectrum[0])
        return state, found
