"""The temperature of a teacher, sharp at first."""

from __future__ import annotations

from typing import Any

from spt_methods.schedule import Schedule


def teacher_temperature(module: Any, default: float) -> float:
    """The temperature of the current epoch: linear over the warm-up epochs, then constant.

    The end is reached in the last epoch of the warm-up, as in the official code of DINO.

    Args:
        module: With ``temperature_teacher``, ``warmup_temperature_teacher`` and
            ``warmup_epochs_temperature_teacher``; without all three, ``default`` counts.
        default: A constant.
    """
    names = ("warmup_temperature_teacher", "temperature_teacher")
    ends = [getattr(module, name, None) for name in names]
    epochs = getattr(module, "warmup_epochs_temperature_teacher", None)
    if None in ends or epochs is None:
        return default
    return Schedule(ends[0], ends[1], "linear").at(module.current_epoch, epochs - 1)
