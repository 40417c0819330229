"""Effective ranks of embeddings, in float64 on the host, defined as on the torch side."""

from __future__ import annotations

import numpy as np


def entropy_of(spectrum: np.ndarray, epsilon: float = 0.0) -> float:
    """Entropy of the shares of a spectrum, each plus ``epsilon``; 0 log 0 is 0."""
    shares = spectrum / max(float(spectrum.sum()), np.finfo(np.float64).tiny) + epsilon
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def rankme(embeddings: np.ndarray, epsilon: float = 1e-7) -> float:
    """Exponential of the entropy of the normalised singular values.

    Garrido et al., "RankMe", ICML 2023, eq. 1 (https://arxiv.org/abs/2210.02885).

    Args:
        embeddings: ``(N, D)``, not centred.
        epsilon: Added to each share.

    Raises:
        ValueError: If the embeddings are not ``(N, D)``.
    """
    if embeddings.ndim != 2:
        raise ValueError(f"`embeddings` must have shape (N, D), got {embeddings.shape}.")
    singular = np.linalg.svd(embeddings.astype(np.float64), compute_uv=False)
    return float(np.exp(entropy_of(singular, epsilon)))


def lidar_spectrum(
    embeddings: np.ndarray, groups: np.ndarray, *, delta: float = 1e-4
) -> np.ndarray:
    """Eigenvalues of ``S_w^-1/2 S_b S_w^-1/2``, descending.

    Thilak et al., "LiDAR", ICLR 2024, eq. 1-3 (https://arxiv.org/abs/2312.04000).

    Args:
        embeddings: ``(N, D)``.
        groups: Which image each row is a view of, integers ``(N,)``.
        delta: Regularisation of the covariance within images.

    Raises:
        ValueError: If there are fewer than two images, or no image has two views.
    """
    rows = embeddings.astype(np.float64)
    _, index, views = np.unique(groups, return_inverse=True, return_counts=True)
    n, width = len(views), rows.shape[1]
    if n < 2 or len(rows) == n:
        raise ValueError(
            f"LiDAR needs at least two images with two views each, got {len(rows)} rows of {n} images."
        )
    means = np.zeros((n, width))
    np.add.at(means, index, rows)
    means /= views[:, None]
    within = rows - means[index]
    scatter = within.T @ within / (len(rows) - n) + delta * np.eye(width)
    factor = np.linalg.cholesky(scatter)
    between = (means - means.mean(0)).T / np.sqrt(n - 1)  # (D, n)
    whitened = np.linalg.solve(factor, between)
    squares = np.zeros(width)
    found = np.linalg.svd(whitened, compute_uv=False) ** 2
    rank = min(width, n - 1)
    squares[:rank] = found[:rank]
    return squares


def lidar(
    embeddings: np.ndarray, groups: np.ndarray, *, delta: float = 1e-4, epsilon: float = 1e-8
) -> float:
    """Exponential of the entropy of the normalised LiDAR spectrum (eq. 4); see :func:`lidar_spectrum`."""
    return float(np.exp(entropy_of(lidar_spectrum(embeddings, groups, delta=delta), epsilon)))
