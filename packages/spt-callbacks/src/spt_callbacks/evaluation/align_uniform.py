"""Alignment and uniformity on the hypersphere.

Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity
on the Hypersphere", ICML 2020. https://arxiv.org/abs/2005.10242
"""

from __future__ import annotations

import lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from spt_callbacks.distributed import sum_over_ranks
from spt_callbacks.evaluation._measure import QueueMeasure
from spt_callbacks.evaluation._spectrum import check_embeddings
from spt_callbacks.evaluation._views import sample_ids
from spt_callbacks.keys import Key
from spt_callbacks.queue import queues_of

CHUNK = 1024


def alignment(x: Tensor, y: Tensor, *, alpha: float = 2.0) -> Tensor:
    """Mean distance of positive pairs, to the power ``alpha``.

    Args:
        x: ``(N, D)``, taken as they are; the paper brings them to unit length.
        y: ``(N, D)``; row ``n`` is another view of ``x[n]``.
        alpha: Exponent.

    Raises:
        ValueError: If the shapes differ or are not ``(N, D)``.

    Example:
        >>> alignment(torch.eye(2), -torch.eye(2)).item()
        4.0
    """
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(
            f"`x` and `y` must have one shape (N, D), got {tuple(x.shape)} and {tuple(y.shape)}."
        )
    return (x - y).norm(dim=1).pow(alpha).mean()


def uniformity(x: Tensor, *, t: float = 2.0) -> Tensor:
    """Log of the mean Gaussian potential of all pairs of different rows.

    Args:
        x: ``(N, D)``, N >= 2, taken as they are; the paper brings them to unit length.
        t: Sharpness of the potential.

    Returns:
        Scalar; lower is more uniform. Computed in chunks, so that memory grows with N only.

    Raises:
        ValueError: If the shape is not ``(N, D)`` with N >= 2.

    Example:
        >>> round(uniformity(torch.eye(6)).item(), 4)
        -4.0
    """
    check_embeddings(x)
    n = len(x)
    if n < 2:
        raise ValueError(f"`x` must have at least two rows, got {tuple(x.shape)}.")
    square = x.square().sum(1)
    total = x.new_zeros(())
    for rows, lengths in zip(x.split(CHUNK), square.split(CHUNK), strict=True):
        distance = (lengths[:, None] + square - 2 * rows @ x.T).clamp(min=0)
        total = total + distance.mul(-t).exp().sum()
    itself = float(n)  # each row with itself has distance 0 and counts 1
    return ((total - itself) / (n * (n - 1))).clamp(min=torch.finfo(x.dtype).tiny).log()


class Uniformity(QueueMeasure):
    """Log the uniformity of the newest training embeddings, at unit length, of all ranks.

    Args:
        name: Key in the logs; ``test/{name}`` in testing.
        target: Key of the embeddings.
        queue_length: Embeddings kept on each rank; the cost grows with its square.
        target_shape: Shape of an embedding, checked if given.
        t: Sharpness of the potential.
        save_queues: Keep the embeddings in checkpoints.
    """

    def __init__(
        self,
        name: str = "uniformity",
        target: Key = "embedding",
        queue_length: int = 2048,
        target_shape: int | tuple[int, ...] | None = None,
        *,
        t: float = 2.0,
        save_queues: bool = False,
    ) -> None:
        super().__init__(name, (target,), queue_length, target_shape, save_queues=save_queues)
        self.t = t

    def measure(self, trainer: pl.Trainer) -> dict[str, Tensor] | None:
        """The uniformity."""
        found = self.all_rows(trainer)
        if found is None or len(found[0]) < 2:
            return None
        return {"": uniformity(F.normalize(found[0].double(), dim=1), t=self.t)}


class Alignment(QueueMeasure):
    """Log the mean distance of views of one image among the newest training embeddings.

    A row is paired with the row before it that has its ``sample_idx``, on the same rank.

    Args:
        name: Key in the logs; ``test/{name}`` in testing.
        target: Key of the embeddings.
        queue_length: Embeddings kept on each rank.
        target_shape: Shape of an embedding, checked if given.
        alpha: Exponent of the distance.
        group: Key of the images' numbers, one per row, or one per image if the rows are its views
            one after the other, as ``torch.cat`` of views gives them.
        save_queues: Keep the embeddings in checkpoints.
    """

    def __init__(
        self,
        name: str = "alignment",
        target: Key = "embedding",
        queue_length: int = 2048,
        target_shape: int | tuple[int, ...] | None = None,
        *,
        alpha: float = 2.0,
        group: Key = "sample_idx",
        save_queues: bool = False,
    ) -> None:
        ids = sample_ids(target, group, f"Alignment {name!r}")
        super().__init__(name, (target, ids), queue_length, target_shape, save_queues=save_queues)
        self.alpha = alpha

    def measure(self, trainer: pl.Trainer) -> dict[str, Tensor] | None:
        """The alignment; ``None`` if no image has two views."""
        found = queues_of(trainer).snapshot(self.keys, self.queue_length, gather=False)
        if found is None:
            return None
        rows, groups = F.normalize(self._flat(found[0]).double(), dim=1), found[1]
        order = torch.argsort(groups, stable=True)
        pairs = groups[order][1:] == groups[order][:-1]
        distance = (rows[order][1:] - rows[order][:-1])[pairs].norm(dim=1).pow(self.alpha)
        sums = sum_over_ranks(
            torch.stack([distance.sum(), distance.new_tensor(float(len(distance)))])
        )
        return {"": sums[0] / sums[1]} if sums[1] > 0 else None
