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
    start = getattr(module, "warmup_temperature_teacher", None)
    end = getattr(module, "temperature_teacher", None)
    epochs = getattr(module, "warmup_epochs_temperature_teacher", None)
    if start is None or end is None or epochs is None:
        return default
    return Schedule(start, end, "linear").at(module.current_epoch, epochs - 1)
