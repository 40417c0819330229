"""Values that follow the step: weight decay, momentum, temperatures, rates.

Plain functions, so a resumed run needs no state: the value at a step is the value at that step.
"""

from __future__ import annotations

import math
from typing import Literal


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
    early_peak: bool = False,
) -> float:
    """From ``start`` linearly to ``peak`` at ``warmup_steps``, then half a cosine to ``end``.

    The learning rate of MAE, MoCo v3 and I-JEPA. With ``early_peak`` the peak is reached on the last
    step of the warm-up already, and comes twice, as in DINO, DINOv2 and BEiT.

    Example:
        >>> [round(warmup_cosine_value(s, 8, 1.0, 0.0, warmup_steps=4), 2) for s in (0, 2, 4, 6, 8)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        line = max(warmup_steps - 1, 1) if early_peak else warmup_steps
        return linear_value(step, line, start, peak)
    if warmup_steps >= total_steps:
        return peak
    return cosine_value(step - warmup_steps, total_steps - warmup_steps, peak, end)


def scale_lr(
    lr: float,
    batch_size: int,
    *,
    base_batch_size: int = 256,
    rule: Literal["linear", "sqrt"] = "linear",
) -> float:
    """The rate for a global batch, from the rate given for ``base_batch_size`` samples.

    Linear: Goyal et al., 2017 (https://arxiv.org/abs/1706.02677), as in SimCLR, BYOL and MAE.
    Square root: Krizhevsky, 2014 (https://arxiv.org/abs/1404.5997), as in DINOv2.

    Args:
        lr: Rate at the base batch.
        batch_size: Samples per optimizer step: over all ranks and accumulated micro-batches.
        base_batch_size: Samples per step for which ``lr`` was given.
        rule: How the rate grows with the batch.

    Raises:
        ValueError: If a batch size is below 1 or the rule is unknown.

    Example:
        >>> scale_lr(0.3, 4096)
        4.8
        >>> scale_lr(0.004, 256, base_batch_size=1024, rule="sqrt")
        0.002
    """
    if batch_size < 1 or base_batch_size < 1:
        raise ValueError(f"Batch sizes must be >= 1, got {batch_size} and {base_batch_size}.")
    ratio = batch_size / base_batch_size
    if rule == "linear":
        return lr * ratio
    if rule == "sqrt":
        return lr * math.sqrt(ratio)
    raise ValueError(f"`rule` must be 'linear' or 'sqrt', got {rule!r}.")


def _done(step: float, total_steps: float) -> float:
    if not total_steps > 0:
        raise ValueError(f"`total_steps` must be > 0, got {total_steps}.")
    if step < 0:
        raise ValueError(f"`step` must be >= 0, got {step}.")
    return min(step / total_steps, 1.0)
