"""The collectives of the losses; in a single process each of them does nothing.

Gradients follow one rule. A loss computes, on every rank, either the value over the rows of
*all* ranks, or a local part whose average over ranks is that value. Backward sums what the
ranks send to a row; DistributedDataParallel then averages parameters' gradients over ranks,
which gives the gradient of one process on the concatenated batch.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of ranks of the default process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank in the default process group; 0 without one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


_HOST_GROUPS: WeakKeyDictionary[dist.ProcessGroup, dist.ProcessGroup] = WeakKeyDictionary()


def _host_group() -> dist.ProcessGroup | None:
    """Where numbers of the host travel: the default group if it takes them, else one of gloo.

    The latter is made at the first call, which all ranks make together.
    """
    default = dist.group.WORLD
    if default is None or "cpu:" in dist.get_backend_config(default):
        return default
    if default not in _HOST_GROUPS:
        made = dist.new_group(backend="gloo")
        if not isinstance(made, dist.ProcessGroup):
            raise RuntimeError("The default process group holds no rank of this process.")
        _HOST_GROUPS[default] = made
    return _HOST_GROUPS[default]


def row_counts(x: Tensor) -> list[int]:
    """Number of rows of ``x`` on each rank.

    They are exchanged between the hosts, so that no rank waits for its device.
    """
    if world_size() == 1:
        return [len(x)]
    counts = torch.zeros(world_size(), dtype=torch.int64)
    counts[rank()] = len(x)
    dist.all_reduce(counts, group=_host_group())
    return [int(count) for count in counts.tolist()]


def num_rows(x: Tensor) -> int:
    """Number of rows of ``x`` over all ranks."""
    return sum(row_counts(x))


class _GatherRows(torch.autograd.Function):
    """Concatenate the rows of all ranks; backward sums over ranks the gradient of own rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        parts = [x.new_empty(count, *x.shape[1:]) for count in counts]
        if len(set(counts)) == 1:
            dist.all_gather(parts, x.contiguous())
        else:
            for source, part in enumerate(parts):
                if source == rank():
                    part.copy_(x)
                dist.broadcast(part, source)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.split(ctx.counts)[rank()], None


def gather_rows(x: Tensor, counts: list[int] | None = None) -> Tensor:
    """Rows of all ranks in rank order, with gradient.

    Args:
        x: This rank's rows, shape ``(N, ...)``; ranks may differ in ``N``.
        counts: Rows per rank if already known, as of :func:`row_counts`.

    Returns:
        Shape ``(sum of N over ranks, ...)``; ``x`` itself in a single process.

    Example:
        >>> gather_rows(torch.ones(2, 3)).shape  # no process group
        torch.Size([2, 3])
    """
    if world_size() == 1:
        return x
    gathered: Tensor = _GatherRows.apply(x, counts or row_counts(x))
    return gathered


class _SumOverRanks(torch.autograd.Function):
    """All-reduce by sum, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum of ``x`` over ranks, with gradient; ``x`` itself in a single process."""
    if world_size() == 1:
        return x
    total: Tensor = _SumOverRanks.apply(x)
    return total


def max_over_ranks(x: Tensor) -> Tensor:
    """Largest ``x`` over ranks, elementwise and without gradient."""
    if world_size() == 1:
        return x.detach()
    largest = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def from_first_rank(x: Tensor) -> Tensor:
    """The value that rank 0 holds, without gradient."""
    if world_size() == 1:
        return x
    value = x.detach().clone(memory_format=torch.contiguous_format)
    dist.broadcast(value, 0)
    return value


def mean_of_rows(values: Tensor, counts: list[int] | None = None) -> Tensor:
    """This rank's part of the mean of ``values`` over the rows of all ranks.

    Args:
        values: One number per row, shape ``(N,)``; ranks may differ in ``N``.
        counts: Rows per rank if already known.

    Returns:
        Scalar whose average over ranks is the mean over all rows; in a single process the mean.
    """
    if world_size() == 1:
        return values.mean()
    return values.sum() * world_size() / sum(counts or row_counts(values))
