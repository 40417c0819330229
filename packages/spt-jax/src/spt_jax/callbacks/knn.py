"""Weighted k-nearest-neighbour classification against a ring of training features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from spt_jax.callbacks.base import Callback, Logs, hits, no_hits, push, share
from spt_jax.losses import l2_normalize


class OnlineKNN(Callback):
    """Classify validation features by their nearest training features (Wu et al., 2018).

    The vote is weighted by ``exp(cosine / temperature)`` (https://arxiv.org/abs/1805.01978); logs
    ``eval/{name}_acc``.

    Args:
        num_classes: Number of classes.
        name: Name in the logs.
        input: Key of the features.
        target: Key of the classes.
        k: Neighbours that vote.
        temperature: tau.
        bank_size: Features kept, the newest.

    Raises:
        ValueError: If a number is not above 0.
    """

    def __init__(
        self,
        num_classes: int,
        name: str = "knn",
        input: str = "embedding",
        target: str = "label",
        k: int = 20,
        temperature: float = 0.07,
        bank_size: int = 8192,
    ) -> None:
        for label, value in (
            ("num_classes", num_classes),
            ("k", k),
            ("temperature", temperature),
            ("bank_size", bank_size),
        ):
            if not value > 0:
                raise ValueError(f"`{label}` of OnlineKNN {name!r} must be > 0, got {value}.")
        self.num_classes = num_classes
        self.name = name
        self.input = input
        self.target = target
        self.k = min(k, bank_size)
        self.temperature = temperature
        self.bank_size = bank_size

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
        unit = l2_normalize(features.astype(jnp.float32))
        bank = push(state["bank"], state["seen"], unit)
        return {
            **state,
            "bank": bank,
            "labels": push(state["labels"], state["seen"], labels),
            "seen": state["seen"] + len(features),
        }, {}

    def evaluate(self, state: Any, outputs: Mapping[str, Any], mask: jax.Array) -> Any:
        """Vote, and count right answers."""
        features, labels = self.need(outputs, self.input, self.target)
        queries = l2_normalize(features.astype(jnp.float32))
        valid = state["labels"] >= 0
        cosine = jnp.where(valid, queries @ state["bank"].T, -jnp.inf)
        nearest, index = jax.lax.top_k(cosine, self.k)
        weights = jnp.exp((nearest - nearest[:, :1]) / self.temperature)
        votes = jax.nn.one_hot(state["labels"][index], self.num_classes) * weights[..., None]
        counted = mask * valid.any()
        return {**state, "totals": hits(state["totals"], votes.sum(1), labels, counted)}

    def finish(self, state: Any) -> tuple[Any, dict[str, float]]:
        """Accuracy of the validation; nothing while the bank is empty."""
        cleared = {**state, "totals": no_hits()}
        if float(state["totals"]["count"]) == 0:
            return cleared, {}
        return cleared, {f"eval/{self.name}_acc": share(state["totals"])}
