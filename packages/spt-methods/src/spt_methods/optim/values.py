"""Values that follow the step, of parameter groups and of modules, and clipping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spt_methods.optim.grammar import Clip
from spt_methods.schedule import Schedule


def split_schedules(
    module: nn.Module, optimizer: Optimizer, schedules: Mapping[str, Schedule]
) -> tuple[dict[str, Schedule], dict[str, Schedule]]:
    """The schedules of the optimizer's values, and those of numbers that the module holds.

    Raises:
        ValueError: If neither has such a value.
    """
    group = optimizer.param_groups[0]
    known = {*group, "momentum"} if "betas" in group else {*group}
    own = {key: schedule for key, schedule in schedules.items() if key in known - {"params"}}
    rest = {key: schedule for key, schedule in schedules.items() if key not in own}
    for key in rest:
        if not _is_number(_held(module, key)):
            raise ValueError(
                f"{type(optimizer).__name__} has no {key!r} to schedule; it has "
                f"{sorted(k for k in group if k != 'params')}. Nor does {type(module).__name__} hold a "
                "number there; that of a part is given by its path, as 'simclr_loss.temperature'."
            )
    return own, rest


def write_numbers(
    module: nn.Module, schedules: Mapping[str, Schedule], step: int, total: int
) -> None:
    """Write this step's values into the numbers that a module and its parts hold."""
    for key, schedule in schedules.items():
        owner, _, name = key.rpartition(".")
        setattr(_held(module, owner) if owner else module, name, schedule.at(step, total))


def _held(module: nn.Module, path: str) -> Any:
    """What is at a dotted path; ``None`` if there is nothing."""
    held: Any = module
    for name in path.split("."):
        held = getattr(held, name, None)
    return held


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def write_values(
    optimizer: Optimizer, schedules: Mapping[str, Schedule], step: int, total: int
) -> None:
    """Write this step's values into the groups.

    Groups whose values differ keep their ratios, the largest following the schedule; a value of 0
    (no weight decay) stays. ``"momentum"`` is the first of ``betas`` for Adam and its kin.

    Raises:
        ValueError: If a value is 0 in every group.
    """
    for key, schedule in schedules.items():
        value = schedule.at(step, total)
        groups = optimizer.param_groups
        if key == "momentum" and "betas" in groups[0]:
            for group in groups:
                group["betas"] = (value, *group["betas"][1:])
            continue
        for group in groups:  # as `initial_lr` of torch's schedulers, saved with the optimizer
            group.setdefault(f"initial_{key}", group[key])
        largest = max(group[f"initial_{key}"] for group in groups)
        if largest == 0:
            raise ValueError(
                f"{key!r} has a schedule, but is 0 in every group of {type(optimizer).__name__}, where "
                "0 means none. Give the optimizer a value above 0, or leave the schedule out."
            )
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
        torch._foreach_clamp_min_(local(grads), -value)
        torch._foreach_clamp_max_(local(grads), value)
        return
    kinds = [[g for g in grads if is_sharded(g) == kind] for kind in (False, True)]
    kinds = [kind for kind in kinds if kind]  # one call takes tensors of one kind
    if algorithm == "norm":
        norms = [whole(torch.stack(list(torch._foreach_norm(kind))).norm()) for kind in kinds]
        scale(grads, (value / (torch.stack(norms).norm() + 1e-6)).clamp(max=1.0))
        return
    for kind in kinds:  # utils.py of https://github.com/facebookresearch/dino
        factors: Any = torch._foreach_add([whole(n) for n in torch._foreach_norm(kind)], 1e-6)
        torch._foreach_reciprocal_(factors)
        torch._foreach_mul_(factors, value)
        torch._foreach_clamp_max_(factors, 1.0)
        torch._foreach_mul_(local(kind), factors)


def scale(tensors: Sequence[Tensor], factor: Any) -> None:
    """Multiply tensors by one factor, in place, sharded ones and whole ones together."""
    torch._foreach_mul_(local(tensors), factor)


def is_sharded(tensor: Any) -> bool:
    """Whether it is a DTensor, of which each rank holds a part."""
    return hasattr(tensor, "to_local")


def local(tensors: Sequence[Any]) -> list[Tensor]:
    """This rank's part of each; it shares its memory."""
    return [tensor.to_local() if is_sharded(tensor) else tensor for tensor in tensors]


def whole(tensor: Any) -> Tensor:
    """A small tensor's value on all ranks."""
    value: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return value
