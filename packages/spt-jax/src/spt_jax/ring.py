"""A ring of rows on the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def push(
    rows: jax.Array, seen: jax.Array, new: jax.Array, weight: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Write rows into a ring after ``seen`` rows; of more rows than fit, the newest stay.

    Args:
        rows: The ring, ``(Q, ...)``.
        seen: Rows written so far.
        new: Rows ``(N, ...)``.
        weight: 0 for rows that are left out, ``(N,)``; all are taken without it.

    Returns:
        The ring, and the rows written so far; once there are twice as many as the ring holds, whole
        rounds are left out of the count.
    """
    length = len(rows)
    real = jnp.ones(len(new), bool) if weight is None else weight > 0
    place = seen + jnp.cumsum(real) - 1
    total = seen + real.sum()
    kept = real & (place >= total - length)
    target = jnp.where(kept, place % length, length)  # out of bounds: dropped
    total = jnp.where(total >= 2 * length, total % length + length, total)  # never overflows
    return rows.at[target].set(new.astype(rows.dtype), mode="drop"), total
