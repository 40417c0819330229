"""LARS: layer-wise adaptive rate scaling.

You et al., "Large Batch Training of Convolutional Networks", 2017, Algorithm 1.
https://arxiv.org/abs/1708.03888
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def lars(
    learning_rate: float | Callable[[Any], Any],
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    eta: float = 1e-3,
    eps: float = 1e-8,
    clip_lr: bool = False,
    exclude_bias_n_norm: bool = True,
) -> optax.GradientTransformation:
    """SGD with momentum whose step is scaled, array by array, to the norm of the weights.

    For a weight p with gradient g the step uses ``r (g + weight_decay p)`` with ``r = eta |p| / (|g| +
    weight_decay |p| + eps)``; where a norm is zero, r is 1. Arrays of at most one dimension (biases,
    norms) take the plain gradient, without decay. The same step as ``spt_optim.LARS``.

    Args:
        learning_rate: Rate, or a function of the step.
        momentum: Heavy-ball momentum, in [0, 1).
        weight_decay: L2 penalty inside the trust ratio.
        nesterov: Look ahead along the momentum.
        eta: Trust coefficient of the paper.
        eps: Added to the denominator.
        clip_lr: Cap ``r / learning_rate`` at 1.
        exclude_bias_n_norm: Leave arrays of at most one dimension unscaled and undecayed.

    Raises:
        ValueError: If a number is out of range.
    """
    for name, value in (("weight_decay", weight_decay), ("eta", eta), ("eps", eps)):
        if not value >= 0:
            raise ValueError(f"`{name}` must be >= 0, got {value}.")
    if not 0 <= momentum < 1:
        raise ValueError(f"`momentum` must be in [0, 1), got {momentum}.")

    def scaled(rate: Any, grad: jax.Array, p: jax.Array) -> jax.Array:
        if exclude_bias_n_norm and p.ndim <= 1:
            return grad
        weight, slope = jnp.linalg.norm(p.ravel()), jnp.linalg.norm(grad.ravel())
        ratio = eta * weight / (slope + weight_decay * weight + eps)
        if clip_lr:
            ratio = jnp.where(rate > 0, jnp.minimum(ratio / jnp.where(rate > 0, rate, 1), 1.0), 1.0)
        ratio = jnp.where((weight > 0) & (slope > 0), ratio, 1.0)
        return ratio * (grad + weight_decay * p)

    def init(params: Any) -> Any:
        return {"step": jnp.zeros((), jnp.int32)}

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        rate = learning_rate(state["step"]) if callable(learning_rate) else learning_rate
        changed = jax.tree.map(lambda g, p: scaled(jnp.asarray(rate), g, p), grads, params)
        return changed, {"step": state["step"] + 1}

    return optax.chain(
        optax.GradientTransformation(init, update),
        optax.trace(decay=momentum, nesterov=nesterov) if momentum else optax.identity(),
        optax.scale_by_learning_rate(learning_rate),
    )
