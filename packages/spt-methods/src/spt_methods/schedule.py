"""A value that follows the step: weight decay, momentum, temperatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from spt_optim import cosine_value, linear_value

Shape = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """From ``start`` at step 0 to ``end`` at the last, and ``end`` from then on.

    A plain function of the step, so a resumed run needs no state.

    Args:
        start: Value at step 0.
        end: Value at the end.
        shape: ``"cosine"`` (half a period), ``"linear"`` or ``"constant"`` (``start``).

    Raises:
        ValueError: If ``shape`` is unknown.

    Example:
        >>> [Schedule(1.0, 0.0).at(step, 10) for step in (0, 10, 12)]
        [1.0, 0.0, 0.0]
        >>> Schedule(0.04, 0.07, "linear").at(0, 0)  # no step to warm up in
        0.07
    """

    start: float
    end: float
    shape: Shape = "cosine"

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise ValueError(f"`shape` must be one of {get_args(Shape)}, got {self.shape!r}.")

    def at(self, step: float, total: float) -> float:
        """The value.

        Args:
            step: Steps (or epochs) done.
            total: When the end is reached; at or below 0 it is reached at once.
        """
        if self.shape == "constant":
            return self.start
        if total <= 0 or step >= total:
            return self.end
        curve = cosine_value if self.shape == "cosine" else linear_value
        return curve(step, total, self.start, self.end)


def as_schedule(value: Any, name: str) -> Schedule:
    """A schedule from itself, from ``(start, end)``, from a mapping, or from a number.

    Raises:
        TypeError: If it is of another kind.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, (int, float)):
        return Schedule(float(value), float(value), "constant")
    if isinstance(value, Mapping):
        return Schedule(**value)
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return Schedule(float(value[0]), float(value[1]))
    raise TypeError(
        f"The schedule of {name!r} must be a Schedule, (start, end), a mapping or a number, got "
        f"{value!r}."
    )
