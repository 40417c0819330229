"""One slot per image that remembers its features.

Misra and van der Maaten, "Self-Supervised Learning of Pretext-Invariant Representations",
CVPR 2020, section 3.2. https://arxiv.org/abs/1912.01991
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spt_losses._checks import (
    check_count,
    check_fraction,
    check_rows,
    check_targets,
    check_width,
)
from spt_losses._distributed import gather_rows, row_counts
from spt_losses._numerics import unit, widen
from spt_losses._pending import Pending


class MemoryBank(nn.Module):
    """Unit rows, one per image of a data set, that move towards the newest features.

    Every rank holds the same content; it is a buffer. With gradient accumulation, features enter
    when the last batch of an optimizer step has brought its own; a shorter last window is closed
    with :meth:`flush`.

    Args:
        num_samples: Images in the data set.
        dim: Width of the features.
        momentum: What a slot keeps of itself in an update, in ``[0, 1]``.
        accumulate: Batches per optimizer step.
        seed: Of the rows at the start.

    Example:
        >>> bank = MemoryBank(3, 2, momentum=0.0)
        >>> bank.push(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
        >>> bank.rows[1].tolist()
        [0.0, 1.0]
    """

    rows: Tensor

    def __init__(
        self,
        num_samples: int,
        dim: int,
        *,
        momentum: float = 0.5,
        accumulate: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_count("num_samples", num_samples)
        check_count("dim", dim)
        check_fraction(momentum=momentum)
        self.momentum = momentum
        self._pending = Pending(accumulate)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("rows", unit(torch.randn(num_samples, dim, generator=generator)))

    @torch.no_grad()
    def push(self, features: Tensor, index: Tensor) -> None:
        """Move the slots ``index`` ``(N,)`` of all ranks towards ``features`` ``(N, dim)``.

        Raises:
            TypeError: If a dtype is wrong.
            ValueError: If a shape is wrong or an index names no slot.
        """
        check_rows("features", features)
        check_width("features", features, self.rows.shape[1])
        check_targets("index", index, rows=len(features), classes=len(self.rows))
        counts = row_counts(features)
        gathered = gather_rows(unit(widen(features.detach())), counts), gather_rows(index, counts)
        if self._pending.add(*gathered):
            self.flush()

    @torch.no_grad()
    def flush(self) -> None:
        """Let the features that wait enter now, those of an image together."""
        batches = self._pending.take()
        if not batches:
            return
        features, index = (torch.cat(parts) for parts in zip(*batches, strict=True))
        same = (index[:, None] == index).to(features.dtype)  # an image may come several times
        mean = same @ features / same.sum(1, keepdim=True)
        moved = self.momentum * self.rows[index] + (1 - self.momentum) * mean
        self.rows.index_copy_(0, index, unit(moved).to(self.rows.dtype))

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        num_samples, dim = self.rows.shape
        return (
            f"num_samples={num_samples}, dim={dim}, momentum={self.momentum}, "
            f"accumulate={self._pending.accumulate}"
        )
