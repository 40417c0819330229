"""Samplers that are seeded, know their rank, and resume after any index.

The order of an epoch follows from ``(seed, epoch)`` alone, so a state is an epoch and a count.
All start a new epoch by themselves each time they are iterated to the end; ``set_epoch`` (which
Lightning calls) chooses one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler, Sampler

from spt_data._draws import Row
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


class ShareSampler(_Resumable, DistributedSampler[int]):
    """Every n-th row for each rank, in the order of torch's ``DistributedSampler``.

    Ranks get equally many rows: the first ones of the order come again at its end.

    Args:
        n_rows: Number of rows.
        shuffle: Permute them, anew in each epoch.
        seed: Seed of the order, with the epoch; the same on all ranks.
        rank: Of this process.
        num_replicas: Number of ranks.

    Example:
        >>> [list(ShareSampler(3, rank=rank, num_replicas=2)) for rank in range(2)]
        [[0, 2], [1, 0]]
    """

    def __init__(
        self, n_rows: int, shuffle: bool = False, seed: int = 0, *, rank: int, num_replicas: int
    ) -> None:
        self.n_rows = _check_count("n_rows", n_rows)
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self.rank = rank
        self.num_replicas = num_replicas

    def items(self, epoch: int) -> Sequence[int]:
        """Rows of this rank."""
        order: list[int] = list(range(self.n_rows))
        if self.shuffle:
            order = torch.randperm(self.n_rows, generator=self._generator(epoch)).tolist()
        total = len(self) * self.num_replicas
        return list(itertools.islice(itertools.cycle(order), self.rank, total, self.num_replicas))

    def __len__(self) -> int:
        """Rows of this rank."""
        return -(-self.n_rows // self.num_replicas)


def _copies(rows: Sequence[int]) -> list[int]:
    """How many times the row of each place came before it."""
    seen: dict[int, int] = {}
    copies = []
    for row in rows:
        copies.append(seen.get(row, 0))
        seen[row] = copies[-1] + 1
    return copies


class RepeatedRandomSampler(_Resumable, DistributedSampler[Any]):
    """A permutation in which each row comes ``n_views`` times in a row.

    Each rank takes a contiguous slice of the permutation; the remainder is left out. It counts
    as a distributed sampler, so Lightning does not wrap it in another. Copies of a row know which
    one they are (see ``Row``), so that each gets an augmentation of its own.

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
        share = slice(rank * (n // world), (rank + 1) * (n // world))
        rows = order.tolist()
        before = _copies(rows) if self.replacement else [0] * n
        return [
            self._item(row, copy, view)
            for row, copy in zip(rows[share], before[share], strict=True)
            for view in range(self.n_views)
        ]

    def _item(self, row: int, copy: int, view: int) -> Any:
        if self.pass_view_idx:
            return Row.of(row, copy), view
        return Row.of(row, copy * self.n_views + view)

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


def _targets_of(source: Any) -> Tensor:
    """The class of each row, of a list of them or of a dataset with ``targets``."""
    targets = getattr(source, "targets", None)
    if targets is None and not isinstance(source, torch.utils.data.Dataset):
        targets = source
    try:
        return torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            "`targets_or_dataset` must be the class of each row, or a dataset with `targets`, got "
            f"{type(source).__name__} without. Pass the labels, such as dataset['label'], as a list."
        ) from error


class SupervisedBatchSampler(_Resumable, Sampler[list[int]]):
    """Batches of ``n_views`` rows from each of several classes, drawn by their frequency.

    Args:
        batch_size: Rows in a batch, a multiple of ``n_views``.
        n_views: Rows of one class; side by side in the batch.
        targets_or_dataset: Class of each row, or a dataset with ``targets``.
        seed: Seed of the draws, with the epoch; ranks draw differently.
        replacement: Let a row come twice among the views of a class, so rare classes do.

    Raises:
        ValueError: If a count is not positive or does not divide, a class has fewer than
            ``n_views`` rows and ``replacement`` is False, or a dataset has no ``targets``.
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
        targets = _targets_of(targets_or_dataset)
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
        rows = [row for _ in range(len(self)) for row in self._batch(generator)]
        # ranks draw the same rows, so the copies of each are numbered apart
        numbered = [
            Row.of(row, copy * world + rank) for row, copy in zip(rows, _copies(rows), strict=True)
        ]
        return [
            numbered[start : start + self.batch_size]
            for start in range(0, len(numbered), self.batch_size)
        ]

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
