"""Each row of one side against the rows of the other side on all ranks."""

from __future__ import annotations

from torch import Tensor

from spt_losses._distributed import gather_rows, row_counts, world_size
from spt_losses._similarity import contrast_sum


def in_batch_contrast(
    anchors: Tensor,
    candidates: Tensor,
    scale: Tensor | float,
    *,
    chunk_size: int | None = None,
    counts: list[int] | None = None,
) -> Tensor:
    """Mean cross-entropy of ``scale * anchors @ candidates^T`` at each row's own index.

    Args:
        anchors: Unit rows, shape ``(N, D)``.
        candidates: Unit rows, shape ``(N, D)``; row ``n`` is the positive of ``anchors[n]``.
        scale: What multiplies the similarities.
        chunk_size: Number of anchors compared at a time.
        counts: Rows per rank if already known.

    Returns:
        Scalar whose average over ranks is the mean over the rows of all ranks.
    """
    counts = counts or row_counts(anchors)
    positives = (anchors * candidates).sum(1) * scale
    everyone = gather_rows(candidates, counts)
    total = contrast_sum(anchors, everyone, positives, scale, chunk_size=chunk_size)
    return total * world_size() / sum(counts)
