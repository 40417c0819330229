"""The compiled steps: pure functions of a state of arrays, traced once each.

A training step is one optimizer step: transform, forward, backward, update, the teachers' moving
average, and the callbacks, in one program whose state is donated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from spt_jax._compat import merge, modules_of, split
from spt_jax.batches import WEIGHT
from spt_jax.callbacks.base import Callback
from spt_jax.module import Module, Stage, Step, in_step
from spt_jax.placement import Placement
from spt_jax.precision import Precision, computing_in
from spt_jax.teacher import teachers_of

MODES = ("deterministic", "use_running_average")
"""What ``train()`` and ``eval()`` set in a layer."""

State = dict[str, Any]
Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """How a module is trained.

    Attributes:
        tx: The optimizer; ``None`` trains nothing.
        rate: The learning rate at a step, to be logged.
        total_steps: Optimizer steps of the run, if known.
        accumulate: Micro-batches of an optimizer step.
        precision: Of the activations.
        seed: Of the training transform.
        wants_outputs: Whether the training step returns the forward function's dict.
        wants_eval_outputs: Whether the evaluation step does.
    """

    tx: optax.GradientTransformation | None = None
    rate: Callable[[Any], Any] | None = None
    total_steps: int | None = None
    accumulate: int = 1
    precision: Precision = "f32"
    seed: int = 0
    wants_outputs: bool = False
    wants_eval_outputs: bool = False


class Engine:
    """Splits a module into weights and structure, and compiles its training and evaluation.

    Args:
        module: What to train.
        callbacks: Whose states travel with the weights.
        placement: Where arrays live.
        plan: How to train.

    Attributes:
        traces: How often each program was traced; once each over a run.
    """

    def __init__(
        self, module: Module, callbacks: Sequence[Callback], placement: Placement, plan: Plan
    ) -> None:
        self.callbacks = list(callbacks)
        self.placement = placement
        self.plan = plan
        self.settings = module.settings
        with computing_in(module, plan.precision), same_mode_after(module):
            self.eval_graph = split(in_mode(module, training=False))[0]
            self.train_graph, params, rest = split(in_mode(module, training=True))
        if plan.tx is None:
            self.train_graph = self.eval_graph  # nothing moves, running statistics included
        self.start = {"params": params, "rest": rest}
        self.traces = {"train": 0, "evaluate": 0}
        self.train = placement.jit(self._train, donate=(0,))
        self._evaluations: dict[str, Any] = {}

    # The first state

    def init(self, batch: Batch, stage: Stage = "fit") -> State:
        """The first state; shapes of outputs are found without computing them.

        Args:
            batch: One (micro-)batch, as the steps get it.
            stage: Whose outputs the callbacks will read.
        """
        params, rest = self.start["params"], self.start["rest"]

        def first(batch: Batch) -> Any:
            views = self._transformed(jax.random.key(0), batch, stage)
            step = Step(0, self.plan.total_steps, jax.random.key(0))
            outputs, logs, _ = self._forward(params, rest, views, stage, step)
            return outputs, self._logs_of(outputs, logs)

        outputs, logs = jax.eval_shape(first, dict(batch))
        own = [callback.init(outputs) for callback in self.callbacks]
        more = [
            jax.eval_shape(callback.train, state, outputs)[1]
            for callback, state in zip(self.callbacks, own, strict=True)
        ]
        names = [*logs, *(name for found in more for name in found)]
        state: State = {
            "params": params,
            "rest": rest,
            "opt": self.plan.tx.init(params) if self.plan.tx is not None else (),
            "step": jnp.zeros((), jnp.int32),
            "callbacks": own,
            "logs": {"window": no_logs(names), "epoch": no_logs(names)},
        }
        return self.placement.state(state)

    def with_weights_of(self, module: Module, state: State) -> State:
        """A state with the live module's present weights, for an evaluation."""
        _, params, rest = split(module)
        return {**state, **self.placement.state({"params": params, "rest": rest})}

    def clear(self, state: State, span: str) -> State:
        """A state whose ``"window"`` or ``"epoch"`` of logged scalars begins anew."""
        fresh = self.placement.state(no_logs(list(state["logs"][span]["sums"])))
        return {**state, "logs": {**state["logs"], span: fresh}}

    # Training

    def _transformed(self, key: jax.Array, batch: Batch, stage: Stage) -> dict[str, Any]:
        """The batch after the module's transform for the stage."""
        settings = self.settings
        changed: Any = batch
        if stage == "fit" and settings.transform is not None:
            changed = settings.transform(key, batch)
        elif stage != "fit" and settings.eval_transform is not None:
            changed = settings.eval_transform(batch)
        return {**changed, WEIGHT: batch[WEIGHT]}

    def _forward(
        self, params: Any, rest: Any, batch: Any, stage: Stage, step: Step | None = None
    ) -> Any:
        """Outputs, logged scalars, and what changed beside the weights (running statistics)."""
        module = merge(self.train_graph if stage == "fit" else self.eval_graph, params, rest)
        with in_step(step or Step()) as logs:
            outputs = module(batch, stage)
        outputs = {**outputs, WEIGHT: batch[WEIGHT]}
        return outputs, dict(logs), split(module)[2]

    @staticmethod
    def _logs_of(outputs: Mapping[str, Any], logs: Mapping[str, Any]) -> dict[str, Any]:
        own = {"fit/loss": outputs["loss"].astype(jnp.float32)} if "loss" in outputs else {}
        return {**own, **logs}

    def _gradients(self, params: Any, rest: Any, batch: Any, number: Any, key: jax.Array) -> Any:
        """Gradients (none without an optimizer), outputs, logs, and the rest."""

        def loss_of(params: Any) -> Any:
            step = Step(number, self.plan.total_steps, key)
            found = self._forward(params, rest, batch, "fit", step)
            return found[0].get("loss", jnp.zeros(())).astype(jnp.float32), found

        if self.plan.tx is None:
            return None, loss_of(params)[1]
        (_, found), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        return grads, found

    def _micro_step(
        self, params: Any, carry: Any, batch: Batch, number: Any, key: jax.Array
    ) -> Any:
        """Forward and backward of one batch, and the callbacks on its detached outputs."""
        k_views, k_forward = jax.random.split(key)
        views = self._transformed(k_views, batch, "fit")
        found = self._gradients(params, carry["rest"], views, number, k_forward)
        grads, (outputs, logs, rest) = found
        outputs = jax.lax.stop_gradient(outputs)
        logs = self._logs_of(outputs, logs)
        states = []
        for callback, own in zip(self.callbacks, carry["callbacks"], strict=True):
            own, more = callback.train(own, outputs)
            states.append(own)
            logs = {**logs, **more}
        return grads, {"rest": rest, "callbacks": states}, logs, outputs

    def _train(self, state: State, batch: Batch) -> tuple[State, Any]:
        """One optimizer step."""
        self.traces["train"] += 1
        key = jax.random.fold_in(jax.random.key(self.plan.seed), state["step"])
        carry = {"rest": state["rest"], "callbacks": state["callbacks"]}
        step = self._accumulated if self.plan.accumulate > 1 else self._micro_step
        grads, carry, logs, outputs = step(state["params"], carry, batch, state["step"], key)
        new = {**state, **carry, "step": state["step"] + 1}
        new["logs"] = {name: add_logs(sums, logs) for name, sums in state["logs"].items()}
        if self.plan.tx is not None:
            updates, new["opt"] = self.plan.tx.update(grads, state["opt"], state["params"])
            new["params"] = optax.apply_updates(state["params"], updates)
            new["rest"] = self._move_teachers(new["params"], new["rest"], state["step"])
        return new, outputs if self.plan.wants_outputs else None

    def _accumulated(self, params: Any, carry: Any, batch: Batch, step: Any, key: jax.Array) -> Any:
        """The mean of several micro-batches' gradients; those without a real row do not count."""
        number = self.plan.accumulate
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(number))

        def one(carry: Any, micro: Any) -> Any:
            part, key = micro
            counts = part[WEIGHT].sum() > 0
            grads, moved, logs, outputs = self._micro_step(params, carry["own"], part, step, key)
            share = counts.astype(jnp.float32)
            sums = {"grads": grads, "logs": logs}
            sums = jax.tree.map(lambda new: share * new, sums)
            own = jax.tree.map(lambda new, old: jnp.where(counts, new, old), moved, carry["own"])
            total = jax.tree.map(jnp.add, carry["sums"], sums)
            return {"own": own, "sums": total, "count": carry["count"] + share}, outputs

        first = jax.tree.map(lambda x: x[0], batch)
        shapes = jax.eval_shape(self._micro_step, params, carry, first, step, key)
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), {"grads": shapes[0], "logs": shapes[2]}
        )
        start = {"own": carry, "sums": zeros, "count": jnp.zeros(())}
        end, outputs = jax.lax.scan(one, start, (batch, keys))
        mean = jax.tree.map(lambda x: x / jnp.maximum(end["count"], 1.0), end["sums"])
        last = jax.tree.map(lambda x: x[-1], outputs)
        return mean["grads"], end["own"], mean["logs"], last

    def _move_teachers(self, params: Any, rest: Any, step: jax.Array) -> Any:
        """The moving averages after a step."""
        module = merge(self.train_graph, params, rest)
        wrappers = teachers_of(module)
        for wrapper in wrappers:
            wrapper.update_teacher(wrapper.ema_coefficient(step, self.plan.total_steps))
        return split(module)[2] if wrappers else rest

    # Evaluation

    def evaluate(
        self, state: State, totals: Any, batch: Batch, stage: Stage
    ) -> tuple[State, Any, Any]:
        """One batch through the callbacks; rows of weight 0 do not count.

        Args:
            state: The state; of it only the callbacks' part is replaced.
            totals: Sums of the logged scalars so far; ``None`` before the first batch.
            batch: The batch.
            stage: ``"validate"`` or ``"test"``.

        Returns:
            The state, the totals, and the outputs if the plan wants them.
        """
        if stage not in self._evaluations:
            self._evaluations[stage] = self._compiled_evaluation(stage)
        if totals is None:
            logs = jax.eval_shape(
                lambda state, batch: self._evaluated(state, batch, stage)[1], state, dict(batch)
            )
            totals = self.placement.state(no_logs(list(logs)))
        weights = {"params": state["params"], "rest": state["rest"]}
        own, totals, outputs = self._evaluations[stage](weights, state["callbacks"], totals, batch)
        return {**state, "callbacks": own}, totals, outputs

    def _compiled_evaluation(self, stage: Stage) -> Any:
        name = "evaluate" if stage == "validate" else stage

        def run(weights: Any, own: Any, totals: Any, batch: Batch) -> Any:
            self.traces[name] = self.traces.get(name, 0) + 1
            outputs, logs = self._evaluated(weights, batch, stage)
            mask = batch[WEIGHT]
            states = [
                callback.evaluate(state, outputs, mask)
                for callback, state in zip(self.callbacks, own, strict=True)
            ]
            shown = outputs if self.plan.wants_eval_outputs else None
            return states, add_logs(totals, logs, mask.sum()), shown

        return self.placement.jit(run, donate=(1, 2))

    def _evaluated(self, weights: Any, batch: Batch, stage: Stage) -> tuple[Any, dict[str, Any]]:
        views = self._transformed(jax.random.key(0), batch, stage)
        outputs, logs, _ = self._forward(weights["params"], weights["rest"], views, stage)
        if "loss" in outputs:
            logs = {f"{stage}/loss": outputs["loss"].astype(jnp.float32), **logs}
        return outputs, logs

    def predict(self, state: State, batch: Batch) -> Any:
        """The forward function's dict for a batch."""
        if "predict" not in self._evaluations:

            def run(weights: Any, batch: Batch) -> Any:
                self.traces["predict"] = self.traces.get("predict", 0) + 1
                return self._evaluated(weights, batch, "predict")[0]

            self._evaluations["predict"] = self.placement.jit(run)
        weights = {"params": state["params"], "rest": state["rest"]}
        return self._evaluations["predict"](weights, batch)

    def update(self, module: Module, state: State) -> None:
        """Write copies of the weights back into the live module."""
        held = jax.tree.map(jnp.copy, {"params": state["params"], "rest": state["rest"]})
        nnx.update(module, held["params"], held["rest"])


@contextmanager
def same_mode_after(module: Module) -> Iterator[None]:
    """Give every layer its own training or evaluation mode back after the block."""
    layers = [vars(layer) for layer in modules_of(module)]
    before = [(layer, {name: layer[name] for name in MODES if name in layer}) for layer in layers]
    try:
        yield
    finally:
        for layer, modes in before:
            layer.update(modes)


def in_mode(module: Module, *, training: bool) -> Module:
    """The module itself, its BatchNorm and dropout set; teachers stay without dropout."""
    if training:
        module.train()
    else:
        module.eval()
    for wrapper in teachers_of(module):
        wrapper.quiet_teacher()
    return module


def no_logs(names: Sequence[str]) -> dict[str, Any]:
    """Sums and a count of zero."""
    return {"sums": {name: jnp.zeros(()) for name in names}, "count": jnp.zeros(())}


def add_logs(totals: Any, logs: Mapping[str, Any], weight: Any = 1.0) -> dict[str, Any]:
    """Totals with one more batch of logged scalars."""
    sums = {name: total + weight * logs[name] for name, total in totals["sums"].items()}
    return {"sums": sums, "count": totals["count"] + weight}


def means(totals: Mapping[str, Any]) -> dict[str, float]:
    """Means of fetched totals; nothing if nothing was counted."""
    count = float(totals["count"])
    return {name: float(total) / count for name, total in totals["sums"].items()} if count else {}
