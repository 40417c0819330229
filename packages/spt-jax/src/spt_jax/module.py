"""A module: components, and a forward function ``(self, batch, stage) -> dict``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
from flax import nnx

State = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Settings:
    """What a module carries beside its weights; one static value for the compiler.

    Attributes:
        forward: The forward function.
        optim: As for ``spt_jax.optim.create_optimizer``; ``None`` trains nothing.
        transform: ``(key, batch) -> batch``, applied in training on the device.
        hparams: Hyper-parameters to record.
        extras: Components without weights, such as losses.
    """

    forward: Callable[[Any, Any, str], State]
    optim: Any = "adamw"
    transform: Callable[[jax.Array, Any], Any] | None = None
    hparams: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)


class Module(nnx.Module):
    """Any components and a stateless forward function.

    Args:
        forward: ``(self, batch, stage) -> dict`` with a scalar ``loss`` in ``"fit"``.
        optim: Name, mapping or optax transformation.
        transform: ``(key, batch) -> batch`` for training batches, such as
            ``augment.two_view_transform``.
        hparams: Hyper-parameters to record.
        **components: ``nnx`` modules become submodules; anything else is kept as it is.

    Raises:
        ValueError: If ``forward`` cannot be called.
    """

    def __init__(
        self,
        *,
        forward: Callable[[Any, Any, str], State],
        optim: Any = "adamw",
        transform: Callable[[jax.Array, Any], Any] | None = None,
        hparams: Mapping[str, Any] | None = None,
        **components: Any,
    ) -> None:
        if not callable(forward):
            raise ValueError(
                f"`forward` must be a function of (self, batch, stage), got {type(forward).__name__}."
            )
        extras = {}
        for name, value in components.items():
            if isinstance(value, nnx.Module):
                setattr(self, name, value)
            else:
                extras[name] = value
        self.settings = Settings(forward, optim, transform, dict(hparams or {}), extras)

    def __getattr__(self, name: str) -> Any:
        settings = self.__dict__.get("settings")
        if settings is not None and name in settings.extras:
            return settings.extras[name]
        raise AttributeError(f"{type(self).__name__} has no component {name!r}")

    def __call__(self, batch: Any, stage: str) -> State:
        """Run the forward function.

        Raises:
            KeyError: If there is no ``loss`` in ``"fit"``.
            TypeError: If it returns no mapping.
        """
        state = self.settings.forward(self, batch, stage)
        name = getattr(self.settings.forward, "__name__", "forward")
        if not isinstance(state, Mapping):
            raise TypeError(f"{name} must return a dict, got {type(state).__name__}.")
        if stage == "fit" and "loss" not in state:
            raise KeyError(f"{name} must return 'loss' in training; it returned {sorted(state)}.")
        return dict(state)
