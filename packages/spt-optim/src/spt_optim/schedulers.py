"""Schedulers from a configuration; only what is missing and required is filled in."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from spt_optim import schedules
from spt_optim._lookup import find, locate

SchedulerConfig = str | type[LRScheduler] | Callable[..., LRScheduler] | Mapping[str, Any]

HORIZONS = ("T_max", "total_steps", "max_steps", "total_iters")
"""Arguments that stand for the length of the run, filled in when required and not given."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 30},
    "ExponentialLR": {"gamma": 0.9},
}


def schedulers() -> dict[str, Callable[..., Any]]:
    """What ``create_scheduler`` knows by name: torch's schedulers and ours."""
    torch_names = {
        name: value
        for name, value in vars(lr_scheduler).items()
        if inspect.isclass(value)
        and issubclass(value, LRScheduler)
        and value is not LRScheduler
        and not name.startswith("_")
    }
    ours = {name: value for name, value in vars(schedules).items() if name.startswith("LinearWarm")}
    return {**torch_names, **ours}


def create_scheduler(
    optimizer: Optimizer,
    scheduler_config: SchedulerConfig | None,
    *,
    total_steps: int | None = None,
) -> Any:
    """Make a learning-rate scheduler from any of the usual ways to name one.

    Args:
        optimizer: Whose rates it moves.
        scheduler_config: One of

            - a name, ``"CosineAnnealingLR"``, or a dotted path;
            - a class; a ``functools.partial``; a function of the optimizer;
            - a mapping with ``type`` (default ``"CosineAnnealingLR"``) and keyword arguments;
              or with ``_target_``, a dotted path;
            - ``None``: no scheduler.
        total_steps: Length of the run in the scheduler's own steps. It fills a required
            argument such as ``T_max`` that is not given; nothing else is guessed.

    Returns:
        The scheduler, or ``None``.

    Raises:
        TypeError: If an argument is unknown, or required, missing and not a horizon.
        ValueError: If the name is unknown, or a horizon is needed and ``total_steps`` is not
            given.
    """
    if scheduler_config is None:
        return None
    options: dict[str, Any] = {}
    factory: Callable[..., Any]
    if isinstance(scheduler_config, Mapping):
        options = dict(scheduler_config)
        if "_target_" in options:
            options.pop("_partial_", None)
            factory = locate(str(options.pop("_target_")))
        else:
            kind = options.pop("type", "CosineAnnealingLR")
            factory = find(kind, schedulers(), "scheduler") if isinstance(kind, str) else kind
    elif isinstance(scheduler_config, str):
        factory = find(scheduler_config, schedulers(), "scheduler")
    elif callable(scheduler_config):
        factory = scheduler_config
    else:
        raise TypeError(
            "The scheduler must be a name, a class, a callable, a mapping with `type` or None, "
            f"got {type(scheduler_config).__name__}."
        )
    return factory(optimizer, **_completed(factory, options, total_steps))


def _completed(
    factory: Callable[..., Any], options: dict[str, Any], total_steps: int | None
) -> dict[str, Any]:
    """The options, with the required ones that are missing filled in."""
    name = getattr(factory, "__name__", type(factory).__name__)
    parameters = dict(inspect.signature(factory).parameters)
    given = set(options)
    if isinstance(factory, functools.partial):
        given |= set(factory.keywords)
    variadic = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = sorted(given - set(parameters))
    if unknown and not variadic:
        raise TypeError(f"{name} takes no argument {unknown}; it takes {list(parameters)[1:]}.")
    for argument, parameter in list(parameters.items())[1:]:
        required = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if not required or argument in given:
            continue
        if argument in HORIZONS:
            if total_steps is None:
                raise ValueError(f"{name} needs `{argument}`; give it, or give `total_steps`.")
            options[argument] = total_steps
        elif argument in DEFAULTS.get(name, {}):
            options[argument] = DEFAULTS[name][argument]
        else:
            raise TypeError(f"{name} needs the argument `{argument}`; got {sorted(given)}.")
    return options
