"""A probe trained on detached features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from spt_jax.callbacks.base import Callback, Logs, hits, no_hits, share
from spt_jax.optim import create_optimizer


class OnlineProbe(Callback):
    """Train a classifier on detached features; logs ``train/{name}_loss`` and ``eval/{name}_acc``.

    Args:
        name: Name in the logs.
        probe: From features to scores.
        input: Key of the features.
        target: Key of the classes.
        optim: As for ``spt_jax.optim.create_optimizer``.
    """

    def __init__(
        self,
        name: str,
        probe: nnx.Module,
        input: str = "embedding",
        target: str = "label",
        optim: Any = "adamw",
    ) -> None:
        self.name = name
        self.input = input
        self.target = target
        self.tx = create_optimizer(optim)
        self.graph, self.params = nnx.split(probe)

    def init(self, outputs: Mapping[str, Any]) -> Any:
        """Weights, optimizer state and totals."""
        self.need(outputs, self.input, self.target)
        return {"params": self.params, "opt": self.tx.init(self.params), "totals": no_hits()}

    def _scores(self, params: Any, features: jax.Array) -> jax.Array:
        scores: jax.Array = nnx.merge(self.graph, params)(features.astype(jnp.float32))
        return scores

    def train(self, state: Any, outputs: Mapping[str, Any]) -> tuple[Any, Logs]:
        """One step of the probe."""
        features, labels = self.need(outputs, self.input, self.target)

        def loss_of(params: Any) -> jax.Array:
            scores = self._scores(params, features)
            return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

        loss, grads = jax.value_and_grad(loss_of)(state["params"])
        updates, opt = self.tx.update(grads, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {**state, "params": params, "opt": opt}, {f"train/{self.name}_loss": loss}

    def evaluate(self, state: Any, outputs: Mapping[str, Any], mask: jax.Array) -> Any:
        """Count right answers."""
        features, labels = self.need(outputs, self.input, self.target)
        scores = self._scores(state["params"], features)
        return {**state, "totals": hits(state["totals"], scores, labels, mask)}

    def finish(self, state: Any) -> tuple[Any, dict[str, float]]:
        """Accuracy of the validation."""
        return {**state, "totals": no_hits()}, {f"eval/{self.name}_acc": share(state["totals"])}
