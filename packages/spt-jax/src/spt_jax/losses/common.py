"""What several losses need: float32, unit vectors, checks, means over rows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax


def l2_normalize(x: jax.Array, axis: int = -1, eps: float = 1e-12) -> jax.Array:
    """Unit vectors along an axis; zero vectors stay zero, with a finite gradient."""
    square = jnp.sum(x * x, axis=axis, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, eps * eps))


def wide(x: Any) -> jax.Array:
    """``x`` in float32; half precision is too narrow for losses."""
    return jnp.asarray(x).astype(jnp.float32)


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosine along the last axis, in float32; 0 where a vector is zero."""
    return jnp.sum(l2_normalize(wide(a)) * l2_normalize(wide(b)), axis=-1)


def off_diagonal(x: jax.Array) -> jax.Array:
    """The n (n - 1) entries off the diagonal of a square matrix, row by row.

    Raises:
        ValueError: If the matrix is not square.
    """
    n = len(x)
    if x.shape != (n, n):
        raise ValueError(f"`x` must be a square matrix, got {x.shape}.")
    return x.ravel()[:-1].reshape(n - 1, n + 1)[:, 1:].ravel()


def mean_of_rows(values: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Mean over rows ``(N,)``; of weighted rows if there are weights ``(N,)``."""
    if weight is None:
        return values.mean()
    return (values * weight).sum() / jnp.maximum(weight.sum(), 1.0)


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy of each row ``(N, K)`` with its class ``(N,)``."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets)


def in_batch_contrast(anchors: jax.Array, candidates: jax.Array, temperature: float) -> jax.Array:
    """Mean cross-entropy of picking candidate ``n`` for anchor ``n``; both are normalised here."""
    logits = l2_normalize(wide(anchors)) @ l2_normalize(wide(candidates)).T / temperature
    return cross_entropy(logits, jnp.arange(len(logits))).mean()


def check_pair(a: Any, b: Any, names: tuple[str, str] = ("z_i", "z_j"), least: int = 2) -> None:
    """Refuse views that are not paired.

    Raises:
        ValueError: If the shapes differ or are not ``(N, D)`` with enough rows.
    """
    if a.shape != b.shape or len(a.shape) != 2 or len(a) < least:
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` must have one shape (N, D) with N >= {least}, got "
            f"{tuple(a.shape)} and {tuple(b.shape)}."
        )


def check_positive(**values: float) -> None:
    """Refuse numbers that are not above 0.

    Raises:
        ValueError: With the name of the first.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"`{name}` must be > 0, got {value}.")


def check_not_negative(**values: float) -> None:
    """Refuse negative numbers.

    Raises:
        ValueError: With the name of the first.
    """
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"`{name}` must be >= 0, got {value}.")
