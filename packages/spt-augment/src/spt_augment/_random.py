"""Where augmentation draws its numbers: a generator keyed by (seed, rank, stage, step).

The global random state is left alone, ranks draw different numbers, and a resumed run repeats
those of the uninterrupted one. Numbers are drawn on the CPU, so they are the same on every
device and choosing rows by them costs no synchronisation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

_current: ContextVar[torch.Generator | None] = ContextVar("generator", default=None)


def keyed_generator(*key: int | str) -> torch.Generator:
    """A CPU generator whose seed is a hash of the key.

    Example:
        >>> a, b = (torch.rand(2, generator=keyed_generator(0, "fit", 3)) for _ in range(2))
        >>> torch.equal(a, b)
        True
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def current_rank() -> int:
    """Rank in the default process group; 0 without one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


@contextmanager
def drawing(*key: int | str) -> Iterator[torch.Generator]:
    """Draw from the generator of the key, unless one is already in use further out."""
    outer = _current.get()
    if outer is not None:
        yield outer
        return
    generator = keyed_generator(*key)
    token = _current.set(generator)
    try:
        yield generator
    finally:
        _current.reset(token)


def uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """``n`` float32 numbers from U(low, high)."""
    return torch.rand(n, generator=generator) * (high - low) + low


def coins(n: int, p: float, generator: torch.Generator) -> Tensor:
    """``n`` booleans that are true with probability ``p``."""
    return torch.rand(n, generator=generator) < p


def beta(n: int, alpha: float, generator: torch.Generator) -> Tensor:
    """``n`` numbers from Beta(alpha, alpha)."""
    a, b = torch._standard_gamma(torch.full((2, n), alpha), generator=generator)
    return a / (a + b)
