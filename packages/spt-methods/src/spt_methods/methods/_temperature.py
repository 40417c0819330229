"""The temperature of a teacher, sharp at first."""

from __future__ import annotations

from typing import Any

from spt_methods.epochs import epoch_of
from spt_methods.schedule import Schedule


def teacher_temperature(module: Any, default: float, kind: str = "teacher") -> float:
    """The temperature of the current epoch: linear over the warm-up epochs, then constant.

    The end is reached in the last epoch of the warm-up, as in the official code of DINO.

    Args:
        module: With ``temperature_teacher``, ``warmup_temperature_teacher`` and
            ``warmup_epochs_temperature_teacher``; without all three, ``default`` counts.
        default: A constant.
        kind: ``"patch_teacher"`` for the two temperatures of patches, named so instead.

    Raises:
        ValueError: In training with a warm-up, if epochs may never end.
    """
    start = getattr(module, f"warmup_temperature_{kind}", None)
    end = getattr(module, f"temperature_{kind}", None)
    epochs = getattr(module, "warmup_epochs_temperature_teacher", None)
    if start is None or end is None or epochs is None:
        return default
    if epochs <= 1 or start == end:
        return float(end)
    epoch = epoch_of(module, "The warm-up of the teacher's temperature")
    return Schedule(start, end, "linear").at(epoch, epochs - 1)
