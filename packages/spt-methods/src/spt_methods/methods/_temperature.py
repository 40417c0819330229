"""The temperature of a teacher, sharp at first."""

from __future__ import annotations

from typing import Any

from spt_methods.schedule import Schedule


def teacher_temperature(module: Any, default: float, kind: str = "teacher") -> float:
    """The temperature of the current epoch: linear over the warm-up epochs, then constant.

    The end is reached in the last epoch of the warm-up, as in the official code of DINO.

    Args:
        module: With ``temperature_teacher``, ``warmup_temperature_teacher`` and
            ``warmup_epochs_temperature_teacher``; without all three, ``default`` counts.
        default: A constant.
        kind: ``"patch_teacher"`` for the two temperatures of patches, named so instead.
    """
    start = getattr(module, f"warmup_temperature_{kind}", None)
    end = getattr(module, f"temperature_{kind}", None)
    epochs = getattr(module, "warmup_epochs_temperature_teacher", None)
    if start is None or end is None or epochs is None:
        return default
    return Schedule(start, end, "linear").at(module.current_epoch, epochs - 1)
