"""Learning rates as functions of the optimizer step, named and computed as on the torch side.

Warm-up from Goyal et al., 2017 (https://arxiv.org/abs/1706.02677); cosine from Loshchilov & Hutter, 2017,
eq. 5 (https://arxiv.org/abs/1608.03983).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

Schedule = Callable[[Any], Any]
HORIZONS = ("T_max", "total_steps", "max_steps")
"""Arguments that stand for the length of the run, filled in when they are not given."""


def CosineAnnealingLR(lr: float, *, T_max: int, eta_min: float = 0.0) -> Schedule:
    """From ``lr`` to ``eta_min`` in ``T_max`` steps; periodic, as torch's."""
    return lambda step: eta_min + (lr - eta_min) * 0.5 * (1 + jnp.cos(jnp.pi * step / T_max))


def StepLR(lr: float, *, step_size: int = 30, gamma: float = 0.1) -> Schedule:
    """Times ``gamma`` every ``step_size`` steps."""
    return lambda step: lr * gamma ** (step // step_size)


def MultiStepLR(lr: float, *, milestones: list[int], gamma: float = 0.1) -> Schedule:
    """Times ``gamma`` at each milestone."""
    return lambda step: lr * gamma ** sum(jnp.asarray(step >= m, jnp.float32) for m in milestones)


def ExponentialLR(lr: float, *, gamma: float = 0.9) -> Schedule:
    """Times ``gamma`` every step."""
    return lambda step: lr * gamma**step


def LinearLR(
    lr: float, *, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
) -> Schedule:
    """On a line from ``start_factor`` to ``end_factor`` times ``lr``, then constant."""
    return lambda step: (
        lr * (start_factor + (end_factor - start_factor) * jnp.clip(step / total_iters, 0, 1))
    )


def ConstantLR(lr: float, *, factor: float = 1 / 3, total_iters: int = 5) -> Schedule:
    """``factor`` times ``lr`` for ``total_iters`` steps, then ``lr``."""
    return lambda step: jnp.where(step < total_iters, lr * factor, lr)


def LinearWarmup(
    lr: float, *, total_steps: int, start_factor: float = 0.01, peak_step: float = 0.1
) -> Schedule:
    """From ``start_factor`` to 1 times ``lr`` at ``peak_step``, then constant."""
    top = peak(total_steps, peak_step)
    return lambda step: lr * _warm(step, top, start_factor)


def LinearWarmupCosineAnnealing(
    lr: float,
    *,
    total_steps: int,
    start_factor: float = 0.01,
    end_lr: float = 0.0,
    peak_step: float = 0.01,
) -> Schedule:
    """Warm up to ``lr``, then half a cosine down to ``end_lr``."""
    top = peak(total_steps, peak_step)

    def rate(step: Any) -> Any:
        done = jnp.clip((step - top) / max(total_steps - top, 1), 0, 1)
        down = end_lr + (lr - end_lr) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return jnp.where(step < top, lr * _warm(step, top, start_factor), down)

    return rate


def LinearWarmupCyclicAnnealing(
    lr: float, *, total_steps: int, start_factor: float = 0.01, peak_step: float = 0.1
) -> Schedule:
    """Warm up, then a line down to 0 with three cycles of a sine of half its height on it."""
    top = peak(total_steps, peak_step)
    rest = max(total_steps - top, 1)

    def rate(step: Any) -> Any:
        done = jnp.clip((step - top) / rest, 0, 1)
        down = (1 - done) * (1 + 0.5 * jnp.sin(2 * jnp.pi * 3 * done))
        return lr * jnp.where(step < top, _warm(step, top, start_factor), down)

    return rate


def LinearWarmupThreeStepsAnnealing(
    lr: float,
    *,
    total_steps: int,
    start_factor: float = 0.001,
    gamma: float = 0.3,
    peak_step: float = 0.05,
) -> Schedule:
    """Warm up, then times ``gamma`` at 40, 60 and 80 % of the remaining steps."""
    top = peak(total_steps, peak_step)
    drops = [top + round(share * (total_steps - top)) for share in (0.4, 0.6, 0.8)]
    drop = MultiStepLR(1.0, milestones=drops, gamma=gamma)
    return lambda step: lr * _warm(step, top, start_factor) * drop(step)


def LinearWarmupCosineAnnealingLR(
    lr: float,
    *,
    max_steps: int,
    warmup_steps: int | None = None,
    warmup_start_lr: float = 0.0,
    eta_min: float = 0.0,
) -> Schedule:
    """From ``warmup_start_lr`` to ``lr`` at ``warmup_steps`` (1 % of the run), then cosine to ``eta_min``."""
    top = max_steps // 100 if warmup_steps is None else warmup_steps

    def rate(step: Any) -> Any:
        up = warmup_start_lr + (lr - warmup_start_lr) * step / max(top, 1)
        done = jnp.clip((step - top) / max(max_steps - top, 1), 0, 1)
        down = eta_min + (lr - eta_min) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return jnp.where(step < top, up, down)

    return rate


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    made.__name__: made
    for made in (
        CosineAnnealingLR,
        StepLR,
        MultiStepLR,
        ExponentialLR,
        LinearLR,
        ConstantLR,
        LinearWarmup,
        LinearWarmupCosineAnnealing,
        LinearWarmupCyclicAnnealing,
        LinearWarmupThreeStepsAnnealing,
        LinearWarmupCosineAnnealingLR,
    )
}


def create_schedule(scheduler: Any, lr: float, total_steps: int | None = None) -> Schedule:
    """A schedule by name, from a mapping with ``type``, or any function of the step.

    Args:
        scheduler: Name, mapping or function; ``CosineAnnealingLR`` if a mapping has no ``type``.
        lr: The rate that it scales.
        total_steps: Length of the run in the schedule's steps; fills a missing horizon.

    Raises:
        TypeError: If an argument is unknown or missing, or the specification is of another kind.
        ValueError: If the name is unknown, or a horizon is needed and not known.
    """
    if callable(scheduler):
        return scheduler
    if not isinstance(scheduler, (str, Mapping)):
        raise TypeError(
            "The scheduler must be a name, a mapping with `type` or a function of the step, got "
            f"{type(scheduler).__name__}."
        )
    options = {"type": scheduler} if isinstance(scheduler, str) else dict(scheduler)
    name = options.pop("type", "CosineAnnealingLR")
    if name not in SCHEDULES:
        raise ValueError(f"Unknown scheduler {name!r}; there are {sorted(SCHEDULES)}.")
    known = list(inspect.signature(SCHEDULES[name]).parameters)[1:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(f"{name} has no argument {unknown}; there are {known}.")
    for horizon in set(HORIZONS) & set(known) - set(options):
        if total_steps is None:
            raise ValueError(
                f"{name} needs `{horizon}`; give it, or a run of known length (`max_steps`, or "
                "`max_epochs` and a loader with a length)."
            )
        options[horizon] = total_steps
    return SCHEDULES[name](lr, **options)


def warmup_cosine_schedule(
    base_lr: float, total_steps: int, warmup_steps: int = 0, end_lr: float = 0.0
) -> Schedule:
    """From 0 to ``base_lr`` in ``warmup_steps``, then half a cosine to ``end_lr``."""
    return LinearWarmupCosineAnnealingLR(
        base_lr, max_steps=total_steps, warmup_steps=warmup_steps, eta_min=end_lr
    )


def per_epoch(schedule: Schedule, steps_per_epoch: int) -> Schedule:
    """A schedule that counts epochs, as a function of the step."""
    return lambda step: schedule(step // steps_per_epoch)


def peak(total_steps: int, peak_step: float) -> int:
    """The step at which warm-up ends: ``peak_step`` itself, or that fraction of the total.

    Raises:
        ValueError: If there are no steps, or the peak lies outside them.
    """
    if total_steps < 1:
        raise ValueError(f"`total_steps` must be >= 1, got {total_steps}.")
    step = int(peak_step * total_steps) if 0 <= peak_step < 1 else math.floor(peak_step)
    if not 0 <= step <= total_steps:
        raise ValueError(
            f"`peak_step` must be a fraction in [0, 1) or a step in [1, {total_steps}], got {peak_step}."
        )
    return step


def _warm(step: Any, top: int, start: float) -> Any:
    return jnp.minimum(start + (1 - start) * step / max(top, 1), 1.0) if top else 1.0
