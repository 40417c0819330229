"""Weighted k-nearest-neighbour classification against a ring of training features.

Wu et al., CVPR 2018, section 3.4 (https://arxiv.org/abs/1805.01978); the same vote in DINO
(https://arxiv.org/abs/2104.14294).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from spt_jax.callbacks.base import Callback, Logs, hits, no_hits, share
from spt_jax.losses.common import l2_normalize
from spt_jax.ring import push

Metric = Literal["cosine", "euclidean"]


def knn_predict(
    bank: jax.Array,
    labels: jax.Array,
    queries: jax.Array,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    metric: Metric = "cosine",
    chunk_size: int | None = None,
) -> jax.Array:
    """Scores of each class by the nearest features.

    A cosine s weighs ``exp(s / temperature)``, a Euclidean distance d ``1 / (d + temperature)``. No
    array of differences is built.

    Args:
        bank: Features ``(N, D)``.
        labels: Their classes ``(N,)``; a negative class marks an empty place.
        queries: Features ``(M, D)``.
        num_classes: C.
        k: Neighbours that vote; all of the bank if it is smaller.
        temperature: tau.
        metric: ``"cosine"`` or ``"euclidean"``.
        chunk_size: Queries compared at once; bounds the memory and leaves the result as it is.

    Returns:
        Scores ``(M, C)``, each row summing to 1 if the bank holds anything.

    Raises:
        ValueError: If the metric is unknown.
    """
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"`metric` must be 'cosine' or 'euclidean', got {metric!r}.")
    labels = jnp.asarray(labels)
    rows, wanted = jnp.asarray(bank, jnp.float32), jnp.asarray(queries, jnp.float32)
    if metric == "cosine":
        rows, wanted = l2_normalize(rows), l2_normalize(wanted)
    squares = jnp.sum(rows * rows, axis=1)

    def vote(part: jax.Array) -> jax.Array:
        near = part @ rows.T
        if metric == "euclidean":
            near = 2 * near - squares
        near = jnp.where(labels >= 0, near, -jnp.inf)
        top, index = jax.lax.top_k(near, min(k, len(rows)))
        weights = _weights(top, part, metric, temperature)
        return jnp.einsum("mk,mkc->mc", weights, jax.nn.one_hot(labels[index], num_classes))

    if chunk_size is None:
        return vote(wanted)
    padding = -len(wanted) % chunk_size
    parts = jnp.pad(wanted, ((0, padding), (0, 0))).reshape(-1, chunk_size, wanted.shape[1])
    return jax.lax.map(vote, parts).reshape(-1, num_classes)[: len(wanted)]


def _weights(top: jax.Array, queries: jax.Array, metric: Metric, temperature: float) -> jax.Array:
    """Weights ``(M, k)`` that sum to 1; empty places have none."""
    valid = jnp.isfinite(top)
    if metric == "cosine":
        weights = jnp.where(valid, jnp.exp((top - top[:, :1]) / temperature), 0.0)
    else:
        squares = jnp.sum(queries * queries, axis=1, keepdims=True) - jnp.where(valid, top, 0.0)
        distance = jnp.sqrt(jnp.maximum(squares, 0.0))
        weights = jnp.where(valid, 1 / (distance + temperature), 0.0)
    return weights / jnp.maximum(weights.sum(1, keepdims=True), 1e-12)


class OnlineKNN(Callback):
    """Classify validation features by their nearest training features; see :func:`knn_predict`.

    Logs ``eval/{name}_acc``. The bank has a fixed size, so nothing is compiled again as it fills.

    Args:
        num_classes: Number of classes.
        name: Name in the logs.
        input: Key of the features.
        target: Key of the classes.
        k: Neighbours that vote.
        temperature: tau.
        metric: ``"cosine"`` as the torch side's default, or ``"euclidean"``.
        bank_size: Features kept, the newest.
        chunk_size: Queries compared at once; all by default.

    Raises:
        ValueError: If a number is not above 0, or the metric is unknown.
    """

    def __init__(
        self,
        num_classes: int,
        name: str = "knn",
        input: str = "embedding",
        target: str = "label",
        k: int = 20,
        temperature: float = 0.07,
        metric: Metric = "cosine",
        bank_size: int = 8192,
        chunk_size: int | None = None,
    ) -> None:
        for label, value in (
            ("num_classes", num_classes),
            ("k", k),
            ("temperature", temperature),
            ("bank_size", bank_size),
            ("chunk_size", 1 if chunk_size is None else chunk_size),
        ):
            if not value > 0:
                raise ValueError(f"`{label}` of OnlineKNN {name!r} must be > 0, got {value}.")
        if metric not in ("cosine", "euclidean"):
            raise ValueError(
                f"`metric` of OnlineKNN {name!r} must be 'cosine' or 'euclidean', got {metric!r}."
            )
        self.num_classes = num_classes
        self.name = name
        self.input = input
        self.target = target
        self.k = k
        self.temperature = temperature
        self.metric: Metric = metric
        self.bank_size = bank_size
        self.chunk_size = chunk_size

    def init(self, outputs: Mapping[str, Any]) -> Any:
        """An empty bank."""
        features, _ = self.need(outputs, self.input, self.target)
        return {
            "bank": jnp.zeros((self.bank_size, features.shape[-1])),
            "labels": jnp.full((self.bank_size,), -1, jnp.int32),
            "seen": jnp.zeros((), jnp.int32),
            "totals": no_hits(),
        }

    def train(self, state: Any, outputs: Mapping[str, Any]) -> tuple[Any, Logs]:
        """Add this batch to the bank."""
        features, labels = self.need(outputs, self.input, self.target)
        weight = self.weights(outputs, features)
        bank, seen = push(state["bank"], state["seen"], features, weight)
        labels, _ = push(state["labels"], state["seen"], labels, weight)
        return {**state, "bank": bank, "labels": labels, "seen": seen}, {}

    def evaluate(self, state: Any, outputs: Mapping[str, Any], mask: jax.Array) -> Any:
        """Vote, and count right answers."""
        features, labels = self.need(outputs, self.input, self.target)
        scores = knn_predict(
            state["bank"],
            state["labels"],
            features,
            num_classes=self.num_classes,
            k=self.k,
            temperature=self.temperature,
            metric=self.metric,
            chunk_size=self.chunk_size,
        )
        counted = self.weights(outputs, features) * (state["seen"] > 0)
        return {**state, "totals": hits(state["totals"], scores, labels, counted)}

    def finish(self, state: Any) -> tuple[Any, dict[str, float]]:
        """Accuracy of the validation; nothing while the bank is empty."""
        cleared = {**state, "totals": no_hits()}
        if float(state["totals"]["count"]) == 0:
            return cleared, {}
        return cleared, {f"eval/{self.name}_acc": share(state["totals"])}
