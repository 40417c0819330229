"""What the batches of one optimizer step bring, held until the step is complete."""

from __future__ import annotations

from torch import Tensor

from spt_losses._checks import check_count


class Pending:
    """Rows of ``accumulate`` batches, kept aside so that no batch of a step sees another's.

    Args:
        accumulate: Batches per optimizer step, at least 1.
    """

    def __init__(self, accumulate: int) -> None:
        check_count("accumulate", accumulate)
        self.accumulate = accumulate
        self._batches: list[tuple[Tensor, ...]] = []

    def add(self, *batch: Tensor) -> bool:
        """Keep a batch; True once a step's batches are there."""
        self._batches.append(batch)
        return len(self._batches) >= self.accumulate

    def take(self) -> list[tuple[Tensor, ...]]:
        """What was kept, oldest first; nothing is kept afterwards."""
        batches, self._batches = self._batches, []
        return batches
