"""Losses that pick a positive among candidates; the batch is the logical one, of all devices."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from spt_jax.losses.common import (
    check_pair,
    check_positive,
    cross_entropy,
    in_batch_contrast,
    l2_normalize,
    wide,
)


def ntxent_loss(z_i: jax.Array, z_j: jax.Array, *, temperature: float = 0.5) -> jax.Array:
    """Contrast two views of each sample against the views of all other samples.

    Chen et al., SimCLR, ICML 2020, eq. 1 (https://arxiv.org/abs/2002.05709).

    Args:
        z_i: Projections of the first view, ``(N, D)``; normalised here.
        z_j: Projections of the second view, ``(N, D)``.
        temperature: tau, above 0.

    Returns:
        Scalar in float32, the mean over the 2N views.

    Raises:
        ValueError: If the shapes differ or are not ``(N, D)`` with N >= 2.
    """
    check_pair(z_i, z_j)
    n = len(z_i)
    z = l2_normalize(jnp.concatenate([wide(z_i), wide(z_j)]))
    logits = jnp.where(jnp.eye(2 * n, dtype=bool), -jnp.inf, z @ z.T / temperature)
    return cross_entropy(logits, (jnp.arange(2 * n) + n) % (2 * n)).mean()


def info_nce_loss(
    anchors: jax.Array,
    candidates: jax.Array,
    targets: jax.Array,
    *,
    mask: jax.Array | None = None,
    temperature: float = 0.07,
    logit_scale: jax.Array | float | None = None,
) -> jax.Array:
    """Cross-entropy of cosine similarities between anchors and candidates.

    van den Oord et al., CPC, 2018, eq. 4 (https://arxiv.org/abs/1807.03748).

    Args:
        anchors: ``(n, D)``; normalised here.
        candidates: ``(m, D)``; normalised here.
        targets: Index of each anchor's positive, ``(n,)``.
        mask: True where a candidate is left out, ``(n, m)``; the positive stays.
        temperature: What divides the similarities, above 0.
        logit_scale: What multiplies them in the place of ``1 / temperature``, as CLIP's.

    Raises:
        ValueError: If widths or shapes do not fit.
    """
    if anchors.shape[1:] != candidates.shape[1:] or targets.shape != anchors.shape[:1]:
        raise ValueError(
            "`anchors` (n, D), `candidates` (m, D) and `targets` (n,) do not fit, got "
            f"{anchors.shape}, {candidates.shape} and {targets.shape}."
        )
    scale = 1 / temperature if logit_scale is None else logit_scale
    logits = l2_normalize(wide(anchors)) @ l2_normalize(wide(candidates)).T * scale
    if mask is not None:
        positive = jnp.arange(logits.shape[1]) == targets[:, None]
        logits = jnp.where(mask & ~positive, -jnp.inf, logits)
    return cross_entropy(logits, targets).mean()


def moco_v3_loss(
    q_i: jax.Array, q_j: jax.Array, k_i: jax.Array, k_j: jax.Array, *, temperature: float = 0.2
) -> jax.Array:
    """``2 temperature`` times the sum of both directions' cross-entropies.

    Chen, Xie and He, ICCV 2021, Algorithm 1 (https://arxiv.org/abs/2104.02057).

    Args:
        q_i: Predictions of the first view, ``(N, D)``; normalised here, as all inputs.
        q_j: Predictions of the second view.
        k_i: Momentum projections of the first view; detached here.
        k_j: Momentum projections of the second view; detached here.
        temperature: tau, above 0.
    """
    check_pair(q_i, k_j, ("q_i", "k_j"))
    check_pair(q_j, k_i, ("q_j", "k_i"))
    keys_i, keys_j = jax.lax.stop_gradient((k_i, k_j))
    forth = in_batch_contrast(q_i, keys_j, temperature)
    return 2 * temperature * (forth + in_batch_contrast(q_j, keys_i, temperature))


def nearest_rows(z: jax.Array, support: jax.Array) -> jax.Array:
    """For each row of ``z`` ``(N, D)``, the unit row of ``support`` ``(Q, D)`` of largest cosine."""
    z, support = jax.lax.stop_gradient((wide(z), support))
    return support[jnp.argmax(z @ support.T, axis=1)]


def nnclr_loss(
    nn_i: jax.Array, nn_j: jax.Array, p_i: jax.Array, p_j: jax.Array, *, temperature: float = 0.1
) -> jax.Array:
    """Half the sum of the cross-entropies of neighbours among the other view's predictions.

    Dwibedi et al., NNCLR, ICCV 2021, eq. 3 (https://arxiv.org/abs/2104.14548).

    Args:
        nn_i: Neighbours of the first view's projections, ``(N, D)``; detached here.
        nn_j: Neighbours of the second view's projections.
        p_i: Predictions of the first view, ``(N, D)``; normalised here.
        p_j: Predictions of the second view.
        temperature: tau, above 0.
    """
    check_pair(nn_i, p_j, ("nn_i", "p_j"))
    check_pair(nn_j, p_i, ("nn_j", "p_i"))
    nn_i, nn_j = jax.lax.stop_gradient((nn_i, nn_j))
    forth = in_batch_contrast(nn_i, p_j, temperature)
    return (forth + in_batch_contrast(nn_j, p_i, temperature)) / 2


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
        check_positive(temperature=self.temperature)

    def __call__(self, z_i: jax.Array, z_j: jax.Array) -> jax.Array:
        """Loss of two views ``(N, D)`` whose rows are paired."""
        return ntxent_loss(z_i, z_j, temperature=self.temperature)


@dataclass(frozen=True)
class InfoNCELoss:
    """InfoNCE between anchors and candidates; see :func:`info_nce_loss`."""

    temperature: float = 0.07

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)

    def __call__(
        self,
        anchors: jax.Array,
        candidates: jax.Array,
        targets: jax.Array,
        mask: jax.Array | None = None,
        logit_scale: jax.Array | float | None = None,
    ) -> jax.Array:
        """Loss of anchors ``(n, D)`` among candidates ``(m, D)`` at ``targets`` ``(n,)``."""
        return info_nce_loss(
            anchors,
            candidates,
            targets,
            mask=mask,
            temperature=self.temperature,
            logit_scale=logit_scale,
        )


@dataclass(frozen=True)
class MoCoV3Loss:
    """Symmetric contrastive loss of MoCo v3; see :func:`moco_v3_loss`."""

    temperature: float = 0.2

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)

    def __call__(self, q_i: jax.Array, q_j: jax.Array, k_i: jax.Array, k_j: jax.Array) -> jax.Array:
        """Loss of predictions and momentum projections of two views, each ``(N, D)``."""
        return moco_v3_loss(q_i, q_j, k_i, k_j, temperature=self.temperature)


@dataclass(frozen=True)
class NNCLRLoss:
    """NNCLR on neighbours that were looked up; see :func:`nnclr_loss`."""

    temperature: float = 0.1

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)

    def __call__(
        self, nn_i: jax.Array, nn_j: jax.Array, p_i: jax.Array, p_j: jax.Array
    ) -> jax.Array:
        """Loss of neighbours and predictions of two views, each ``(N, D)``."""
        return nnclr_loss(nn_i, nn_j, p_i, p_j, temperature=self.temperature)
