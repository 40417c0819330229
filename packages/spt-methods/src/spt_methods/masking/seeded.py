"""Random numbers that a resumed run repeats and ranks do not share."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SeededMasking(nn.Module):
    """Draws each batch's masks from a generator keyed by (seed, rank, draw).

    The number of the draw is a buffer, so it is in the checkpoint; the global random state is left
    alone.

    Args:
        seed: First part of the key.
    """

    draws: Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self._draw = 0  # the host's copy of the buffer: read without a sync
        self.register_buffer("draws", torch.tensor(0))

    def next_generator(self, device: torch.device, shared: bool = False) -> torch.Generator:
        """The generator of the next batch.

        Args:
            device: Where to draw.
            shared: Draw the same on every rank.
        """
        rank = -1 if shared else _rank()
        generator = torch.Generator(device)
        generator.manual_seed(mixed_seed(self.seed, rank, self._draw))
        self._draw += 1
        self.draws.fill_(self._draw)
        return generator

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._draw = int(self.draws)


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def mixed_seed(*parts: int) -> int:
    """One seed from several numbers; differs whenever a part does.

    Example:
        >>> mixed_seed(0, 0, 1) == mixed_seed(0, 1, 0)
        False
    """
    packed = struct.pack(f"{len(parts)}q", *parts)
    digest = hashlib.blake2b(packed, digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # torch takes signed numbers
