"""A probe trained on detached features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from spt_jax._compat import merge, split
from spt_jax.callbacks.base import Callback, Logs, hits, no_hits, share
from spt_jax.optim import create_optimizer
from spt_jax.placement import copied


class OnlineProbe(Callback):
    """Train a classifier on detached features; logs ``train/{name}_loss`` and ``eval/{name}_acc``.

    The probe holds its trained weights after ``fit``; a further run begins with those it was given with.

    Args:
        name: Name in the logs.
        probe: From features ``(N, D)`` to scores ``(N, C)``; it may hold BatchNorm and dropout.
        input: Key of the features.
        target: Key of the classes.
        optim: As for ``spt_jax.optim.create_optimizer``.

    Attributes:
        accuracy: Share of right answers (top-1) in the last evaluation; NaN before one.
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
        self.accuracy = float("nan")
        self.tx = create_optimizer(optim)
        self.probe = probe
        probe.eval()
        self.eval_graph = split(probe)[0]
        probe.train()
        self.train_graph, *start = split(probe)
        self.params, self.rest = copied(start)  # the probe's own change after a run

    def init(self, outputs: Mapping[str, Any]) -> Any:
        """Weights, optimizer state and totals."""
        self.need(outputs, self.input, self.target)
        return {
            "params": self.params,
            "rest": self.rest,
            "opt": self.tx.init(self.params),
            "totals": no_hits(),
        }

    def train(self, state: Any, outputs: Mapping[str, Any]) -> tuple[Any, Logs]:
        """One step of the probe; rows that fill the batch do not count."""
        features, labels = self.need(outputs, self.input, self.target)
        weight = self.weights(outputs, features)

        def loss_of(params: Any) -> Any:
            probe = merge(self.train_graph, params, state["rest"])
            scores = probe(features.astype(jnp.float32)).astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
            return (losses * weight).sum() / jnp.maximum(weight.sum(), 1.0), split(probe)[2]

        (loss, rest), grads = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        updates, opt = self.tx.update(grads, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        new = {**state, "params": params, "rest": rest, "opt": opt}
        return new, {f"train/{self.name}_loss": loss}

    def evaluate(self, state: Any, outputs: Mapping[str, Any], mask: jax.Array) -> Any:
        """Count right answers."""
        features, labels = self.need(outputs, self.input, self.target)
        probe = merge(self.eval_graph, state["params"], state["rest"])
        scores = probe(features.astype(jnp.float32))
        counted = self.weights(outputs, features)
        return {**state, "totals": hits(state["totals"], scores, labels, counted)}

    def finish(self, state: Any) -> tuple[Any, dict[str, float]]:
        """Accuracy of the validation."""
        self.accuracy = share(state["totals"])
        return {**state, "totals": no_hits()}, {f"eval/{self.name}_acc": self.accuracy}

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        """Give the trained weights to the probe."""
        state = trainer.state["callbacks"][trainer.callbacks.index(self)]
        held = copied({"params": state["params"], "rest": state["rest"]})
        nnx.update(self.probe, held["params"], held["rest"])
