"""Self-supervised objectives as plain callables without state."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax


def l2_normalize(x: jax.Array, axis: int = -1, eps: float = 1e-12) -> jax.Array:
    """Unit vectors along an axis; zero vectors stay zero, with a finite gradient."""
    square = jnp.sum(x * x, axis=axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, eps * eps))


def ntxent_loss(z_i: jax.Array, z_j: jax.Array, *, temperature: float = 0.5) -> jax.Array:
    """Contrast two views of each sample against the views of all other samples.

    Chen et al., SimCLR, ICML 2020, eq. 1 (https://arxiv.org/abs/2002.05709). In float32, whatever the
    dtype of the views; under sharding the batch is one logical array, so the negatives are global.

    Args:
        z_i: Projections of the first view, ``(N, D)``; normalised here.
        z_j: Projections of the second view, ``(N, D)``.
        temperature: tau, above 0.

    Returns:
        Scalar, the mean over the 2N views.

    Raises:
        ValueError: If the shapes differ or are not ``(N, D)`` with N >= 2.
    """
    if z_i.shape != z_j.shape or z_i.ndim != 2 or len(z_i) < 2:
        raise ValueError(
            f"`z_i` and `z_j` must have one shape (N, D) with N >= 2, got {z_i.shape} and {z_j.shape}."
        )
    n = len(z_i)
    z = l2_normalize(jnp.concatenate([z_i, z_j]).astype(jnp.float32))
    logits = z @ z.T / temperature
    logits = jnp.where(jnp.eye(2 * n, dtype=bool), -jnp.inf, logits)
    partners = (jnp.arange(2 * n) + n) % (2 * n)
    return optax.softmax_cross_entropy_with_integer_labels(logits, partners).mean()


@dataclass(frozen=True)
class NTXEntLoss:
    """NT-Xent of SimCLR; see :func:`ntxent_loss`.

    Attributes:
        temperature: tau, above 0.

    Raises:
        ValueError: If the temperature is not above 0.
    """

    temperature: float = 0.5

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"`temperature` must be > 0, got {self.temperature}.")

    def __call__(self, z_i: jax.Array, z_j: jax.Array) -> jax.Array:
        """Loss of two views ``(N, D)`` whose rows are paired."""
        return ntxent_loss(z_i, z_j, temperature=self.temperature)
