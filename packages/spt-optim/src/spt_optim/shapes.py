"""Multipliers of a rate as functions of the step: small objects that can be pickled and saved.

Warm-up from Goyal et al., 2017 (https://arxiv.org/abs/1706.02677); cosine from Loshchilov & Hutter,
2017, eq. 5 (https://arxiv.org/abs/1608.03983).
"""

from __future__ import annotations

import math
from dataclasses import dataclass


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


class CosineDecayer:
    """Multiplier ``(1 - s/S) * (1 + gamma * sin(2 pi n s/S))`` at step ``s`` of ``S``.

    Args:
        total_steps: S, at least 1; the multiplier is 0 from there on.
        n_cycles: n, cycles of the sine.
        gamma: Height of the sine, in [0, 1]: how far the multiplier swings about the line.

    Raises:
        ValueError: If ``total_steps`` or ``gamma`` is out of range.

    Example:
        >>> round(CosineDecayer(12, n_cycles=1, gamma=0.2)(3), 6)  # 0.75 * 1.2
        0.9
    """

    def __init__(self, total_steps: int, n_cycles: int = 3, gamma: float = 0.5) -> None:
        if total_steps < 1:
            raise ValueError(f"`total_steps` must be >= 1, got {total_steps}.")
        if not 0 <= gamma <= 1:
            raise ValueError(f"`gamma` must be in [0, 1], got {gamma}.")
        self.total_steps = total_steps
        self.n_cycles = n_cycles
        self.gamma = gamma

    def __call__(self, step: int) -> float:
        """The multiplier at a step."""
        done = min(step / self.total_steps, 1.0)
        return (1.0 - done) * (1.0 + self.gamma * math.sin(2.0 * math.pi * self.n_cycles * done))


@dataclass
class Warmup:
    """From ``start`` to 1 at step ``top``, then 1."""

    top: int
    start: float

    def __call__(self, step: int) -> float:
        """The multiplier at a step."""
        return warmup(step, self.top, self.start)


@dataclass
class WarmupCosine:
    """From ``start`` to 1 at step ``top``, then half a cosine to ``floor`` at ``last``."""

    top: int
    last: int
    start: float
    floor: float

    def __call__(self, step: int) -> float:
        """The multiplier at a step."""
        if step < self.top:
            return warmup(step, self.top, self.start)
        return self.floor + (1.0 - self.floor) * cosine(step, self.top, self.last)


@dataclass
class WarmupCyclic:
    """From ``start`` to 1 at step ``top``, then :class:`CosineDecayer` over ``rest`` steps."""

    top: int
    rest: int
    start: float

    def __call__(self, step: int) -> float:
        """The multiplier at a step."""
        if step < self.top:
            return warmup(step, self.top, self.start)
        return CosineDecayer(self.rest)(step - self.top)


@dataclass
class WarmupDrops:
    """From ``start`` to 1 at step ``top``, then times ``gamma`` at each of the ``drops``."""

    top: int
    drops: tuple[int, ...]
    start: float
    gamma: float

    def __call__(self, step: int) -> float:
        """The multiplier at a step."""
        passed = sum(step >= drop for drop in self.drops)
        return warmup(step, self.top, self.start) * self.gamma**passed
