"""A first-in, first-out queue of features, as MoCo's dictionary and NNCLR's support set.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
section 3.1. https://arxiv.org/abs/1911.05722
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spt_losses._checks import check_count, check_rows, check_width
from spt_losses._distributed import gather_rows
from spt_losses._numerics import unit, widen
from spt_losses._pending import Pending


class FeatureQueue(nn.Module):
    """The newest unit rows of all ranks, in a ring that is written in place.

    Every rank holds the same content: rows are gathered before they enter, and the random unit
    rows that fill the queue at first come from ``seed`` alone. Content and position are buffers.

    With gradient accumulation, rows enter when the last batch of an optimizer step has brought
    its own, so that the batches of a step see one queue, as one large batch would. A shorter
    last window is closed with :meth:`flush`. Rows that wait are not part of ``state_dict``.

    Args:
        length: Number of rows.
        dim: Width of the rows.
        accumulate: Batches per optimizer step.
        seed: Of the rows at the start.

    Example:
        >>> queue = FeatureQueue(4, 2)
        >>> queue.push(torch.tensor([[3.0, 0.0], [0.0, -5.0]]))
        >>> queue.rows[:2].tolist(), int(queue.pointer)
        ([[1.0, 0.0], [0.0, -1.0]], 2)
    """

    rows: Tensor
    pointer: Tensor

    def __init__(self, length: int, dim: int, *, accumulate: int = 1, seed: int = 0) -> None:
        super().__init__()
        check_count("length", length)
        check_count("dim", dim)
        self._pending = Pending(accumulate)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("rows", unit(torch.randn(length, dim, generator=generator)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Take in rows ``(N, D)`` of all ranks, normalised here, in the place of the oldest.

        Raises:
            TypeError: If ``rows`` is not of a floating-point dtype.
            ValueError: If ``rows`` is not of shape ``(N, dim)``.
        """
        check_rows("rows", rows)
        check_width("rows", rows, self.rows.shape[1])
        if self._pending.add(gather_rows(unit(widen(rows.detach())))):
            self.flush()

    @torch.no_grad()
    def flush(self) -> None:
        """Let the rows that wait enter now."""
        for (rows,) in self._pending.take():
            self._write(rows)

    def _write(self, rows: Tensor) -> None:
        length = len(self.rows)
        skipped = max(len(rows) - length, 0)  # of more rows than fit, the newest stay
        places = torch.arange(skipped, len(rows), device=rows.device)
        places = (places + self.pointer) % length
        self.rows.index_copy_(0, places, rows[skipped:].to(self.rows.dtype))
        self.pointer.add_(len(rows)).remainder_(length)

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        length, dim = self.rows.shape
        return f"length={length}, dim={dim}, accumulate={self._pending.accumulate}"
