"""SIGReg and LeJEPA: random projections of the features follow a standard Gaussian.

Balestriero and LeCun, 2025, eq. 6 with the statistic of Epps and Pulley (https://arxiv.org/abs/2511.08544).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from spt_jax.losses.common import wide


def epps_pulley(x: jax.Array, *, t_max: float = 3.0, n_points: int = 17) -> jax.Array:
    """Distance of each column's characteristic function from the standard Gaussian's.

    ``N`` times the integral over ``[-t_max, t_max]`` of the squared distance, weighted by
    ``exp(-t^2 / 2)``, by the trapezoid rule; by symmetry only ``t >= 0`` is evaluated.

    Args:
        x: Samples in rows, ``(N, K)``.
        t_max: End of the integral, above 0.
        n_points: Nodes from 0 to ``t_max``, odd and at least 3.

    Returns:
        ``(K,)``.

    Raises:
        ValueError: If a setting is out of range.
    """
    if n_points < 3 or n_points % 2 == 0:
        raise ValueError(f"`n_points` must be odd and at least 3, got {n_points}.")
    x = wide(x)
    t = jnp.linspace(0, t_max, n_points)
    gaussian = jnp.exp(-(t**2) / 2)
    step = t_max / (n_points - 1)
    weights = jnp.full(n_points, 2 * step).at[0].set(step).at[-1].set(step)
    angles = x[..., None] * t  # (N, K, points)
    real, imaginary = jnp.cos(angles).mean(0), jnp.sin(angles).mean(0)
    return len(x) * (((real - gaussian) ** 2 + imaginary**2) @ (weights * gaussian))


def sigreg_loss(
    z: jax.Array, directions: jax.Array, *, t_max: float = 3.0, n_points: int = 17
) -> jax.Array:
    """Mean of :func:`epps_pulley` over projections of ``z`` ``(N, D)`` on directions ``(D, K)``.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if directions.ndim != 2 or len(directions) != z.shape[1]:
        raise ValueError(f"`directions` must have shape ({z.shape[1]}, K), got {directions.shape}.")
    unit = directions / jnp.linalg.norm(directions, axis=0)
    return epps_pulley(wide(z) @ unit, t_max=t_max, n_points=n_points).mean()


def lejepa_loss(
    projections: jax.Array,
    directions: jax.Array,
    *,
    lamb: float = 0.02,
    n_global: int | None = None,
    t_max: float = 3.0,
    n_points: int = 17,
) -> jax.Array:
    """``lambda SIGReg + (1 - lambda)`` times the squared distance of views from their centre.

    Args:
        projections: ``(V, N, D)``, global views first.
        directions: ``(D, K)``; made unit here.
        lamb: lambda, in [0, 1].
        n_global: How many views the centre is the mean of; all if ``None``.
        t_max: See :func:`epps_pulley`.
        n_points: See :func:`epps_pulley`.

    Raises:
        ValueError: If ``lamb`` or ``n_global`` is out of range.
    """
    if not 0 <= lamb <= 1:
        raise ValueError(f"`lamb` must be in [0, 1], got {lamb}.")
    if n_global is not None and not 1 <= n_global <= len(projections):
        raise ValueError(
            f"`n_global` must be in [1, {len(projections)}], the number of views, got {n_global}."
        )
    z = wide(projections)
    invariance = ((z - z[:n_global].mean(0)) ** 2).mean()
    spread = jnp.stack(
        [sigreg_loss(view, directions, t_max=t_max, n_points=n_points) for view in z]
    ).mean()
    return lamb * spread + (1 - lamb) * invariance
