"""Random numbers that are a function of (seed, call, place): no generator, no host, no graph break.

The same call gives the same numbers on every rank and device, and a restored counter goes on where
it was. The hash is "lowbias32" of https://nullprogram.com/blog/2018/07/31/, applied per place to a
key that is itself a hash of seed and call.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_LOW = 0xFFFFFFFF  # numbers of 32 bits live in int64


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit numbers in which every bit of the input moves every bit of the output."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _LOW
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _LOW
    return x ^ (x >> 16)


class Draws(nn.Module):
    """Counts its calls in a buffer; each call gives new numbers.

    Args:
        seed: Of all numbers.
    """

    calls: Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def bits(self, *shape: int) -> Tensor:
        """Integers in ``[0, 2^32)``; in training mode the next call gives others."""
        number = math.prod(shape)
        place = torch.arange(number, device=self.calls.device)
        key = _mix(_mix((self.calls + 1) & _LOW) ^ (self.seed * 0x9E3779B1 & _LOW))
        if self.training:
            self.calls.add_(1)
        return _mix(_mix(place ^ key) + key & _LOW).view(shape)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Numbers in the open interval (0, 1)."""
        return ((self.bits(*shape) >> 9).to(dtype) + 0.5) / 2**23

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard Gaussian numbers, by Box and Muller."""
        radius, angle = self.uniform(2, *shape, dtype=dtype)
        return (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers in ``[0, high)``."""
        return self.bits(*shape) % high

    def permutations(self, count: int, length: int) -> Tensor:
        """Orders of ``length`` things, shape ``(count, length)``."""
        return self.bits(count, length).argsort(dim=1, stable=True)
