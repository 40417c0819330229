"""MoCo: each query against its key and a queue of earlier keys.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020, eq. 1.
https://arxiv.org/abs/1911.05722
"""

from __future__ import annotations

from torch import Tensor, nn

from spt_losses._checks import check_count, check_paired, check_positive, check_rows, check_width
from spt_losses._distributed import num_rows, world_size
from spt_losses._numerics import no_autocast, unit, widen
from spt_losses._similarity import contrast_sum
from spt_losses.feature_queue import FeatureQueue


def moco_loss(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    *,
    temperature: float = 0.2,
    chunk_size: int | None = None,
) -> Tensor:
    """Cross-entropy of each query's own key against the rows of a queue.

    Args:
        query: Shape ``(N, D)``; normalised here.
        key: Shape ``(N, D)``; row ``n`` is the positive of ``query[n]``. Normalised and detached
            here.
        queue: The negatives, unit rows, shape ``(K, D)``; detached here.
        temperature: tau in the paper, above 0; 0.07 there, 0.2 in MoCo v2.
        chunk_size: Number of queries compared at a time; value and gradient stay the same.

    Returns:
        Scalar. Averaged over ranks, it is the mean over the queries of all ranks.

    Raises:
        TypeError: If an input is not of a floating-point dtype.
        ValueError: If the shapes differ or a setting is out of range.

    Ranks:
        mean over the queries of all ranks, which may differ in number; the queue is the same

    Example:
        >>> import torch
        >>> x, y = torch.eye(2).split(1)
        >>> round(moco_loss(x, x, y, temperature=1.0).item(), 4)  # -log(e / (e + 1))
        0.3133
    """
    check_paired(query, key, names=("query", "key"))
    check_rows("queue", queue)
    check_width("queue", queue, query.shape[1])
    check_positive("temperature", temperature)
    check_count("chunk_size", chunk_size)
    with no_autocast(query):
        q, k = unit(widen(query)), unit(widen(key.detach()))
        positives = (q * k).sum(1) / temperature
        total = contrast_sum(
            q,
            queue.detach().to(q.dtype),
            positives,
            1 / temperature,
            positive_counts=True,
            chunk_size=chunk_size,
        )
        return total * world_size() / num_rows(q)


class MoCoLoss(nn.Module):
    """MoCo with its queue; see :func:`moco_loss` and :class:`FeatureQueue`.

    In training mode the keys enter the queue after the loss is formed, so that no query meets
    its own key among the negatives; in evaluation mode the queue stays as it is.

    Args:
        length: Number of keys in the queue; the paper uses 65536.
        dim: Width of queries and keys.
        temperature: tau in the paper, above 0.
        accumulate: Batches per optimizer step.
        chunk_size: Number of queries compared at a time; ``None`` compares all at once.

    Example:
        >>> import torch
        >>> loss = MoCoLoss(32, 16)
        >>> loss(torch.randn(8, 16), torch.randn(8, 16)).shape
        torch.Size([])
        >>> int(loss.queue.pointer)
        8
    """

    def __init__(
        self,
        length: int,
        dim: int,
        temperature: float = 0.2,
        *,
        accumulate: int = 1,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_count("chunk_size", chunk_size)
        self.temperature = temperature
        self.chunk_size = chunk_size
        self.queue = FeatureQueue(length, dim, accumulate=accumulate)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Loss of queries ``(N, D)`` and their keys ``(N, D)``."""
        loss = moco_loss(
            query,
            key,
            self.queue.rows,
            temperature=self.temperature,
            chunk_size=self.chunk_size,
        )
        if self.training:
            self.queue.push(key)
        return loss

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"temperature={self.temperature}"
