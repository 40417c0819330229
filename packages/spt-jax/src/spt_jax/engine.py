"""The two compiled steps: pure functions of a state of arrays, traced once each."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from spt_jax.callbacks.base import Callback
from spt_jax.module import Module

State = dict[str, Any]


class Engine:
    """Splits a module into weights and structure, and compiles its training and evaluation.

    Args:
        module: What to train.
        tx: The optimizer; ``None`` trains nothing.
        callbacks: Whose states travel with the weights.
        seed: Of the training transform.
    """

    def __init__(
        self,
        module: Module,
        tx: optax.GradientTransformation | None,
        callbacks: Sequence[Callback],
        seed: int = 0,
    ) -> None:
        self.tx = tx
        self.callbacks = list(callbacks)
        self.transform = module.settings.transform
        self.seed = seed
        module.eval()
        self.eval_graph = split(module)[0]
        module.train()
        self.train_graph, params, rest = split(module)
        self.start = {"params": params, "rest": rest}
        self.traces = {"train": 0, "evaluate": 0}
        self.train = jax.jit(self._train, donate_argnums=0)
        self.evaluate = jax.jit(self._evaluate, donate_argnums=0)

    def init(self, batch: Mapping[str, Any]) -> State:
        """The first state; shapes of outputs are found without computing them."""
        params, rest = (jax.tree.map(jnp.copy, self.start[key]) for key in ("params", "rest"))
        state: State = {"params": params, "rest": rest, "step": jnp.zeros((), jnp.int32)}
        state["opt"] = self.tx.init(params) if self.tx is not None else ()

        def outputs_of(state: State, batch: Any) -> Any:
            return self._forward(state["params"], state, self._views(state, batch))[1][0]

        outputs = jax.eval_shape(outputs_of, state, dict(batch))
        states = [callback.init(outputs) for callback in self.callbacks]
        state["callbacks"] = jax.tree.map(jnp.copy, states)
        return state

    def _views(self, state: State, batch: Mapping[str, Any]) -> Any:
        """The training batch after the module's transform, keyed by the step."""
        if self.transform is None:
            return batch
        key = jax.random.fold_in(jax.random.PRNGKey(self.seed), state["step"])
        return self.transform(key, batch)

    def _forward(self, params: Any, state: State, batch: Any) -> Any:
        """Loss, then the outputs and what changed beside the weights (running statistics)."""
        module = merge(self.train_graph, params, state["rest"])
        outputs = module(batch, "fit")
        return outputs["loss"], (outputs, split(module)[2])

    def _train(self, state: State, batch: Mapping[str, Any]) -> tuple[State, dict[str, Any]]:
        """One optimizer step, then the callbacks on detached outputs."""
        self.traces["train"] += 1
        views = self._views(state, batch)
        gradient = jax.value_and_grad(self._forward, has_aux=True)
        (loss, (outputs, rest)), grads = gradient(state["params"], state, views)
        params, opt = state["params"], state["opt"]
        if self.tx is not None:
            updates, opt = self.tx.update(grads, opt, params)
            params = optax.apply_updates(params, updates)
        logs = {"fit/loss": loss}
        outputs = jax.lax.stop_gradient(outputs)
        states = []
        for callback, own in zip(self.callbacks, state["callbacks"], strict=True):
            own, more = callback.train(own, outputs)
            states.append(own)
            logs.update(more)
        new = {"params": params, "rest": rest, "opt": opt, "callbacks": states}
        return {**new, "step": state["step"] + 1}, logs

    def _evaluate(
        self, state: State, batch: Mapping[str, Any], mask: jax.Array
    ) -> tuple[State, jax.Array]:
        """The callbacks on the outputs in evaluation mode; rows with mask 0 do not count."""
        self.traces["evaluate"] += 1
        module = merge(self.eval_graph, state["params"], state["rest"])
        outputs = module(batch, "validate")
        states = [
            callback.evaluate(own, outputs, mask)
            for callback, own in zip(self.callbacks, state["callbacks"], strict=True)
        ]
        loss = outputs.get("loss", jnp.full((), jnp.nan))
        return {**state, "callbacks": states}, loss

    def update(self, module: Module, state: State) -> None:
        """Write the weights back into the live module."""
        nnx.update(module, state["params"], state["rest"])


def merge(graph: Any, params: Any, rest: Any) -> Any:
    """A module of its own from structure and values; older Flax always copies the variables."""
    copies = {"copy": True} if "copy" in inspect.signature(nnx.merge).parameters else {}
    return nnx.merge(graph, params, rest, **copies)


def split(module: Module) -> tuple[Any, Any, Any]:
    """Structure, weights, and everything else, such as running statistics."""
    graph, params, rest = nnx.split(module, nnx.Param, ...)  # type: ignore[misc]
    return graph, params, rest
