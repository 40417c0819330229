"""Learning-rate schedules with a linear warm-up, each a closed-form function of the step.

A schedule gives the multiplier of each group's initial rate at a step, so resuming, jumping and
``state_dict`` round trips give the same value. Warm-up from Goyal et al., 2017
(https://arxiv.org/abs/1706.02677); cosine from Loshchilov & Hutter, 2017, eq. 5
(https://arxiv.org/abs/1608.03983).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def peak(total_steps: int, peak_step: float) -> int:
    """The step at which warm-up ends: ``peak_step`` itself, or that fraction of the total.

    Raises:
        ValueError: If there are no steps, or the peak lies outside them.
    """
    if total_steps < 1:
        raise ValueError(f"`total_steps` must be >= 1, got {total_steps}.")
    step = int(peak_step * total_steps) if 0 <= peak_step < 1 else int(peak_step)
    if not 0 <= step <= total_steps:
        raise ValueError(
            f"`peak_step` must be a fraction in [0, 1) or a step in [1, {total_steps}], "
            f"got {peak_step}."
        )
    return step


def warmup(step: int, peak_step: int, start_factor: float) -> float:
    """Multiplier on the line from ``start_factor`` at step 0 to 1 at ``peak_step``."""
    if step >= peak_step:
        return 1.0
    return start_factor + (1.0 - start_factor) * step / peak_step


def cosine(step: int, first: int, last: int) -> float:
    """Half cosine from 1 at ``first`` to 0 at ``last``; constant outside."""
    done = min(max((step - first) / max(last - first, 1), 0.0), 1.0)
    return 0.5 * (1.0 + math.cos(math.pi * done))


def LinearWarmup(
    optimizer: Optimizer,
    total_steps: int,
    start_factor: float = 0.01,
    peak_step: float = 0.1,
) -> LambdaLR:
    """Warm up to the initial rate, then hold it.

    Args:
        optimizer: Whose groups' initial rates are scaled.
        total_steps: Steps of the whole run.
        start_factor: Multiplier at step 0.
        peak_step: Where warm-up ends: a step, or a fraction of ``total_steps`` below 1.

    Raises:
        ValueError: If ``total_steps`` or ``peak_step`` is out of range.
    """
    top = peak(total_steps, peak_step)
    return LambdaLR(optimizer, lambda step: warmup(step, top, start_factor))


def LinearWarmupCosineAnnealing(
    optimizer: Optimizer,
    total_steps: int,
    start_factor: float = 0.01,
    end_lr: float = 0.0,
    peak_step: float = 0.01,
) -> LambdaLR:
    """Warm up to the initial rate, then follow half a cosine down to ``end_lr``.

    Args:
        optimizer: Whose groups' initial rates are scaled.
        total_steps: Steps of the whole run; the rate stays at ``end_lr`` after them.
        start_factor: Multiplier at step 0.
        end_lr: Rate at the end, the same for every group.
        peak_step: Where warm-up ends: a step, or a fraction of ``total_steps`` below 1.

    Raises:
        ValueError: If ``total_steps`` or ``peak_step`` is out of range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> schedule = LinearWarmupCosineAnnealing(optimizer, total_steps=10, peak_step=2)
        >>> rates = []
        >>> for _ in range(10):
        ...     rates.append(round(optimizer.param_groups[0]["lr"], 2))
        ...     optimizer.step()
        ...     schedule.step()
        >>> rates
        [0.01, 0.51, 1.0, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04]
    """
    top = peak(total_steps, peak_step)

    def multiplier(floor: float) -> Callable[[int], float]:
        def at(step: int) -> float:
            if step < top:
                return warmup(step, top, start_factor)
            return floor + (1.0 - floor) * cosine(step, top, total_steps)

        return at

    return LambdaLR(optimizer, [multiplier(_ratio(end_lr, lr)) for lr in initial_rates(optimizer)])


def LinearWarmupCyclicAnnealing(
    optimizer: Optimizer,
    total_steps: int,
    start_factor: float = 0.01,
    peak_step: float = 0.1,
) -> LambdaLR:
    """Warm up, then decay linearly with three cycles of a sine on top, as :func:`CosineDecayer`.

    Args:
        optimizer: Whose groups' initial rates are scaled.
        total_steps: Steps of the whole run.
        start_factor: Multiplier at step 0.
        peak_step: Where warm-up ends: a step, or a fraction of ``total_steps`` below 1.

    Raises:
        ValueError: If ``total_steps`` or ``peak_step`` is out of range.
    """
    top = peak(total_steps, peak_step)
    decay = CosineDecayer(max(total_steps - top, 1))
    return LambdaLR(
        optimizer,
        lambda step: warmup(step, top, start_factor) if step < top else decay(step - top),
    )


def LinearWarmupThreeStepsAnnealing(
    optimizer: Optimizer,
    total_steps: int,
    start_factor: float = 0.001,
    gamma: float = 0.3,
    peak_step: float = 0.05,
) -> LambdaLR:
    """Warm up, then multiply by ``gamma`` at 40, 60 and 80 % of the remaining steps.

    Args:
        optimizer: Whose groups' initial rates are scaled.
        total_steps: Steps of the whole run.
        start_factor: Multiplier at step 0.
        gamma: Factor of each drop.
        peak_step: Where warm-up ends: a step, or a fraction of ``total_steps`` below 1.

    Raises:
        ValueError: If ``total_steps`` or ``peak_step`` is out of range.
    """
    top = peak(total_steps, peak_step)
    drops = [top + round(share * (total_steps - top)) for share in (0.4, 0.6, 0.8)]

    def at(step: int) -> float:
        return warmup(step, top, start_factor) * gamma ** sum(step >= drop for drop in drops)

    return LambdaLR(optimizer, at)


class CosineDecayer:
    """Multiplier ``(1 - s/S) * (1 + sin(2 pi n s/S) / 2)`` at step ``s`` of ``S``.

    Args:
        total_steps: S, at least 1; the multiplier is 0 from there on.
        n_cycles: n, cycles of the sine.

    Raises:
        ValueError: If ``total_steps`` is below 1.
    """

    def __init__(self, total_steps: int, n_cycles: int = 3) -> None:
        if total_steps < 1:
            raise ValueError(f"`total_steps` must be >= 1, got {total_steps}.")
        self.total_steps = total_steps
        self.n_cycles = n_cycles

    def __call__(self, step: int) -> float:
        """The multiplier at a step."""
        done = min(step / self.total_steps, 1.0)
        return (1.0 - done) * (1.0 + 0.5 * math.sin(2.0 * math.pi * self.n_cycles * done))


def initial_rates(optimizer: Optimizer) -> Sequence[float]:
    """The rate of each group before any schedule moved it."""
    return [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]


def _ratio(end_lr: float, lr: float) -> float:
    return end_lr / lr if lr else 0.0
