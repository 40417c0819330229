"""Losses on the second moments of a batch: VICReg and Barlow Twins.

Bardes et al., ICLR 2022 (https://arxiv.org/abs/2105.04906); Zbontar et al., ICML 2021
(https://arxiv.org/abs/2103.03230). Moments are those of the logical batch, of all devices.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from spt_jax.losses.common import check_not_negative, check_pair, off_diagonal, wide


def vcreg_loss(
    z: jax.Array, *, std_coeff: float = 25.0, cov_coeff: float = 1.0, epsilon: float = 1e-4
) -> jax.Array:
    """Hinge on each dimension's deviation (halved, as the official code), and squared covariances.

    Args:
        z: Projections, ``(N, D)``, N >= 2.
        std_coeff: Weight of ``mean_d max(0, 1 - sqrt(var_d + epsilon)) / 2``, unbiased variance.
        cov_coeff: Weight of ``sum_{d != e} cov_de^2 / D``.
        epsilon: Added to the variance, under the root.
    """
    check_pair(z, z, ("z", "z"))
    z = wide(z)
    n, d = z.shape
    z = z - z.mean(0)
    deviation = jnp.sqrt((z * z).sum(0) / (n - 1) + epsilon)
    covariance = z.T @ z / (n - 1)
    spread = jax.nn.relu(1 - deviation).mean() / 2
    return std_coeff * spread + cov_coeff * jnp.sum(off_diagonal(covariance) ** 2) / d


def vicreg_loss(
    z_i: jax.Array,
    z_j: jax.Array,
    *,
    sim_coeff: float = 25.0,
    std_coeff: float = 25.0,
    cov_coeff: float = 1.0,
    epsilon: float = 1e-4,
) -> jax.Array:
    """Mean squared distance of the views plus :func:`vcreg_loss` of each."""
    check_pair(z_i, z_j)
    invariance = jnp.mean((wide(z_i) - wide(z_j)) ** 2)
    options = {"std_coeff": std_coeff, "cov_coeff": cov_coeff, "epsilon": epsilon}
    return sim_coeff * invariance + vcreg_loss(z_i, **options) + vcreg_loss(z_j, **options)


def barlow_twins_loss(z_i: jax.Array, z_j: jax.Array, *, lambd: float = 5e-3) -> jax.Array:
    """Pull the cross-correlation of two views ``(N, D)`` towards the identity.

    Views are standardised with biased variance and 1e-5 under the root, as the official code's
    affine-free BatchNorm; with the paper's unbiased deviation the loss could not reach 0.
    """
    check_pair(z_i, z_j)
    a, b = (_standardized(wide(z)) for z in (z_i, z_j))
    correlation = a.T @ b / len(a)
    agreement = jnp.sum((jnp.diagonal(correlation) - 1) ** 2)
    return agreement + lambd * jnp.sum(off_diagonal(correlation) ** 2)


def _standardized(z: jax.Array) -> jax.Array:
    z = z - z.mean(0)
    return z * jax.lax.rsqrt((z * z).mean(0) + 1e-5)


@dataclass(frozen=True)
class VICRegLoss:
    """VICReg; see :func:`vicreg_loss`."""

    sim_coeff: float = 25.0
    std_coeff: float = 25.0
    cov_coeff: float = 1.0
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        check_not_negative(
            sim_coeff=self.sim_coeff,
            std_coeff=self.std_coeff,
            cov_coeff=self.cov_coeff,
            epsilon=self.epsilon,
        )

    def __call__(self, z_i: jax.Array, z_j: jax.Array) -> jax.Array:
        """Loss of two views ``(N, D)`` whose rows are paired."""
        return vicreg_loss(
            z_i,
            z_j,
            sim_coeff=self.sim_coeff,
            std_coeff=self.std_coeff,
            cov_coeff=self.cov_coeff,
            epsilon=self.epsilon,
        )


@dataclass(frozen=True)
class BarlowTwinsLoss:
    """Barlow Twins; see :func:`barlow_twins_loss`."""

    lambd: float = 5e-3

    def __post_init__(self) -> None:
        check_not_negative(lambd=self.lambd)

    def __call__(self, z_i: jax.Array, z_j: jax.Array) -> jax.Array:
        """Loss of two views ``(N, D)`` whose rows are paired."""
        return barlow_twins_loss(z_i, z_j, lambd=self.lambd)
