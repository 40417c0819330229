"""A vector-quantised autoencoder: images to discrete tokens, and back.

van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017, eq. 3
and appendix A.1. https://arxiv.org/abs/1711.00937
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from spt_methods.masking.seeded import SeededMasking


class Quantised(NamedTuple):
    """Vectors, the nearest codes, and how far apart they are.

    Attributes:
        codes: The codes in the vectors' place, with the vectors' gradient, shape ``(B, D, h, w)``.
        tokens: Their numbers, int64 of shape ``(B, h, w)``.
        commitment: Mean squared distance of vectors to codes, with the vectors' gradient.
    """

    codes: Tensor
    tokens: Tensor
    commitment: Tensor


class Codebook(SeededMasking):
    """Codes that follow the mean of the vectors they stand for; unused ones begin again.

    Codes are no parameters: in training each moves to the moving average of its vectors over all
    ranks. A code whose average count falls under ``least_used`` takes the place of a random vector of
    the batch.

    Args:
        vocab_size: Codes.
        dim: Width.
        decay: Of the moving averages.
        least_used: Average vectors per batch under which a code begins again.
        seed: Of the draws.
    """

    codes: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        vocab_size: int,
        dim: int,
        decay: float = 0.99,
        least_used: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"`decay` must be in [0, 1), got {decay}.")
        codes = torch.randn(vocab_size, dim, generator=torch.Generator().manual_seed(seed))
        self.decay = decay
        self.least_used = least_used
        self.register_buffer("codes", codes)
        self.register_buffer("counts", torch.zeros(vocab_size))  # the first batch places the codes
        self.register_buffer("sums", torch.zeros_like(codes))

    def tokens_of(self, vectors: Tensor) -> Tensor:
        """The nearest code of each vector: int64 ``(M,)`` of ``(M, D)``."""
        distance = self.codes.square().sum(1) - 2 * vectors @ self.codes.T
        return distance.argmin(1)

    def forward(self, maps: Tensor) -> Quantised:
        """Quantise maps ``(B, D, h, w)``; in training the codes follow, after they were used."""
        vectors = maps.movedim(1, -1).flatten(0, -2).to(self.codes.dtype)
        tokens = self.tokens_of(vectors.detach())
        codes = self.codes[tokens]
        commitment = F.mse_loss(vectors, codes)
        straight = (
            vectors + (codes - vectors).detach()
        )  # the gradient passes as if nothing happened
        if self.training:
            self._follow(vectors.detach(), tokens)
        shape = (maps.shape[0], *maps.shape[2:])
        out = straight.view(*shape, -1).movedim(-1, 1).to(maps.dtype)
        return Quantised(out, tokens.view(shape), commitment)

    @torch.no_grad()
    def _follow(self, vectors: Tensor, tokens: Tensor) -> None:
        counts = torch.zeros_like(self.counts)
        counts.index_add_(0, tokens, torch.ones_like(tokens, dtype=counts.dtype))
        sums = torch.zeros_like(self.sums).index_add_(0, tokens, vectors)
        generator = self.next_generator(vectors.device)
        shape = (len(self.codes),)
        pick = torch.randint(len(vectors), shape, generator=generator, device=vectors.device)
        fresh = vectors[pick]
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
            dist.all_reduce(sums)
            dist.broadcast(fresh, 0)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        unused = self.counts < self.least_used
        self.counts.masked_fill_(unused, 1.0)
        self.sums.copy_(torch.where(unused.unsqueeze(1), fresh, self.sums))
        self.codes.copy_(self.sums / self.counts.unsqueeze(1))


class Residual(nn.Module):
    """Two convolutions around a residual.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(math.gcd(8, width), width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(math.gcd(8, width), width),
            nn.SiLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape as given, ``(B, width, h, w)``."""
        out: Tensor = x + self.body(x)
        return out


def vq_encoder(in_chans: int, width: int, dim: int, patch_size: int) -> nn.Sequential:
    """Images ``(B, C, H, W)`` to maps ``(B, dim, H / p, W / p)``, by convolutions of stride 2.

    Raises:
        ValueError: If ``patch_size`` is no power of two, or under 2.
    """
    halvings = int(math.log2(patch_size)) if patch_size > 1 else 0
    if halvings < 1 or 2**halvings != patch_size:
        raise ValueError(f"`patch_size` must be a power of two, at least 2, got {patch_size}.")
    layers: list[nn.Module] = []
    for _ in range(halvings):
        layers += [nn.Conv2d(in_chans, width, 4, stride=2, padding=1), nn.SiLU()]
        in_chans = width
    return nn.Sequential(*layers, Residual(width), Residual(width), nn.Conv2d(width, dim, 1))


def vq_decoder(out_chans: int, width: int, dim: int, patch_size: int) -> nn.Sequential:
    """Maps ``(B, dim, h, w)`` to images ``(B, out_chans, h p, w p)``; mirrors :func:`vq_encoder`."""
    layers: list[nn.Module] = [nn.Conv2d(dim, width, 1), Residual(width), Residual(width)]
    for _ in range(int(math.log2(patch_size)) - 1):
        layers += [nn.ConvTranspose2d(width, width, 4, stride=2, padding=1), nn.SiLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(width, out_chans, 4, stride=2, padding=1))
