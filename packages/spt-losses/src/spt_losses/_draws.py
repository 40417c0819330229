"""Random numbers that are a function of (seed, call, place): no generator, no host, no graph break.

The same call gives the same numbers on every rank and device, and a restored counter goes on where
it was. The hash is "lowbias32" of https://nullprogram.com/blog/2018/07/31/, applied per place to a
key that is itself a hash of seed and call.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_LOW = 0xFFFFFFFF


def _signed(word: int) -> int:
    """The 32-bit number as torch's int32 holds it: tensors of it are the fastest on a CPU."""
    return (word & _LOW) - ((word & 0x80000000) << 1)


def _fold(x: Tensor, shift: int) -> Tensor:
    """``x ^ (x >> shift)``, in place, with zeros shifted in."""
    return x.bitwise_xor_((x >> shift).bitwise_and_(_LOW >> shift))


def _mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit numbers in which every bit of the input moves every bit of the output.

    It overwrites ``x``, of int32, whose products wrap around.
    """
    _fold(x, 16).mul_(_signed(0x7FEB352D))
    _fold(x, 15).mul_(_signed(0x846CA68B))
    return _fold(x, 16)


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
    def _words(self, number: int) -> Tensor:
        place = torch.arange(number, device=self.calls.device, dtype=torch.int32)
        key = _mix(_mix((self.calls + 1).to(torch.int32)) ^ _signed(self.seed * 0x9E3779B1))
        if self.training:
            self.calls.add_(1)
        return _mix(_mix(place.bitwise_xor_(key)).add_(key))

    def bits(self, *shape: int) -> Tensor:
        """Integers in ``[0, 2^32)``; in training mode the next call gives others."""
        return self._words(math.prod(shape)).long().bitwise_and_(_LOW).view(shape)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Numbers in the open interval (0, 1)."""
        words = (self._words(math.prod(shape)) >> 9).bitwise_and_(_LOW >> 9)
        return words.to(dtype).add_(0.5).mul_(2**-23).view(shape)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard Gaussian numbers, by Box and Muller."""
        number = math.prod(shape)
        radius, angle = self.uniform(2, (number + 1) // 2, dtype=dtype)
        radius, angle = radius.log_().mul_(-2).sqrt_(), angle.mul_(2 * math.pi)
        return torch.cat([radius * angle.cos(), radius * angle.sin()])[:number].view(shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Integers in ``[0, high)``."""
        return self.bits(*shape) % high

    def permutations(self, count: int, length: int) -> Tensor:
        """Orders of ``length`` things, shape ``(count, length)``."""
        return self.bits(count, length).argsort(dim=1, stable=True)
