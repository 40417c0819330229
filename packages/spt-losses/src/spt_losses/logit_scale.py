"""A learnable multiplier of similarities.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
ICML 2021, section 2.5. https://arxiv.org/abs/2103.00020
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spt_losses._checks import check_positive


class LogitScale(nn.Module):
    """``exp(s)`` with a learnable ``s``, capped.

    The value never exceeds ``max_scale``. Beyond the cap ``s`` still receives its gradient, so
    that it can come back; the optimizer's parameters are not written to.

    Args:
        init_scale: Value at the start; CLIP's is ``1 / 0.07``.
        max_scale: The cap, at least ``init_scale``.

    Example:
        >>> round(LogitScale()().item(), 2)
        14.29
    """

    def __init__(self, init_scale: float = 1 / 0.07, max_scale: float = 100.0) -> None:
        super().__init__()
        check_positive("init_scale", init_scale)
        if max_scale < init_scale:
            raise ValueError(
                f"`max_scale` must be at least `init_scale`, got {max_scale} and {init_scale}."
            )
        self.max_scale = max_scale
        self.log_scale = nn.Parameter(torch.tensor(math.log(init_scale)))

    def forward(self) -> Tensor:
        """The multiplier, a scalar."""
        excess = (self.log_scale - math.log(self.max_scale)).clamp(min=0)
        return (self.log_scale - excess.detach()).exp()

    def extra_repr(self) -> str:
        """Settings shown by ``repr``."""
        return f"max_scale={self.max_scale}"
