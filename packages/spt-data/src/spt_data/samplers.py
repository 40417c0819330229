"""Samplers that are seeded, know their rank, and resume after any index.

The order of an epoch follows from ``(seed, epoch)`` alone, so a state is an epoch and a count.
All start a new epoch by themselves each time they are iterated to the end; ``set_epoch`` (which
Lightning calls) chooses one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler, Sampler

from spt_data._ranks import rank_and_world


def _check_count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` must be a positive int, got {value!r}.")
    return value


def _length(source: Any) -> int:
    return source if isinstance(source, int) else len(source)


class _Iteration(Iterator[Any]):
    """One epoch of a sampler; its state is the epoch and how many items it has given."""

    def __init__(self, sampler: _Resumable) -> None:
        self.sampler = sampler
        self._start(sampler.epoch, 0)

    def _start(self, epoch: int, yielded: int) -> None:
        self.epoch = epoch
        self.yielded = yielded
        self.items = self.sampler.items(epoch)

    def __next__(self) -> Any:
        if self.yielded >= len(self.items):
            self.sampler.epoch = self.epoch + 1
            raise StopIteration
        self.yielded += 1
        return self.items[self.yielded - 1]

    def state_dict(self) -> dict[str, int]:
        """Where the epoch stands."""
        return {"epoch": self.epoch, "yielded": self.yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self._start(state["epoch"], state["yielded"])
        self.sampler.epoch = self.epoch + (self.yielded >= len(self.items))


class _Resumable:
    """What the samplers share: a seed, an epoch, and the items of each epoch."""

    seed: int
    epoch: int

    def items(self, epoch: int) -> Sequence[Any]:
        """All items of an epoch, for this rank."""
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.epoch = epoch

    def _generator(self, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed + epoch)

    def __iter__(self) -> Iterator[Any]:
        return _Iteration(self)


class RepeatedRandomSampler(_Resumable, DistributedSampler[Any]):
    """A permutation in which each row comes ``n_views`` times in a row.

    Each rank takes a contiguous slice of the permutation; the remainder is left out. It counts
    as a distributed sampler, so Lightning does not wrap it in another.

    Args:
        data_source_or_len: A dataset, or the number of rows.
        n_views: Times each row is given.
        replacement: Draw rows with replacement.
        seed: Seed of the order, with the epoch.
        pass_view_idx: Give ``(row, view)`` pairs, which put ``view_idx`` into the sample.

    Raises:
        TypeError: If ``replacement`` is not a bool.
        ValueError: If ``n_views`` is not positive or there are no rows for each rank.

    Example:
        >>> sampler = RepeatedRandomSampler(3, n_views=2)
        >>> rows = list(sampler)
        >>> rows[0] == rows[1], len(set(rows)), len(sampler)
        (True, 3, 6)
    """

    def __init__(
        self,
        data_source_or_len: Any,
        n_views: int = 1,
        replacement: bool = False,
        seed: int = 0,
        pass_view_idx: bool = False,
    ) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(f"`replacement` must be a bool, got {replacement!r}.")
        self.n_rows = _check_count("data_source_or_len", _length(data_source_or_len))
        self.n_views = _check_count("n_views", n_views)
        self.replacement = replacement
        self.seed = seed
        self.epoch = 0
        self.pass_view_idx = pass_view_idx

    def items(self, epoch: int) -> Sequence[Any]:
        """Rows, or ``(row, view)`` pairs, of this rank."""
        generator, n = self._generator(epoch), self.n_rows
        if self.replacement:
            order = torch.randint(n, (n,), generator=generator)
        else:
            order = torch.randperm(n, generator=generator)
        rank, world = rank_and_world()
        share = n // world
        rows = order[rank * share : (rank + 1) * share].tolist()
        views = range(self.n_views)
        return [(row, view) if self.pass_view_idx else row for row in rows for view in views]

    def __len__(self) -> int:
        """Items of this rank."""
        return self.n_rows // rank_and_world()[1] * self.n_views


class RandomBatchSampler(_Resumable, Sampler[list[int]]):
    """One permutation cut into batches, which the ranks share out; a short last one is left out.

    Args:
        batch_size: Rows in a batch.
        length_or_dataset: A dataset, or the number of rows.
        seed: Seed of the order, with the epoch.

    Raises:
        ValueError: If there are fewer rows than one batch.

    Note:
        In a distributed run give the Trainer ``use_distributed_sampler=False``: the batches are
        shared out already.
    """

    def __init__(self, batch_size: int, length_or_dataset: Any, seed: int = 0) -> None:
        self.batch_size = _check_count("batch_size", batch_size)
        self.n_rows = _length(length_or_dataset)
        if self.n_rows < batch_size:
            raise ValueError(f"`batch_size` is {batch_size}, but there are {self.n_rows} rows.")
        self.seed = seed
        self.epoch = 0

    @property
    def sampler(self) -> RandomBatchSampler:
        """Itself: where Lightning looks for ``set_epoch``."""
        return self

    def items(self, epoch: int) -> Sequence[list[int]]:
        """Batches of this rank."""
        order = torch.randperm(self.n_rows, generator=self._generator(epoch))
        rank, world = rank_and_world()
        batches = list(order.split(self.batch_size))[: self.n_rows // self.batch_size]
        share = len(batches) // world
        return [batch.tolist() for batch in batches[rank * share : (rank + 1) * share]]

    def __len__(self) -> int:
        """Batches of this rank."""
        return self.n_rows // self.batch_size // rank_and_world()[1]


class SupervisedBatchSampler(_Resumable, Sampler[list[int]]):
    """Batches of ``n_views`` rows from each of several classes, drawn by their frequency.

    Args:
        batch_size: Rows in a batch, a multiple of ``n_views``.
        n_views: Rows of one class; side by side in the batch.
        targets_or_dataset: Class of each row, or a dataset with ``targets``.
        seed: Seed of the draws, with the epoch; ranks draw differently.
        replacement: Let a row come twice among the views of a class, so rare classes do.

    Raises:
        ValueError: If a count is not positive or does not divide, or a class has fewer than
            ``n_views`` rows and ``replacement`` is False.
    """

    def __init__(
        self,
        batch_size: int,
        n_views: int,
        targets_or_dataset: Any,
        seed: int = 0,
        replacement: bool = False,
    ) -> None:
        self.batch_size = _check_count("batch_size", batch_size)
        self.n_views = _check_count("n_views", n_views)
        if batch_size % n_views:
            raise ValueError(f"`batch_size` {batch_size} is no multiple of `n_views` {n_views}.")
        targets = torch.as_tensor(getattr(targets_or_dataset, "targets", targets_or_dataset))
        labels, counts = targets.unique(return_counts=True)
        rare = labels[counts < n_views].tolist()
        if rare and not replacement:
            raise ValueError(
                f"Classes {rare[:10]} have fewer than `n_views` = {n_views} rows; use "
                "replacement=True or leave them out."
            )
        self.rows_of: list[Tensor] = [(targets == label).nonzero()[:, 0] for label in labels]
        self.frequencies = counts.double()
        self.n_rows = len(targets)
        self.seed = seed
        self.epoch = 0
        self.replacement = replacement

    @property
    def sampler(self) -> SupervisedBatchSampler:
        """Itself: where Lightning looks for ``set_epoch``."""
        return self

    def items(self, epoch: int) -> Sequence[list[int]]:
        """Batches of this rank."""
        rank, world = rank_and_world()
        generator = self._generator(epoch * world + rank)
        return [self._batch(generator) for _ in range(len(self))]

    def _batch(self, generator: torch.Generator) -> list[int]:
        n_classes = self.batch_size // self.n_views
        classes = self.frequencies.multinomial(n_classes, replacement=True, generator=generator)
        return [row for label in classes for row in self._rows(self.rows_of[label], generator)]

    def _rows(self, rows: Tensor, generator: torch.Generator) -> list[int]:
        if self.replacement:
            chosen = torch.randint(len(rows), (self.n_views,), generator=generator)
        else:
            chosen = torch.randperm(len(rows), generator=generator)[: self.n_views]
        picked: list[int] = rows[chosen].tolist()
        return picked

    def __len__(self) -> int:
        """Batches of this rank: about one pass over the rows."""
        return self.n_rows // self.batch_size // rank_and_world()[1]
