"""The exponential moving average of a student's weights.

The teacher of BYOL (https://arxiv.org/abs/2006.07733), MoCo (https://arxiv.org/abs/1911.05722) and
DINO (https://arxiv.org/abs/2104.14294): ``t <- m t + (1 - m) s``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Buffers = Literal["copy", "keep"]


@torch.no_grad()
def ema_update(
    teacher: nn.Module, student: nn.Module, momentum: float, *, buffers: Buffers = "copy"
) -> None:
    """Move a teacher's parameters towards its student's, in a few kernels for all of them.

    Args:
        teacher: Changed in place; its parameters have the student's names and shapes.
        student: Only read.
        momentum: m, in [0, 1]: 0 copies the student, 1 leaves the teacher.
        buffers: ``"copy"`` takes over the student's buffers, whatever their dtype (running
            statistics then belong to the newest student); ``"keep"`` leaves the teacher's, as the
            official codes of MoCo v3, DINO and I-JEPA do.

    Raises:
        ValueError: If ``momentum`` is out of range, or names or shapes differ.

    Example:
        >>> teacher, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(teacher.weight, 1.0), nn.init.constant_(student.weight, 2.0)
        >>> ema_update(teacher, student, 0.75)
        >>> teacher.weight.item()
        1.25
    """
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"`momentum` must be in [0, 1], got {momentum}.")
    old, new = _pairs(dict(teacher.named_parameters()), dict(student.named_parameters()))
    if old and momentum < 1.0:
        torch._foreach_lerp_(old, _like(new, old), 1.0 - momentum)
    if buffers == "copy":
        for target, source in zip(*_pairs(_buffers(teacher), _buffers(student)), strict=True):
            target.copy_(source)


def _pairs(
    teacher: dict[str, Tensor], student: dict[str, Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    if teacher.keys() != student.keys():
        odd = sorted(teacher.keys() ^ student.keys())
        raise ValueError(f"Teacher and student differ in {odd[:5]}; make one a copy of the other.")
    for name, tensor in teacher.items():
        if tensor.shape != student[name].shape:
            raise ValueError(
                f"{name!r} has shape {tuple(tensor.shape)} in the teacher and "
                f"{tuple(student[name].shape)} in the student."
            )
    return list(teacher.values()), [student[name] for name in teacher]


def _like(new: list[Tensor], old: list[Tensor]) -> list[Tensor]:
    """A teacher may be kept in another dtype or on another device than its student."""
    return [
        n.to(o) if (n.dtype, n.device) != (o.dtype, o.device) else n
        for n, o in zip(new, old, strict=True)
    ]


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_buffers())
