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
    """A bijection of 32-bit numbers in which every bit of the input moves every bit of the output.

    It overwrites ``x``.
    """
    x.bitwise_xor_(x >> 16).mul_(0x7FEB352D).bitwise_and_(_LOW)
    x.bitwise_xor_(x >> 15).mul_(0x846CA68B).bitwise_and_(_LOW)
    return x.bitwise_xor_(x >> 16)


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
        return _mix(_mix(place.bitwise_xor_(key)).add_(key).bitwise_and_(_LOW)).view(shape)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Numbers in the open interval (0, 1)."""
        return (self.bits(*shape) >> 9).to(dtype).add_(0.5).div_(2**23)

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
