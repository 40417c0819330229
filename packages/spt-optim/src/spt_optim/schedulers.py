"""Schedulers from a configuration; only what is missing and required is filled in."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from spt_optim import schedules
from spt_optim._lookup import check_options, find, from_mapping
from spt_optim.warmup_cosine_lr import LinearWarmupCosineAnnealingLR

SchedulerConfig = str | type[LRScheduler] | Callable[..., LRScheduler] | Mapping[str, Any]

HORIZONS = ("T_max", "total_steps", "max_steps", "total_iters")
"""Arguments that stand for the length of the run, filled in when required and not given."""


def schedulers() -> dict[str, Callable[..., Any]]:
    """What ``create_scheduler`` knows by name: torch's schedulers and ours."""
    found: dict[str, Callable[..., Any]] = {
        name: value
        for name, value in vars(lr_scheduler).items()
        if inspect.isclass(value)
        and issubclass(value, LRScheduler)
        and value is not LRScheduler
        and not name.startswith("_")
    }
    ours = (
        schedules.LinearWarmup,
        schedules.LinearWarmupCosineAnnealing,
        schedules.LinearWarmupCyclicAnnealing,
        schedules.LinearWarmupThreeStepsAnnealing,
        LinearWarmupCosineAnnealingLR,
    )
    return {**found, **{value.__name__: value for value in ours}}


def create_scheduler(
    optimizer: Optimizer,
    scheduler_config: SchedulerConfig | None,
    *,
    total_steps: int | None = None,
    module: nn.Module | None = None,
) -> Any:
    """Make a learning-rate scheduler from any of the usual ways to name one.

    Args:
        optimizer: Whose rates it moves.
        scheduler_config: One of

            - a name, ``"CosineAnnealingLR"``, or a dotted path;
            - a class; a ``functools.partial``; a function of the optimizer, or of the
              optimizer and the module;
            - a mapping with ``type`` (default ``"CosineAnnealingLR"``) and keyword arguments;
              or with ``_target_``, a dotted path; ``schedulers`` in it is a list of further
              configurations, for ``SequentialLR`` and ``ChainedScheduler``;
            - ``None``: no scheduler.
        total_steps: Length of the run in the scheduler's own steps (optimizer steps or
            epochs). It fills a required argument such as ``T_max`` that is not given.
        module: Given to functions that take it.

    Returns:
        The scheduler, or ``None``.

    Raises:
        TypeError: If an argument is unknown, or required, missing and not a horizon.
        ValueError: If the name is unknown, or a horizon or the module is needed and not given.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> create_scheduler(optimizer, {"type": "CosineAnnealingLR"}, total_steps=9).T_max
        9
    """
    if scheduler_config is None:
        return None
    factory, options = _factory(scheduler_config)
    if "schedulers" in options:
        options["schedulers"] = [
            create_scheduler(optimizer, part, total_steps=total_steps, module=module)
            for part in options["schedulers"]
        ]
    given = set(options) | set(getattr(factory, "keywords", {}))
    for name, value in _defaults(factory, optimizer, total_steps).items():
        if name not in given:
            options[name] = value
    _fill(factory, options, given, total_steps, module)
    if next(iter(inspect.signature(factory).parameters), None) == "schedulers":
        return factory(optimizer=optimizer, **options)
    check_options(factory, options, first="optimizer", kind="scheduler")
    return factory(optimizer, **options)


def _factory(config: SchedulerConfig) -> tuple[Callable[..., Any], dict[str, Any]]:
    if isinstance(config, Mapping):
        return from_mapping(config, "CosineAnnealingLR", schedulers(), "scheduler")
    if isinstance(config, str):
        return find(config, schedulers(), "scheduler"), {}
    if callable(config):
        return config, {}
    raise TypeError(
        "The scheduler must be a name, a class, a callable, a mapping with `type` or None, "
        f"got {type(config).__name__}."
    )


def _defaults(
    factory: Callable[..., Any], optimizer: Optimizer, total_steps: int | None
) -> dict[str, Any]:
    """What a bare name means where torch requires a value; each is taken only if not given."""
    target = factory.func if isinstance(factory, functools.partial) else factory
    if target is lr_scheduler.StepLR:
        return {"step_size": 30}
    if target is lr_scheduler.ExponentialLR:
        return {"gamma": 0.9}
    if target is LinearWarmupCosineAnnealingLR and total_steps is not None:
        return {"warmup_steps": total_steps // 100}
    if target is lr_scheduler.OneCycleLR:
        rates = {"max_lr": list(schedules.initial_rates(optimizer))}
        return rates if total_steps is None else {**rates, "total_steps": total_steps}
    return {}


def _fill(
    factory: Callable[..., Any],
    options: dict[str, Any],
    given: set[str],
    total_steps: int | None,
    module: nn.Module | None,
) -> None:
    """Add the horizon, and the module a function asks for, where they are required and missing."""
    name = getattr(factory, "__name__", type(factory).__name__)
    wants_module = not inspect.isclass(factory) and not isinstance(factory, functools.partial)
    for argument, parameter in list(inspect.signature(factory).parameters.items())[1:]:
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if variadic or parameter.default is not parameter.empty or argument in {*given, *options}:
            continue
        if argument in HORIZONS:
            options[argument] = _need(total_steps, name, argument, "total_steps")
        elif argument == "module" or (wants_module and _is_second(factory, argument)):
            options[argument] = _need(module, name, argument, "module")


def _is_second(factory: Callable[..., Any], argument: str) -> bool:
    return list(inspect.signature(factory).parameters)[1] == argument


def _need(value: Any, name: str, argument: str, source: str) -> Any:
    if value is None:
        raise ValueError(f"{name} needs `{argument}`; give it, or give `{source}`.")
    return value
