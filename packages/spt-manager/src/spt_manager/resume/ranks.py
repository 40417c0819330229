"""Small messages between the ranks of a run; in a single process they do nothing."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


class Ranks:
    """A group of all ranks that talks on the CPU, so that nothing waits for a device.

    Made on all ranks at the same point, after the process group of the training.
    """

    def __init__(self) -> None:
        joined = dist.is_available() and dist.is_initialized()
        self.world = dist.get_world_size() if joined else 1
        self.rank = dist.get_rank() if joined else 0
        self.group: Any = dist.new_group(backend="gloo") if self.world > 1 else None

    def largest(self, value: int) -> int:
        """The largest of the ranks' numbers."""
        if self.group is None:
            return value
        number = torch.tensor(value)
        dist.all_reduce(number, dist.ReduceOp.MAX, group=self.group)
        return int(number)

    def smallest(self, value: int) -> int:
        """The smallest of the ranks' numbers."""
        return -self.largest(-value)

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in rank order, on rank 0; elsewhere this rank's alone."""
        if self.group is None:
            return [value]
        found: list[Any] | None = [None] * self.world if self.rank == 0 else None
        dist.gather_object(value, found, dst=0, group=self.group)
        return [value] if found is None else found
