"""Rings of recent rows, one per key and trainer, shared by the callbacks that ask for them."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import lightning as pl
import torch
from torch import Tensor

from spt_callbacks.distributed import gather_parts, rank, world_size
from spt_callbacks.keys import Key, look_up
from spt_callbacks.ring import Ring as Ring


class Queues:
    """The rings of one trainer; see :func:`queues_of`."""

    def __init__(self) -> None:
        self.rings: dict[Key, Ring] = {}
        self.askers: dict[Key, str] = {}
        self.shapes: dict[Key, tuple[tuple[int, ...], str]] = {}
        self.savers: dict[Key, str] = {}
        self.batch: int | None = None
        self._gathered: dict[Key, tuple[int, list[Tensor]]] = {}

    def request(
        self,
        keys: Sequence[Key],
        length: int,
        caller: str,
        *,
        shape: int | tuple[int, ...] | None = None,
        dtype: torch.dtype | None = None,
        save: bool = False,
    ) -> None:
        """Ask for rings of these keys, at least ``length`` long.

        Args:
            keys: Keys of the step's outputs or of the batch.
            length: Rows to keep.
            caller: Who asks, for messages.
            shape: Shape of a row of the first key; not checked if not given.
            dtype: Type in which to keep the first key; that of the data by default.
            save: Whether the caller wants the rings in checkpoints; the first one keeps them.

        Raises:
            ValueError: If ``length`` is below 1, or the shape or type of a key is not what an
                earlier caller asked for.
        """
        if length < 1:
            raise ValueError(f"`queue_length` of {caller} must be >= 1, got {length}.")
        self.batch = None  # a new run may begin with the number at which the last one ended
        for key in keys:
            self.askers.setdefault(key, caller)
            ring = self.rings.setdefault(key, Ring(length))
            if ring.length < length:
                ring.resize(length)
            if save:
                self.savers.setdefault(key, caller)
        self.agree(keys[0], shape, dtype, caller)

    def agree(
        self,
        key: Key,
        shape: int | tuple[int, ...] | None,
        dtype: torch.dtype | None,
        caller: str,
    ) -> None:
        """Note what a caller expects of a key.

        Raises:
            ValueError: If an earlier caller expects another shape or type.
        """
        ring = self.rings[key]
        if shape is not None:
            wanted = (shape,) if isinstance(shape, int) else tuple(shape)
            known, other = self.shapes.setdefault(key, (wanted, caller))
            if known != wanted:
                raise ValueError(
                    f"{caller} expects rows of shape {wanted} under {key!r}, but {other} expects "
                    f"{known}."
                )
        if dtype is not None:
            if ring.dtype not in (None, dtype):
                raise ValueError(
                    f"{caller} wants {key!r} kept as {dtype}, but another callback wants "
                    f"{ring.dtype}."
                )
            ring.dtype = dtype

    def append(self, index: int, outputs: Any, batch: Any) -> None:
        """Add the rows of a training batch, once however many callbacks say so.

        Raises:
            MissingKeyError: If a requested key is missing.
        """
        if index == self.batch:
            return
        rows = {key: look_up(key, outputs, batch, self.askers[key]) for key in self.rings}
        self.batch = index
        for key, ring in self.rings.items():
            ring.append(rows[key])

    def snapshot(
        self, keys: Sequence[Key], length: int, *, gather: bool = True, by_age: bool = False
    ) -> tuple[Tensor, ...] | None:
        """The newest rows of each key, aligned, oldest first; ``None`` while empty.

        Args:
            keys: Keys of one record: row ``i`` of each is of the same sample.
            length: Rows of each rank.
            gather: Rows of all ranks, rank after rank; else those of this one.
            by_age: Mix the ranks' rows, so that the oldest of all come first.
        """
        if any(self.rings[key].rows is None for key in keys):
            return None
        parts = [self._parts(key) if gather else [self._own(key, length)] for key in keys]
        counts = [min(length, *(len(part) for part in source)) for source in zip(*parts)]  # noqa: B905
        rows = tuple(
            _joined([part[len(part) - n :] for part, n in zip(source, counts, strict=True)])
            for source in parts
        )
        if not by_age or len(counts) == 1:
            return rows
        order = _by_age(counts).to(rows[0].device)
        return tuple(row[order] for row in rows)

    def _own(self, key: Key, length: int) -> Tensor:
        rows = self.rings[key].newest(length)
        assert rows is not None
        return rows

    def _parts(self, key: Key) -> list[Tensor]:
        """All rows of each rank; gathered once, however many callbacks ask."""
        ring = self.rings[key]
        seen, parts = self._gathered.get(key, (-1, []))
        if seen != ring.seen:
            parts = gather_parts(self._own(key, ring.length))
            self._gathered[key] = (ring.seen, parts)
        return parts

    def release(self) -> None:
        """Forget gathered rows."""
        self._gathered.clear()

    def state(self, keys: Sequence[Key], caller: str) -> list[Any]:
        """For each key that this caller saves, the rows of each rank; ``None`` for the others."""
        kept: list[Any] = []
        for key in keys:
            mine = self.savers.get(key) == caller and self.rings[key].rows is not None
            kept.append([part.cpu() for part in self._parts(key)] if mine else None)
        self.release()
        return kept

    def restore(self, keys: Sequence[Key], state: list[Any]) -> None:
        """Fill rings from a checkpoint; the newest rows stay, whatever the number of ranks."""
        for key, parts in zip(keys, state, strict=False):
            if parts is not None:
                self.rings[key].fill(_share(parts))


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _share(parts: list[Tensor]) -> Tensor:
    """This rank's rows: what it had, or its share by age if there are other ranks now."""
    if len(parts) == world_size():
        return parts[rank()]
    return torch.cat(parts)[_by_age([len(part) for part in parts])[rank() :: world_size()]]


def _by_age(counts: Sequence[int]) -> Tensor:
    """The order that puts joined parts, each oldest first, oldest first."""
    ages = torch.cat([torch.arange(count, 0, -1) for count in counts])
    return torch.argsort(ages, descending=True, stable=True)


_queues: weakref.WeakKeyDictionary[pl.Trainer, Queues] = weakref.WeakKeyDictionary()


def queues_of(trainer: pl.Trainer) -> Queues:
    """The queues of a trainer, made at first use and gone with it."""
    return _queues.setdefault(trainer, Queues())
