"""Random draws that follow from a key, not from the process that makes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch


class Row(int):
    """The number of a row that a sampler gives several times in an epoch, and which time it is.

    It is an int for all who do not ask. The first copy is a plain int: its ``copy`` is 0.
    """

    copy: int

    @staticmethod
    def of(row: int, copy: int) -> int:
        """A row for the n-th time."""
        if not copy:
            return int(row)
        numbered = Row(row)
        numbered.copy = copy
        return numbered


def copy_of(index: Any) -> int:
    """Which copy an index, or a ``(row, view)`` pair, asks for."""
    row = index[0] if isinstance(index, tuple) else index
    return row.copy if isinstance(row, Row) else 0


_asked: ContextVar[tuple[Any, int]] = ContextVar("asked", default=(None, 0))


@contextmanager
def asked_for(place: Any, copy: int = 0) -> Iterator[None]:
    """Inside, samples are made for a place in the data set, for the n-th time in this epoch.

    It reaches ``process_sample`` past the ``__getitem__`` of any class.
    """
    token = _asked.set((place, copy))
    try:
        yield
    finally:
        _asked.reset(token)


def what_is_asked_for() -> tuple[Any, int]:
    """The place, None when it is unknown, and the copy."""
    return _asked.get()


@contextmanager
def keyed_draws(*key: Any) -> Iterator[None]:
    """Inside, torch's CPU generator is seeded by the key; afterwards it is as it was before.

    Args:
        *key: Integers or strings, such as (seed, epoch, row, view).

    Example:
        >>> with keyed_draws(0, 1, 2):
        ...     first = torch.rand(3)
        >>> with keyed_draws(0, 1, 2):
        ...     print(torch.equal(first, torch.rand(3)))
        True
    """
    digest = hashlib.blake2b(repr(tuple(map(_part, key))).encode(), digest_size=8).digest()
    generator = torch.default_generator  # of the CPU alone: no device is touched
    before = generator.get_state()
    generator.manual_seed(int.from_bytes(digest, "little"))
    try:
        yield
    finally:
        generator.set_state(before)


def _part(value: Any) -> int | str:
    return str(value) if isinstance(value, str) else int(value)
