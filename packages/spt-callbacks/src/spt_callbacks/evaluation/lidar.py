"""LiDAR: the effective rank of what tells images apart, beside what varies between their views.

Thilak et al., "LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL Architectures",
ICLR 2024, eq. 1-4. https://arxiv.org/abs/2312.04000
"""

from __future__ import annotations

import lightning as pl
import torch
from loguru import logger
from torch import Tensor

from spt_callbacks.evaluation._measure import QueueMeasure
from spt_callbacks.evaluation._spectrum import entropy_of
from spt_callbacks.evaluation._views import newest_views, sample_ids
from spt_callbacks.keys import Key


def lidar_spectrum(embeddings: Tensor, groups: Tensor, *, delta: float = 1e-4) -> Tensor:
    """Eigenvalues of ``S_w^-1/2 S_b S_w^-1/2``, descending (eq. 1-3), in float64.

    ``S_b`` is the covariance of the images' means about their mean, over n - 1; ``S_w`` that of
    the views about their image's mean, over n(q - 1), plus ``delta`` times the identity.

    Args:
        embeddings: ``(N, D)``.
        groups: Which image each row is a view of, integers ``(N,)``; images may differ in their
            number of views.
        delta: Regularisation of the covariance within images.

    Returns:
        D eigenvalues, those beyond the rank 0.

    Raises:
        ValueError: If there are fewer than two images, or no image has two views.
    """
    if embeddings.ndim != 2 or groups.shape != embeddings.shape[:1]:
        raise ValueError(
            "`embeddings` must have shape (N, D) and `groups` (N,), got "
            f"{tuple(embeddings.shape)} and {tuple(groups.shape)}."
        )
    rows = embeddings.double()
    _, index, views = groups.unique(return_inverse=True, return_counts=True)
    n, width = len(views), rows.shape[1]
    if n < 2 or len(rows) == n:
        raise ValueError(
            f"LiDAR needs at least two images with two views each, got {len(rows)} rows of {n} "
            "images."
        )
    means = rows.new_zeros(n, width).index_add_(0, index, rows) / views[:, None]
    within = rows - means[index]
    scatter = within.T @ within / (len(rows) - n)
    scatter.diagonal().add_(delta)
    factor = torch.linalg.cholesky(scatter)
    between = (means - means.mean(0)).T / (n - 1) ** 0.5  # (D, n), S_b = between @ between.T
    whitened = torch.linalg.solve_triangular(factor, between, upper=False)
    squares = torch.linalg.svdvals(whitened).square()
    rank = min(width, n - 1)
    return torch.cat([squares[:rank], squares.new_zeros(width - rank)])


def lidar(
    embeddings: Tensor, groups: Tensor, *, delta: float = 1e-4, epsilon: float = 1e-8
) -> Tensor:
    """Exponential of the entropy of the normalised LiDAR spectrum (eq. 4).

    Args:
        embeddings: ``(N, D)``.
        groups: Which image each row is a view of, integers ``(N,)``.
        delta: Regularisation of the covariance within images.
        epsilon: Added to each share.

    Returns:
        Scalar between 1 and min(D, n - 1) for n images.

    Example:
        >>> views = torch.eye(3).repeat(2, 1) + 0.1 * torch.randn(6, 3)
        >>> bool(1 <= lidar(views, torch.arange(3).repeat(2)) <= 2.001)
        True
    """
    return torch.exp(entropy_of(lidar_spectrum(embeddings, groups, delta=delta), epsilon))


class LiDAR(QueueMeasure):
    """Log LiDAR of the newest training embeddings of all ranks at each validation.

    Rows are views of one image if they have one ``sample_idx``. Logs ``{name}``, the same on all
    ranks, and ``test/{name}`` in testing; with ``verbose`` also ``{name}/entropy``,
    ``{name}/top_eigenvalue`` and ``{name}/images``.

    Args:
        name: Key in the logs.
        target: Key of the embeddings ``(N, D)``.
        queue_length: Embeddings kept on each rank.
        target_shape: Shape of an embedding, checked if given; several dimensions are flattened.
        n_classes: Images used at most, the newest; the paper uses 1000.
        samples_per_class: Views used at most of each, the newest; at least 2. The paper uses 50.
        delta: Regularisation of the covariance within images.
        epsilon: Added to each share of the spectrum.
        verbose: Log the details too.
        group: Key of the images' numbers, one per row, or one per image if the rows are its views
            one after the other, as ``torch.cat`` of views gives them.
        save_queues: Keep the embeddings in checkpoints.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        name: str = "lidar",
        target: Key = "embedding",
        queue_length: int = 8192,
        target_shape: int | tuple[int, ...] | None = None,
        n_classes: int = 1000,
        samples_per_class: int = 50,
        delta: float = 1e-4,
        epsilon: float = 1e-8,
        verbose: bool | None = None,
        *,
        group: Key = "sample_idx",
        save_queues: bool = False,
    ) -> None:
        for label, value, least in (
            ("n_classes", n_classes, 2),
            ("samples_per_class", samples_per_class, 2),
        ):
            if value < least:
                raise ValueError(f"`{label}` of LiDAR {name!r} must be >= {least}, got {value}.")
        if not delta > 0:
            raise ValueError(f"`delta` of LiDAR {name!r} must be > 0, got {delta}.")
        ids = sample_ids(target, group, f"LiDAR {name!r}")
        super().__init__(name, (target, ids), queue_length, target_shape, verbose, save_queues)
        self.n_classes = n_classes
        self.samples_per_class = samples_per_class
        self.delta = delta
        self.epsilon = epsilon

    def measure(self, trainer: pl.Trainer) -> dict[str, Tensor] | None:
        """LiDAR, and what it is made of."""
        found = self.all_rows(trainer)
        if found is None:
            return None
        rows, groups = found
        kept = newest_views(groups, self.n_classes, self.samples_per_class)
        images = len(groups[kept].unique())
        if images < 2:
            logger.warning(
                f"{self.caller} needs two views of two images in the queue, found {images} such "
                f"image(s) in {len(rows)} rows, and reports nothing; return the embeddings of all "
                "views, or raise `queue_length`."
            )
            return None
        spectrum = lidar_spectrum(rows[kept], groups[kept], delta=self.delta)
        entropy = entropy_of(spectrum, self.epsilon)
        return {
            "": entropy.exp(),
            "entropy": entropy,
            "top_eigenvalue": spectrum[0],
            "images": spectrum.new_tensor(float(images)),
        }
