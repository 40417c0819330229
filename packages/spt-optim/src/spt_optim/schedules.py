"""Learning-rate schedules with a linear warm-up, each a closed-form function of the step.

A schedule gives the multiplier of each group's initial rate at a step, so resuming, jumping and
``state_dict`` round trips give the same value, and a schedule can be pickled. A step is whatever the
caller counts: optimizer steps, or epochs with ``total_steps`` the number of epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from spt_optim.shapes import Warmup, WarmupCosine, WarmupCyclic, WarmupDrops, peak


def LinearWarmup(
    optimizer: Optimizer,
    total_steps: int,
    start_factor: float = 0.01,
    peak_step: float = 0.1,
    last_epoch: int = -1,
) -> LambdaLR:
    """Warm up to the initial rate, then hold it.

    Args:
        optimizer: Whose groups' initial rates are scaled.
        total_steps: Steps of the whole run.
        start_factor: Multiplier at step 0.
        peak_step: Where warm-up ends: a step, or a fraction of ``total_steps`` below 1.
        last_epoch: The last step already made, as in torch's schedulers; -1 starts.

    Raises:
        ValueError: If ``total_steps`` or ``peak_step`` is out of range.
    """
    return LambdaLR(optimizer, Warmup(peak(total_steps, peak_step), start_factor), last_epoch)


def LinearWarmupCosineAnnealing(
    optimizer: Optimizer,
    total_steps: int,
    start_factor: float = 0.01,
    end_lr: float = 0.0,
    peak_step: float = 0.01,
    last_epoch: int = -1,
) -> LambdaLR:
    """Warm up to the initial rate, then follow half a cosine down to ``end_lr``.

    Args:
        optimizer: Whose groups' initial rates are scaled.
        total_steps: Steps of the whole run; the rate stays at ``end_lr`` after them.
        start_factor: Multiplier at step 0.
        end_lr: Rate at the end, the same for every group.
        peak_step: Where warm-up ends: a step, or a fraction of ``total_steps`` below 1.
        last_epoch: The last step already made, as in torch's schedulers; -1 starts.

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
    shapes: list[Callable[[int], float]] = [
        WarmupCosine(top, total_steps, start_factor, end_lr / lr if lr else 0.0)
        for lr in initial_rates(optimizer)
    ]
    return LambdaLR(optimizer, shapes, last_epoch)


def LinearWarmupCyclicAnnealing(
    optimizer: Optimizer,
    total_steps: int,
    start_factor: float = 0.01,
    peak_step: float = 0.1,
    last_epoch: int = -1,
) -> LambdaLR:
    """Warm up, then decay linearly with three cycles of a sine on top, as :class:`CosineDecayer`.

    Args:
        optimizer: Whose groups' initial rates are scaled.
        total_steps: Steps of the whole run.
        start_factor: Multiplier at step 0.
        peak_step: Where warm-up ends: a step, or a fraction of ``total_steps`` below 1.
        last_epoch: The last step already made, as in torch's schedulers; -1 starts.

    Raises:
        ValueError: If ``total_steps`` or ``peak_step`` is out of range.
    """
    top = peak(total_steps, peak_step)
    shape = WarmupCyclic(top, max(total_steps - top, 1), start_factor)
    return LambdaLR(optimizer, shape, last_epoch)


def LinearWarmupThreeStepsAnnealing(
    optimizer: Optimizer,
    total_steps: int,
    start_factor: float = 0.001,
    gamma: float = 0.3,
    peak_step: float = 0.05,
    last_epoch: int = -1,
) -> LambdaLR:
    """Warm up, then multiply by ``gamma`` at 40, 60 and 80 % of the remaining steps.

    Args:
        optimizer: Whose groups' initial rates are scaled.
        total_steps: Steps of the whole run.
        start_factor: Multiplier at step 0.
        gamma: Factor of each drop.
        peak_step: Where warm-up ends: a step, or a fraction of ``total_steps`` below 1.
        last_epoch: The last step already made, as in torch's schedulers; -1 starts.

    Raises:
        ValueError: If ``total_steps`` or ``peak_step`` is out of range.
    """
    top = peak(total_steps, peak_step)
    drops = tuple(top + round(share * (total_steps - top)) for share in (0.4, 0.6, 0.8))
    return LambdaLR(optimizer, WarmupDrops(top, drops, start_factor, gamma), last_epoch)


def initial_rates(optimizer: Optimizer) -> Sequence[float]:
    """The rate of each group before any schedule moved it."""
    return [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
