"""Shuffled BatchNorm: keys are normalised among other images than their queries.

He et al., "Momentum Contrast", CVPR 2020, section 3.3. https://arxiv.org/abs/1911.05722
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from spt_losses import gather_rows
from torch import Tensor

from spt_methods.masking.seeded import SeededMasking


class BatchShuffle(SeededMasking):
    """Encodes a batch after exchanging its images with those of other ranks.

    The order comes from a generator keyed by (seed, draw), the same on every rank. With one process
    there is nobody to exchange with, and the images are encoded as they are.

    Args:
        seed: First part of the key.

    Note:
        Ranks hold equally many images.
    """

    def forward(self, encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """What ``encode`` gives for ``images`` ``(N, ...)``, without gradient, in their order."""
        with torch.no_grad():
            if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
                return encode(images)
            rank, world, size = dist.get_rank(), dist.get_world_size(), len(images)
            generator = self.next_generator(torch.device("cpu"), shared=True)
            order = torch.randperm(world * size, generator=generator).to(images.device)
            mine = gather_rows(images)[order.chunk(world)[rank]]
            encoded = gather_rows(encode(mine))
            return encoded[order.argsort()[rank * size : (rank + 1) * size]]
