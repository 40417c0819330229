"""Optimizers from a specification, in the grammar of the torch side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import optax


def create_optimizer(spec: Any, *, total_steps: int | None = None) -> optax.GradientTransformation:
    """Make an optax transformation.

    Args:
        spec: An optax transformation; a name; a mapping with ``type``, ``lr`` (or
            ``learning_rate``) and further arguments; or a mapping with ``optimizer`` and
            ``scheduler``, as for the torch side. Names: ``adamw`` (decay 0.01, as torch),
            ``adam``, ``sgd``, ``lars`` (momentum 0.9; biases and norms excluded).
        total_steps: Length of the run, for a schedule.

    Raises:
        TypeError: If the specification is of another kind.
        ValueError: If a name is unknown, or a schedule has no length.
    """
    if isinstance(spec, optax.GradientTransformation):
        return spec
    if isinstance(spec, str):
        spec = {"type": spec}
    if not isinstance(spec, Mapping):
        raise TypeError(
            f"`optim` must be a name, a mapping or an optax transformation, got {type(spec).__name__}."
        )
    inner = spec.get("optimizer", spec)
    inner = {"type": inner} if isinstance(inner, str) else dict(inner)
    scheduler = spec.get("scheduler") if "optimizer" in spec else None
    name = str(inner.pop("type", "adamw")).lower()
    rate = inner.pop("lr", inner.pop("learning_rate", 1e-3))
    if scheduler is not None:
        rate = create_schedule(scheduler, rate, total_steps)
    makers = {"adamw": _adamw, "adam": optax.adam, "sgd": optax.sgd, "lars": _lars}
    if name not in makers:
        raise ValueError(f"Unknown optimizer {name!r}; there are {sorted(makers)}.")
    made: optax.GradientTransformation = makers[name](rate, **inner)
    return made


def create_schedule(scheduler: Any, lr: float, total_steps: int | None) -> optax.Schedule:
    """A schedule by name: ``LinearWarmupCosineAnnealing`` or ``CosineAnnealingLR``.

    Raises:
        ValueError: If the name is unknown, or ``total_steps`` is missing.
    """
    options: dict[str, Any] = {"type": scheduler} if isinstance(scheduler, str) else dict(scheduler)
    name = options.pop("type", "CosineAnnealingLR")
    total = options.pop("total_steps", total_steps)
    if total is None:
        raise ValueError(f"{name} needs `total_steps`; set `max_epochs` or `max_steps`.")
    if name == "CosineAnnealingLR":
        return optax.cosine_decay_schedule(lr, total, alpha=options.get("eta_min", 0.0) / lr)
    if name == "LinearWarmupCosineAnnealing":
        peak = options.get("peak_step", 0.01)
        warmup = int(peak * total) if peak < 1 else int(peak)
        return optax.warmup_cosine_decay_schedule(
            lr * options.get("start_factor", 0.01), lr, warmup, total, options.get("end_lr", 0.0)
        )
    raise ValueError(
        f"Unknown scheduler {name!r}; there are CosineAnnealingLR and LinearWarmupCosineAnnealing."
    )


def _adamw(rate: Any, weight_decay: float = 1e-2, **kwargs: Any) -> optax.GradientTransformation:
    return optax.adamw(rate, weight_decay=weight_decay, **kwargs)


def _lars(
    rate: Any, weight_decay: float = 0.0, momentum: float = 0.9, eta: float = 1e-3
) -> optax.GradientTransformation:
    """LARS (https://arxiv.org/abs/1708.03888) that leaves tensors of at most one dimension alone."""

    def matrices(params: Any) -> Any:
        return jax.tree.map(lambda p: p.ndim > 1, params)

    return optax.lars(
        rate,
        weight_decay=weight_decay,
        weight_decay_mask=matrices,
        trust_coefficient=eta,
        trust_ratio_mask=matrices,
        momentum=momentum,
    )
