"""A module: components, and a forward function ``(self, batch, stage) -> dict``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from spt_jax._compat import dict_of, list_of

State = dict[str, Any]
Stage = Literal["fit", "validate", "test", "predict"]
Transform = Callable[[jax.Array, Any], Any]


@dataclass
class Step:
    """What a forward function may ask about the step it is part of; outside of a run, step 0.

    Attributes:
        number: Optimizer step, counted from 0; an array while compiled.
        total: Steps of the run, if known.
        key: Random key of this (micro-)step.
        logs: Scalars recorded with :meth:`Module.log`.
    """

    number: Any = 0
    total: int | None = None
    key: jax.Array | None = None
    logs: dict[str, jax.Array] = field(default_factory=dict)


_step: ContextVar[Step | None] = ContextVar("spt_jax_step", default=None)


@dataclass(frozen=True, eq=False)
class Settings:
    """What a module carries beside its weights; one static value for the compiler.

    Attributes:
        forward: The forward function.
        optim: As for ``spt_jax.optim.create_optimizer``; ``None`` trains nothing.
        transform: ``(key, batch) -> batch``, applied in training on the device.
        eval_transform: ``batch -> batch``, applied in the other stages on the device.
        aug_seed: Of the training transform's keys.
        hparams: Hyper-parameters to record.
        extras: Components without weights, such as losses.
    """

    forward: Callable[[Any, Any, str], State]
    optim: Any = "adamw"
    transform: Transform | None = None
    eval_transform: Callable[[Any], Any] | None = None
    aug_seed: int = 0
    hparams: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)


class Module(nnx.Module):
    """Any components and a stateless forward function.

    Args:
        forward: ``(self, batch, stage) -> dict`` with a scalar ``loss`` in ``"fit"``.
        optim: Name, mapping or optax transformation; ``None`` trains nothing.
        transform: ``(key, batch) -> batch`` for training batches, such as
            ``augment.two_view_transform``.
        eval_transform: ``batch -> batch`` for the other stages, such as a normalisation.
        aug_seed: Of the keys that ``transform`` is given; each step has its own key.
        hparams: Hyper-parameters to record.
        **components: ``nnx`` modules and variables, and lists, tuples and dicts of them, become
            submodules and weights; anything else is kept as it is.

    Raises:
        TypeError: If a component holds modules or variables in another container.
        ValueError: If ``forward`` cannot be called.
    """

    def __init__(
        self,
        *,
        forward: Callable[[Any, Any, str], State],
        optim: Any = "adamw",
        transform: Transform | None = None,
        eval_transform: Callable[[Any], Any] | None = None,
        aug_seed: int = 0,
        hparams: Mapping[str, Any] | None = None,
        **components: Any,
    ) -> None:
        if not callable(forward):
            raise ValueError(
                f"`forward` must be a function of (self, batch, stage), got {type(forward).__name__}."
            )
        extras = {}
        for name, value in components.items():
            if holds_state(value):
                setattr(self, name, as_node(name, value))
            else:
                extras[name] = value
        self.settings = Settings(
            forward, optim, transform, eval_transform, aug_seed, dict(hparams or {}), extras
        )

    def __getattr__(self, name: str) -> Any:
        settings = self.__dict__.get("settings")
        if settings is not None and name in settings.extras:
            return settings.extras[name]
        raise AttributeError(f"{type(self).__name__} has no component {name!r}")

    def __call__(self, batch: Any, stage: str) -> State:
        """Run the forward function.

        Raises:
            KeyError: If there is no scalar ``loss`` in ``"fit"``, and there is an optimizer.
            TypeError: If it returns no mapping.
        """
        state = self.settings.forward(self, batch, stage)
        name = getattr(self.settings.forward, "__name__", "forward")
        if not isinstance(state, Mapping):
            raise TypeError(f"{name} must return a dict, got {type(state).__name__}.")
        if stage == "fit" and self.settings.optim is not None:
            if "loss" not in state:
                raise KeyError(
                    f"{name} must return 'loss' in training; it returned {sorted(state)}."
                )
            if jnp.shape(state["loss"]) != ():
                raise KeyError(
                    f"{name} must return a scalar 'loss', got shape {jnp.shape(state['loss'])}."
                )
        return dict(state)

    def log(self, name: str, value: Any, **_: Any) -> None:
        """Record a scalar of this step, to be averaged on the device.

        Keywords of Lightning's ``log`` (``on_step``, ``on_epoch``, ``sync_dist``, ...) are accepted, so that
        forward functions can be carried over; steps and epochs are always logged.

        Raises:
            ValueError: If the value is no scalar.
        """
        if jnp.shape(value) != ():
            raise ValueError(f"`log({name!r})` takes a scalar, got shape {jnp.shape(value)}.")
        step = _step.get()
        if step is not None:
            step.logs[name] = jax.lax.stop_gradient(jnp.asarray(value, jnp.float32))

    def step(self) -> Step:
        """The step that is being computed: its number, and how many there will be."""
        return _step.get() or Step()

    def step_key(self, number: int = 0) -> jax.Array:
        """A random key of this step; the same for the same seed and step, in a continued run, too.

        Args:
            number: Tells several keys of one forward function apart.
        """
        key = self.step().key
        return jax.random.fold_in(jax.random.key(0) if key is None else key, number)


NODES = (nnx.Module, nnx.Variable, nnx.Rngs)


def holds_state(value: Any) -> bool:
    """Whether a component is, or contains, what is trained, saved or moved on by a step."""
    leaves = jax.tree.leaves(value, is_leaf=lambda node: isinstance(node, NODES))
    return any(isinstance(leaf, NODES) for leaf in leaves)


def as_node(name: str, value: Any) -> Any:
    """A component as something whose weights are found: lists and dicts in Flax's own.

    Raises:
        TypeError: If it is of a kind that Flax does not look into.
    """
    if isinstance(value, NODES) or not holds_state(value):
        return value
    if type(value) in (list, tuple):
        return list_of([as_node(name, item) for item in value])
    if type(value) is dict:
        return dict_of({key: as_node(name, item) for key, item in value.items()})
    raise TypeError(
        f"The component {name!r} holds weights in a {type(value).__name__}, where they would not be "
        "trained; give an nnx.Module, or a list, tuple or dict of them."
    )


@contextmanager
def in_step(step: Step) -> Iterator[dict[str, jax.Array]]:
    """Make a step known to the module inside the block; gives what is logged there."""
    token = _step.set(step)
    try:
        yield step.logs
    finally:
        _step.reset(token)
