"""Warm-up and cosine between absolute rates, as a scheduler class.

The cosine is that of Loshchilov & Hutter, 2017, eq. 5 (https://arxiv.org/abs/1608.03983).
"""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from spt_optim.values import warmup_cosine_value


class LinearWarmupCosineAnnealingLR(LRScheduler):
    """From ``warmup_start_lr`` to the group's rate at ``warmup_steps``, then a cosine to ``eta_min``.

    Args:
        optimizer: Whose groups' rates are moved.
        warmup_steps: Step at which the group's own rate is reached, in [0, ``max_steps``].
        max_steps: Step at which ``eta_min`` is reached; it stays there.
        warmup_start_lr: Rate at step 0, when there is a warm-up.
        eta_min: Rate at the end.
        last_epoch: The last step already made, as in torch's schedulers; -1 starts.

    Raises:
        ValueError: If ``max_steps`` or ``warmup_steps`` is out of range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> schedule = LinearWarmupCosineAnnealingLR(optimizer, warmup_steps=2, max_steps=4)
        >>> rates = []
        >>> for _ in range(5):
        ...     rates.append(round(schedule.get_last_lr()[0], 2))
        ...     optimizer.step()
        ...     schedule.step()
        >>> rates
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        max_steps: int,
        warmup_start_lr: float = 0.0,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if max_steps < 1:
            raise ValueError(f"`max_steps` must be >= 1, got {max_steps}.")
        if not 0 <= warmup_steps <= max_steps:
            raise ValueError(f"`warmup_steps` must be in [0, {max_steps}], got {warmup_steps}.")
        self.warmup_steps = warmup_steps
        self.max_steps = max_steps
        self.warmup_start_lr = warmup_start_lr
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The rate of each group at the present step."""
        return [
            warmup_cosine_value(
                self.last_epoch,
                self.max_steps,
                float(lr),
                self.eta_min,
                warmup_steps=self.warmup_steps,
                start=self.warmup_start_lr,
            )
            for lr in self.base_lrs
        ]
