"""Where augmentation draws its numbers: a generator keyed by (seed, rank, stage, step).

The global random state is left alone, ranks draw different numbers, and a resumed run repeats
those of the uninterrupted one. Numbers are drawn on the CPU, so they are the same on every
device and choosing rows by them costs no synchronisation.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakValueDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn

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


class Drawing(nn.Module):
    """A module that draws anew in each call.

    In a plain loop the generator is keyed by ``seed``, the rank, ``number`` and the calls so far, which
    the state dict holds.

    Attributes:
        seed: That of the run; if it is ``None``, torch's at the first call.
        number: The least that no other module has, so that two of them draw on their own, and
            those of a second run in one process as those of the first.
        calls: How often it has drawn.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seed: int | None = None
        self.number = next(i for i in itertools.count() if i not in _living)
        _living[self.number] = self
        self.calls = 0

    @contextmanager
    def drawing(self) -> Iterator[torch.Generator]:
        """The generator of this call, or the one that is already in use further out."""
        if self.seed is None:
            self.seed = torch.initial_seed() % 2**63
        with drawing(self.seed, current_rank(), "loop", self.number, self.calls) as generator:
            self.calls += 1
            yield generator

    def get_extra_state(self) -> Tensor:
        """Where the draws stand, for a resumed loop: seed (-1 for none), number, calls."""
        return torch.tensor([-1 if self.seed is None else self.seed, self.number, self.calls])

    def set_extra_state(self, state: Tensor) -> None:
        """Go on with the next draw."""
        seed, self.number, self.calls = state.tolist()
        self.seed = None if seed < 0 else seed


_living: WeakValueDictionary[int, Drawing] = WeakValueDictionary()


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
