"""Values that follow the step: weight decay, momentum, temperatures, rates.

Plain functions, so a resumed run needs no state: the value at a step is the value at that step.
"""

from __future__ import annotations

import math


def linear_value(step: float, total_steps: float, start: float, end: float) -> float:
    """On the line from ``start`` at step 0 to ``end`` at ``total_steps``; constant after it.

    The momentum of I-JEPA's teacher, among others (https://arxiv.org/abs/2301.08243).

    Example:
        >>> linear_value(5, 10, start=0.996, end=1.0)
        0.998
    """
    return start + (end - start) * _done(step, total_steps)


def cosine_value(step: float, total_steps: float, start: float, end: float) -> float:
    """On half a cosine from ``start`` at step 0 to ``end`` at ``total_steps``; constant after it.

    Weight decay and teacher momentum of DINO (https://arxiv.org/abs/2104.14294), momentum of BYOL
    and MoCo v3.

    Example:
        >>> [round(cosine_value(step, 10, start=0.04, end=0.4), 3) for step in (0, 5, 10)]
        [0.04, 0.22, 0.4]
    """
    weight = 0.5 * (1.0 + math.cos(math.pi * _done(step, total_steps)))
    return end + (start - end) * weight


def warmup_cosine_value(
    step: float,
    total_steps: float,
    peak: float,
    end: float,
    *,
    warmup_steps: float,
    start: float = 0.0,
) -> float:
    """From ``start`` linearly to ``peak`` at ``warmup_steps``, then half a cosine to ``end``.

    The learning rate of MAE, MoCo v3 and I-JEPA. (DINO's reaches its peak one step earlier.)

    Example:
        >>> [round(warmup_cosine_value(s, 8, 1.0, 0.0, warmup_steps=4), 2) for s in (0, 2, 4, 6, 8)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return linear_value(step, warmup_steps, start, peak)
    return cosine_value(step - warmup_steps, total_steps - warmup_steps, peak, end)


def _done(step: float, total_steps: float) -> float:
    if not total_steps > 0:
        raise ValueError(f"`total_steps` must be > 0, got {total_steps}.")
    if step < 0:
        raise ValueError(f"`step` must be >= 0, got {step}.")
    return min(step / total_steps, 1.0)
