"""Random draws that follow from a key, not from the process that makes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def keyed_draws(*key: int) -> Iterator[None]:
    """Inside, torch's CPU generator is seeded by the key; afterwards it is as it was before.

    Args:
        *key: Integers, such as (seed, epoch, row, view).

    Example:
        >>> with keyed_draws(0, 1, 2):
        ...     first = torch.rand(3)
        >>> with keyed_draws(0, 1, 2):
        ...     print(torch.equal(first, torch.rand(3)))
        True
    """
    digest = hashlib.blake2b(repr(tuple(map(int, key))).encode(), digest_size=8).digest()
    generator = torch.default_generator  # of the CPU alone: no device is touched
    before = generator.get_state()
    generator.manual_seed(int.from_bytes(digest, "little"))
    try:
        yield
    finally:
        generator.set_state(before)
