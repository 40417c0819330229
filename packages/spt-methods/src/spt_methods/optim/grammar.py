"""The forms that ``optim`` may have, brought into one."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from spt_methods.schedule import Schedule, as_schedule

FROZEN = "frozen"
Clip = Literal["norm", "value", "norm_per_parameter"]


@dataclass(frozen=True)
class Entry:
    """One optimizer: its parameters, its schedule, and when it steps.

    Attributes:
        optimizer: As ``spt_optim.create_optimizer`` takes it.
        scheduler: As ``spt_optim.create_scheduler`` takes it; ``None`` for none.
        modules: Regular expression for the names of its modules; the rest if ``None``.
        interval: Whether the scheduler counts optimizer steps or epochs.
        frequency: Batches per optimizer step; the Trainer's accumulation if ``None``.
        scheduler_frequency: Optimizer steps (or epochs) per step of the scheduler.
        monitor: Metric of ``ReduceLROnPlateau``; may also stand among the scheduler's own arguments.
        gradient_clip_val: Largest norm or value of gradients; the Trainer's if ``None``.
        gradient_clip_algorithm: ``"norm"``, ``"value"``, or ``"norm_per_parameter"``, as DINO.
        exclude_bias_norm: No weight decay for biases, norms, positions, tokens and what the
            module's ``no_weight_decay()`` names.
        groups: Options of parameter groups, by kind (``"norm"``, ``"bias"``, ``"position"``,
            ``"token"``) or by a regular expression for names; besides the optimizer's own,
            ``lr_factor`` multiplies the rate.
        layer_decay: Factor of the rate per layer below the last, for transformers.
        patch_embed_factor: Further factor of the patch embedding's rate.
        schedules: Values that follow the optimizer step: ``"weight_decay"``, ``"momentum"``, or a
            number that the module or one of its parts holds, by its path, such as
            ``"simclr_loss.temperature"``. Each is given as a ``Schedule``, ``(start, end)``, or a
            mapping with ``start``, ``end`` and ``shape``.
    """

    optimizer: Any
    scheduler: Any = "CosineAnnealingLR"
    modules: str | None = None
    interval: Literal["step", "epoch"] = "step"
    frequency: int | None = None
    scheduler_frequency: int = 1
    monitor: str = "val_loss"
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: Clip = "norm"
    exclude_bias_norm: bool | None = None
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    layer_decay: float | None = None
    patch_embed_factor: float = 1.0
    schedules: Mapping[str, Schedule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.interval not in ("step", "epoch"):
            raise ValueError(f"`interval` must be 'step' or 'epoch', got {self.interval!r}.")
        for name in ("frequency", "scheduler_frequency"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"`{name}` must be an integer >= 1, got {value!r}.")
        if self.gradient_clip_algorithm not in get_args(Clip):
            raise ValueError(
                f"`gradient_clip_algorithm` must be one of {get_args(Clip)}, got "
                f"{self.gradient_clip_algorithm!r}."
            )
        if self.gradient_clip_val is not None and self.gradient_clip_val < 0:
            raise ValueError(f"`gradient_clip_val` must be >= 0, got {self.gradient_clip_val}.")


KEYS = tuple(f.name for f in fields(Entry))


def normalise_optim(optim: Any) -> tuple[dict[str, Entry], str | None]:
    """The grammar in one form.

    Args:
        optim: ``None``, ``False`` or empty: no optimizer. A name, a class, a partial or a function:
            that optimizer with a cosine schedule. A mapping with ``optimizer`` and optionally what
            :class:`Entry` has. Or a mapping of names to such mappings, each with ``modules``, one
            of which may leave it out to take the rest; the name ``"frozen"`` holds a regular
            expression for what no optimizer is to take.

    Returns:
        The optimizers by name, and the expression for what stays frozen.

    Raises:
        TypeError: If it, or a part of it, is of another kind.
        ValueError: If a key is unknown or a value is out of range.
    """
    if optim is None or optim is False or (isinstance(optim, Mapping) and not optim):
        return {}, None
    if isinstance(optim, (str, functools.partial, type, Callable)):  # type: ignore[arg-type]
        optim = {"optimizer": optim}
    if not isinstance(optim, Mapping):
        raise TypeError(
            "`optim` must be a name, a partial, a class, a mapping with `optimizer`, a mapping of "
            f"several, or None, got {type(optim).__name__}."
        )
    if "optimizer" in optim:
        return {"default_0": entry_of("optim", optim)}, None
    frozen = optim.get(FROZEN)
    named = {name: value for name, value in optim.items() if name != FROZEN}
    wrong = [name for name, value in named.items() if not isinstance(value, Mapping)]
    if wrong or not named:
        raise ValueError(
            "`optim` must have the key 'optimizer', or hold one mapping per optimizer, got "
            f"{sorted(map(str, optim))}."
        )
    if frozen is not None and not isinstance(frozen, str):
        raise TypeError(f"`optim['frozen']` must be a regular expression, got {frozen!r}.")
    entries = {name: entry_of(name, value) for name, value in named.items()}
    rest = [name for name, entry in entries.items() if entry.modules is None]
    if len(rest) > 1:
        raise ValueError(
            f"Only one optimizer may take the rest, got {rest} without `modules`. Give each a "
            "regular expression for the names of its modules."
        )
    return entries, frozen


def entry_of(name: str, value: Mapping[str, Any]) -> Entry:
    """One optimizer's entry, checked."""
    unknown = sorted(set(map(str, value)) - set(KEYS))
    if unknown or "optimizer" not in value:
        raise ValueError(
            f"{name!r} must have the key 'optimizer' and may have {list(KEYS[1:])}, got "
            f"{sorted(map(str, value))}."
        )
    given = dict(value)
    scheduler = given.get("scheduler")
    if isinstance(scheduler, Mapping) and "monitor" in scheduler:
        given["monitor"] = scheduler["monitor"]
        given["scheduler"] = {key: item for key, item in scheduler.items() if key != "monitor"}
    schedules = given.get("schedules", {})
    given["schedules"] = {key: as_schedule(item, key) for key, item in schedules.items()}
    pattern = given.get("modules")
    if pattern is not None:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(f"`modules` of {name!r}, {pattern!r}: {error}.") from error
    return Entry(**given)
