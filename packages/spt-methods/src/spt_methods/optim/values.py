"""Values of parameter groups that follow the step, and clipping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from spt_methods.optim.grammar import Clip
from spt_methods.schedule import Schedule


def write_values(
    optimizer: Optimizer, schedules: Mapping[str, Schedule], step: int, total: int
) -> None:
    """Write this step's values into the groups.

    Groups whose values differ keep their ratios, the largest following the schedule; a value of 0
    (no weight decay) stays. ``"momentum"`` is the first of ``betas`` for Adam and its kin.

    Raises:
        ValueError: If the optimizer has no such value.
    """
    for key, schedule in schedules.items():
        value = schedule.at(step, total)
        groups = optimizer.param_groups
        if key == "momentum" and "betas" in groups[0]:
            for group in groups:
                group["betas"] = (value, *group["betas"][1:])
            continue
        if key not in groups[0]:
            raise ValueError(
                f"{type(optimizer).__name__} has no {key!r} to schedule; it has "
                f"{sorted(k for k in groups[0] if k != 'params')}."
            )
        for group in groups:  # as `initial_lr` of torch's schedulers, saved with the optimizer
            group.setdefault(f"initial_{key}", group[key])
        largest = max(group[f"initial_{key}"] for group in groups)
        for group in groups:
            if group[f"initial_{key}"] > 0:
                group[key] = value * (group[f"initial_{key}"] / largest)


def clip(parameters: Iterable[Tensor], value: float, algorithm: Clip) -> None:
    """Clip gradients by their common norm, by value, or each by its own norm as DINO.

    Args:
        parameters: Whose gradients.
        value: Limit, above 0.
        algorithm: See :class:`Entry`.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return
    if algorithm == "value":
        torch._foreach_clamp_min_(grads, -value)
        torch._foreach_clamp_max_(grads, value)
    elif algorithm == "norm":
        norm = torch.stack(list(torch._foreach_norm(grads))).norm()
        torch._foreach_mul_(grads, (value / (norm + 1e-6)).clamp(max=1.0))
    else:  # utils.py of https://github.com/facebookresearch/dino
        factors: Any = torch._foreach_add(torch._foreach_norm(grads), 1e-6)
        torch._foreach_reciprocal_(factors)
        torch._foreach_mul_(factors, value)
        torch._foreach_clamp_max_(factors, 1.0)
        torch._foreach_mul_(grads, factors)
