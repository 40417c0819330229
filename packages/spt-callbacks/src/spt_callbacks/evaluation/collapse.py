"""Two plain signs of collapse: how much each feature varies, and how alike the embeddings are.

The standard deviation of the unit-length embeddings is the measure of SimSiam (Chen and He, 2021,
section 4.1, https://arxiv.org/abs/2011.10566): 1 / sqrt(D) for directions that are spread evenly, 0
for a constant. The mean cosine is 1 for a constant and near 0 when directions are spread.
"""

from __future__ import annotations

import lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from spt_callbacks.distributed import sum_over_ranks
from spt_callbacks.evaluation._measure import QueueMeasure
from spt_callbacks.evaluation._spectrum import check_embeddings
from spt_callbacks.keys import Key


def feature_std(embeddings: Tensor, *, normalize: bool = True) -> Tensor:
    """Standard deviation of each feature over the rows, averaged over the features.

    Args:
        embeddings: ``(N, D)``; computed in float64.
        normalize: Bring each row to unit length first.

    Returns:
        Scalar; with ``normalize`` between 0 and about 1 / sqrt(D).

    Raises:
        ValueError: If the embeddings are not ``(N, D)``.

    Example:
        >>> feature_std(torch.eye(2)).item()
        0.5
    """
    check_embeddings(embeddings)
    return _std(_sums(embeddings, normalize))


def mean_cosine(embeddings: Tensor) -> Tensor:
    """Mean cosine of all pairs of different rows.

    Args:
        embeddings: ``(N, D)``, N >= 2; computed in float64.

    Returns:
        Scalar between -1 / (N - 1) and 1.

    Raises:
        ValueError: If the embeddings are not ``(N, D)``.

    Example:
        >>> mean_cosine(torch.eye(3)).item()
        0.0
    """
    check_embeddings(embeddings)
    return _cosine(_sums(embeddings, True))


def _sums(rows: Tensor, normalize: bool) -> Tensor:
    """Count, sums of squared lengths, sums and sums of squares of each feature, in one tensor."""
    wide = rows.double()
    if normalize:
        wide = F.normalize(wide, dim=1)
    square = wide.square()
    return torch.cat(
        [wide.new_tensor([float(len(wide))]), square.sum().view(1), wide.sum(0), square.sum(0)]
    )


def _std(sums: Tensor) -> Tensor:
    count, (total, square) = sums[0], sums[2:].chunk(2)
    return (square / count - (total / count).square()).clamp(min=0).sqrt().mean()


def _cosine(sums: Tensor) -> Tensor:
    count, lengths, total = sums[0], sums[1], sums[2:].chunk(2)[0]
    return (total.square().sum() - lengths) / (count * (count - 1)).clamp(min=1)


class FeatureStd(QueueMeasure):
    """Log the mean standard deviation of the features of the newest training embeddings.

    Args:
        name: Key in the logs; ``test/{name}`` in testing.
        target: Key of the embeddings.
        queue_length: Embeddings kept on each rank.
        target_shape: Shape of an embedding, checked if given.
        normalize: Bring each embedding to unit length first.
        save_queues: Keep the embeddings in checkpoints.
    """

    def __init__(
        self,
        name: str = "feature_std",
        target: Key = "embedding",
        queue_length: int = 8192,
        target_shape: int | tuple[int, ...] | None = None,
        *,
        normalize: bool = True,
        save_queues: bool = False,
    ) -> None:
        super().__init__(name, (target,), queue_length, target_shape, save_queues=save_queues)
        self.normalize = normalize

    def measure(self, trainer: pl.Trainer) -> dict[str, Tensor] | None:
        """The mean standard deviation."""
        rows = self.own_rows(trainer)
        return None if rows is None else {"": _std(sum_over_ranks(_sums(rows, self.normalize)))}


class MeanCosine(QueueMeasure):
    """Log the mean cosine of pairs of the newest training embeddings.

    Args:
        name: Key in the logs; ``test/{name}`` in testing.
        target: Key of the embeddings.
        queue_length: Embeddings kept on each rank.
        target_shape: Shape of an embedding, checked if given.
        save_queues: Keep the embeddings in checkpoints.
    """

    def __init__(
        self,
        name: str = "mean_cosine",
        target: Key = "embedding",
        queue_length: int = 8192,
        target_shape: int | tuple[int, ...] | None = None,
        *,
        save_queues: bool = False,
    ) -> None:
        super().__init__(name, (target,), queue_length, target_shape, save_queues=save_queues)

    def measure(self, trainer: pl.Trainer) -> dict[str, Tensor] | None:
        """The mean cosine."""
        rows = self.own_rows(trainer)
        return None if rows is None else {"": _cosine(sum_over_ranks(_sums(rows, True)))}
