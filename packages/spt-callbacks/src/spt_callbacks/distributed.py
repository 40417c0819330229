"""The collectives that callbacks need; in a single process they do nothing."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this rank; 0 without a process group."""
    return dist.get_rank() if world_size() > 1 else 0


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Average gradients over ranks with one flat all-reduce; a rank without one counts as zero."""
    trained = [p for p in parameters if p.requires_grad]
    if world_size() == 1 or not trained:
        return
    flat = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained]
    )
    dist.all_reduce(flat)
    flat /= world_size()
    for p, part in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
        p.grad = part.view_as(p).clone()


def same_on_all_ranks(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors by those of rank 0."""
    if world_size() == 1:
        return
    for tensor in tensors:
        dist.broadcast(tensor.detach(), 0)


def gather_parts(x: Tensor) -> list[Tensor]:
    """The rows of each rank, in rank order; ranks may differ in their number of rows."""
    if world_size() == 1:
        return [x]
    counts = torch.zeros(world_size(), dtype=torch.int64, device=x.device)
    counts[rank()] = len(x)
    dist.all_reduce(counts)
    parts = [x.new_empty(int(count), *x.shape[1:]) for count in counts.tolist()]
    for source, part in enumerate(parts):
        if source == rank():
            part.copy_(x)
        dist.broadcast(part, source)
    return parts


def gather_rows(x: Tensor) -> Tensor:
    """Rows of all ranks in rank order; ranks may differ in their number of rows."""
    parts = gather_parts(x)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of the ranks' tensors, in place."""
    if world_size() > 1:
        dist.all_reduce(x)
    return x


def largest_of_ranks(value: int, device: torch.device) -> int:
    """The largest of the ranks' numbers."""
    if world_size() == 1:
        return value
    found = torch.tensor(value, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)
