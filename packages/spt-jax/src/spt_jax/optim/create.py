"""Optimizers from a specification, in the grammar of the torch side."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import optax

from spt_jax.optim.lars import lars
from spt_jax.optim.schedules import Schedule, create_schedule, per_epoch

SINGLE_KEYS = {"optimizer", "scheduler", "interval"}
TOKENS = {"pos_embed", "cls_token", "mask_token", "register_tokens", "pos_tokens"}
"""Names of weights that are positions or tokens."""


@dataclass(frozen=True)
class Optimizer:
    """An optax transformation, and the rate it uses at a step if that is known."""

    tx: optax.GradientTransformation | None
    rate: Schedule | None = None


def create_optimizer(
    spec: Any,
    learning_rate: float = 1e-3,
    *,
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
) -> optax.GradientTransformation:
    """Make an optax transformation.

    Args:
        spec: An optax transformation; a function without arguments that returns one; a name; a
            mapping with ``type``, ``lr`` (or ``learning_rate``) and further arguments; or a mapping with
            ``optimizer``, ``scheduler`` and ``interval`` (``"step"`` or ``"epoch"``), as for the torch side.
            Names are those of torch, in any case: ``AdamW`` (decay 0.01), ``Adam``, ``SGD``, ``LARS``
            (momentum 0.9, biases and norms excluded), ``LAMB``; or any optimizer of optax. Torch's
            ``betas`` are understood; ``exclude_bias_norm=True`` leaves biases, norms, positions
            and tokens without decay (LARS leaves biases and norms so unless it is ``False``); ``skip_nonfinite=n`` leaves out up to n steps in a row whose
            gradients are not finite. ``None`` is AdamW.
        learning_rate: Rate if the specification has none.
        total_steps: Length of the run, for a schedule.
        steps_per_epoch: For a schedule that counts epochs.

    Raises:
        TypeError: If the specification is of another kind, or an argument is unknown.
        ValueError: If a name is unknown, or a schedule has no length.
    """
    made = build_optimizer(
        {} if spec is None else spec,
        learning_rate,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
    )
    assert made.tx is not None
    return made.tx


def build_optimizer(
    spec: Any,
    learning_rate: float = 1e-3,
    *,
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
    gradient_clip_val: float | None = None,
) -> Optimizer:
    """As :func:`create_optimizer`, with the rate to log and clipping; ``None`` has no optimizer."""
    if spec is None:
        return Optimizer(None)
    rate: Any = None
    if isinstance(spec, optax.GradientTransformation):
        tx = spec
    elif callable(spec):
        tx = spec()
    else:
        tx, rate = _from_spec(spec, learning_rate, total_steps, steps_per_epoch)
    if gradient_clip_val is not None:
        tx = optax.chain(optax.clip_by_global_norm(gradient_clip_val), tx)
    return Optimizer(tx, rate if rate is None or callable(rate) else lambda step: rate)


def _from_spec(
    spec: Any, learning_rate: float, total_steps: int | None, steps_per_epoch: int | None
) -> tuple[optax.GradientTransformation, Any]:
    if isinstance(spec, str):
        spec = {"type": spec}
    if not isinstance(spec, Mapping):
        raise TypeError(
            f"`optim` must be a name, a mapping or an optax transformation, got {type(spec).__name__}."
        )
    nested = "optimizer" in spec
    if nested and set(spec) - SINGLE_KEYS:
        raise TypeError(
            f"`optim` has unknown keys {sorted(set(spec) - SINGLE_KEYS)}; there are {sorted(SINGLE_KEYS)}."
        )
    inner = spec["optimizer"] if nested else spec
    if isinstance(inner, optax.GradientTransformation):
        if spec.get("scheduler") is not None:
            raise TypeError(
                "`optim` has a 'scheduler' beside an optax transformation, whose rate it cannot set; "
                "name the optimizer, or give the schedule to the transformation."
            )
        return inner, None
    options: dict[str, Any] = {"type": inner} if isinstance(inner, str) else dict(inner)
    rate = options.pop("lr", options.pop("learning_rate", learning_rate))
    scheduler = spec.get("scheduler") if nested else None
    if scheduler is not None:
        rate = _scheduled(scheduler, rate, spec.get("interval"), total_steps, steps_per_epoch)
    return _named(str(options.pop("type", "adamw")), rate, options), rate


def _scheduled(
    scheduler: Any,
    lr: float,
    interval: str | None,
    total_steps: int | None,
    steps_per_epoch: int | None,
) -> Schedule:
    if interval not in (None, "step", "epoch"):
        raise ValueError(f"`interval` must be 'step' or 'epoch', got {interval!r}.")
    if interval != "epoch":
        return create_schedule(scheduler, lr, total_steps)
    if steps_per_epoch is None:
        raise ValueError("`interval='epoch'` needs a loader with a length.")
    epochs = None if total_steps is None else -(-total_steps // steps_per_epoch)
    return per_epoch(create_schedule(scheduler, lr, epochs), steps_per_epoch)


def _named(name: str, rate: Any, options: dict[str, Any]) -> optax.GradientTransformation:
    """An optimizer by name: torch's meaning where torch has one, else optax's own."""
    ours: dict[str, Callable[..., optax.GradientTransformation]] = {
        "adamw": _adamw,
        "adam": _adam,
        "sgd": _sgd,
        "lars": lars,
        "lamb": _lamb,
    }
    maker = ours.get(name.lower()) or getattr(optax, name.lower(), None)
    if maker is None or not callable(maker):
        raise ValueError(
            f"Unknown optimizer {name!r}; there are {sorted(ours)} and those of optax."
        )
    patience = options.pop("skip_nonfinite", None)
    if "betas" in options:
        options["b1"], options["b2"] = options.pop("betas")
    known = list(inspect.signature(maker).parameters)[1:]
    options = _with_exclusion(options, known)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(f"{name} has no argument {unknown}; there are {['lr', *known]}.")
    made: optax.GradientTransformation = maker(rate, **options)
    return made if patience is None else optax.apply_if_finite(made, patience)


def _with_exclusion(options: dict[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """``exclude_bias_norm`` as the optimizer knows it: LARS by an option, others by a mask."""
    exclude = options.get("exclude_bias_norm")
    rest = {key: value for key, value in options.items() if key != "exclude_bias_norm"}
    if exclude is not None and "exclude_bias_n_norm" in known:
        return {"exclude_bias_n_norm": exclude, **rest}
    if exclude and "mask" in known:
        return {"mask": weight_mask, **rest}
    return options if exclude else rest


def _adamw(
    rate: Any,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    mask: Any = None,
) -> optax.GradientTransformation:
    return optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask)


def _adam(
    rate: Any,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    mask: Any = None,
) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask), optax.adam(rate, b1=b1, b2=b2, eps=eps)
    )


def _sgd(
    rate: Any,
    *,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    mask: Any = None,
) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask),
        optax.sgd(rate, momentum=momentum or None, nesterov=nesterov),
    )


def _lamb(
    rate: Any,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    mask: Any = None,
) -> optax.GradientTransformation:
    return optax.lamb(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask)


def weight_mask(params: Any) -> Any:
    """True for weights that are decayed: not biases, norms, positions or tokens."""

    def decayed(path: Any, p: Any) -> bool:
        names = {str(getattr(part, "key", getattr(part, "name", part))) for part in path}
        return p.ndim > 1 and not names & TOKENS

    return jax.tree_util.tree_map_with_path(decayed, params)
