"""Losses that compare a prediction with its target row by row: BYOL, SimSiam, I-JEPA."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from spt_jax.losses.common import check_pair, cosine, mean_of_rows, wide


def negative_cosine(a: jax.Array, b: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Minus the mean cosine of paired rows ``(N, D)``; nothing is detached here."""
    check_pair(a, b, ("a", "b"), least=1)
    return -mean_of_rows(cosine(a, b), weight)


def byol_loss(
    prediction: jax.Array, target: jax.Array, weight: jax.Array | None = None
) -> jax.Array:
    """Mean of ``2 - 2 cos`` (https://arxiv.org/abs/2006.07733, eq. 2); detach the target yourself."""
    check_pair(prediction, target, ("prediction", "target"), least=1)
    return mean_of_rows(2 - 2 * cosine(prediction, target), weight)


def simsiam_loss(
    p_i: jax.Array,
    p_j: jax.Array,
    z_i: jax.Array,
    z_j: jax.Array,
    weight: jax.Array | None = None,
) -> jax.Array:
    """Half the sum of both directions' negative cosines, targets detached (https://arxiv.org/abs/2011.10566)."""
    z_i, z_j = jax.lax.stop_gradient((z_i, z_j))
    return (negative_cosine(p_i, z_j, weight) + negative_cosine(p_j, z_i, weight)) / 2


def smooth_l1(a: jax.Array, b: jax.Array, beta: float = 1.0) -> jax.Array:
    """Elementwise Huber-like distance, as torch's ``smooth_l1_loss``, in float32."""
    distance = jnp.abs(wide(a) - wide(b))
    return jnp.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)


@dataclass(frozen=True)
class NegativeCosineSimilarity:
    """Minus the mean cosine; see :func:`negative_cosine`."""

    def __call__(self, a: jax.Array, b: jax.Array, weight: jax.Array | None = None) -> jax.Array:
        """Loss of paired rows ``(N, D)``, with weights ``(N,)`` if given."""
        return negative_cosine(a, b, weight)


@dataclass(frozen=True)
class BYOLLoss:
    """Mean of ``2 - 2 cos``; see :func:`byol_loss`."""

    def __call__(
        self, prediction: jax.Array, target: jax.Array, weight: jax.Array | None = None
    ) -> jax.Array:
        """Loss of paired rows ``(N, D)``, with weights ``(N,)`` if given."""
        return byol_loss(prediction, target, weight)


@dataclass(frozen=True)
class SimSiamLoss:
    """Both directions of SimSiam; see :func:`simsiam_loss`."""

    def __call__(
        self,
        p_i: jax.Array,
        p_j: jax.Array,
        z_i: jax.Array,
        z_j: jax.Array,
        weight: jax.Array | None = None,
    ) -> jax.Array:
        """Loss of predictions and projections of two views, each ``(N, D)``."""
        return simsiam_loss(p_i, p_j, z_i, z_j, weight)
