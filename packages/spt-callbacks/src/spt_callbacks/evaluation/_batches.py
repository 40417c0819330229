"""Which rows of an evaluation batch count, and for which loader."""

from __future__ import annotations

from typing import Any

import lightning as pl
from torch.utils.data import DistributedSampler


def loader_number(trainer: pl.Trainer, dataloader_idx: int) -> int | None:
    """The number of the loader; ``None`` if it is the only one."""
    loaders = trainer.num_test_batches if trainer.testing else trainer.num_val_batches
    return dataloader_idx if len(loaders) > 1 else None


def rows_that_count(trainer: pl.Trainer, batch_idx: int, dataloader_idx: int, rows: int) -> int:
    """How many of a batch's first rows are no repetitions, with which a sampler fills up ranks.

    Args:
        trainer: That evaluates.
        batch_idx: Number of the batch.
        dataloader_idx: Number of its loader.
        rows: Rows of the batch.
    """
    loader = trainer._evaluation_loop._combined_loader.flattened[dataloader_idx]  # type: ignore[union-attr]
    return unrepeated_rows(loader, batch_idx, rows)


def unrepeated_rows(loader: Any, batch_idx: int, rows: int) -> int:
    """How many of a batch's first rows a :class:`DistributedSampler` gave to no other rank.

    The repetitions stand at the end of what the ranks share out in turns, so on each rank they
    come last. Batches that are not one row a sample count whole.

    Args:
        loader: Its loader.
        batch_idx: Number of the batch.
        rows: Rows of the batch.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> data = list(range(5))  # rank 1 of 2 gets 1, 3 and, to have three as well, 0
        >>> loader = DataLoader(data, 2, sampler=DistributedSampler(data, 2, 1, shuffle=False))
        >>> [unrepeated_rows(loader, i, len(batch)) for i, batch in enumerate(loader)]
        [2, 0]
    """
    sampler, size = getattr(loader, "sampler", None), getattr(loader, "batch_size", None)
    if not isinstance(sampler, DistributedSampler) or not size:
        return rows
    before = batch_idx * size
    if rows != min(size, len(sampler) - before):
        return rows
    own = len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))  # type: ignore[arg-type]
    return min(max(own - before, 0), rows)
