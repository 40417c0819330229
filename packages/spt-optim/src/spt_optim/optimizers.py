"""Optimizers from a configuration."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spt_optim._lookup import check_options, find, from_mapping
from spt_optim.lars import LARS
from spt_optim.param_groups import as_groups, kind_of, parameter_kinds, split_groups, undecayed_ids

OptimizerConfig = str | type[Optimizer] | Callable[..., Optimizer] | Mapping[str, Any]


def optimizers() -> dict[str, Callable[..., Optimizer]]:
    """What ``create_optimizer`` knows by name: torch's optimizers and ours."""
    found: dict[str, Callable[..., Optimizer]] = {
        name: value
        for name, value in vars(torch.optim).items()
        if inspect.isclass(value) and issubclass(value, Optimizer) and value is not Optimizer
    }
    return {**found, "LARS": LARS}


def create_optimizer(
    params: Iterable[Any],
    optimizer_config: OptimizerConfig,
    named_params: Iterable[tuple[str, Tensor]] | None = None,
    *,
    module: nn.Module | None = None,
    exclude_bias_norm: bool | None = None,
) -> Optimizer:
    """Make an optimizer from any of the usual ways to name one.

    Args:
        params: Parameters or parameter groups.
        optimizer_config: One of

            - a name, ``"AdamW"`` or ``"LARS"``, or a dotted path, ``"timm.optim.Lamb"``;
            - a class, with its defaults;
            - a ``functools.partial`` or a function of the parameters;
            - a mapping with ``type`` (a name or a class; default ``"AdamW"``), optionally
              ``exclude_bias_norm``, and keyword arguments; or with ``_target_``, a dotted path.
        named_params: Names of the parameters, for ``exclude_bias_norm``.
        module: Where the parameters come from; ``exclude_bias_norm`` and the exclusion of
            LARS then go by the types of its layers.
        exclude_bias_norm: No weight decay on biases, norms, position embeddings and tokens,
            and what the module's ``no_weight_decay()`` names, whatever the form of
            ``optimizer_config``; frozen parameters are left out. A mapping's own entry wins.

    Raises:
        TypeError: If a keyword argument is not one of the optimizer's, a required one is
            missing, or the configuration is of another kind.
        ValueError: If the name is unknown, or ``exclude_bias_norm`` lacks the names.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> create_optimizer(layer.parameters(), {"type": "SGD", "lr": 0.1}).defaults["lr"]
        0.1
    """
    factory, options = _factory(optimizer_config)
    exclude = options.pop("exclude_bias_norm", exclude_bias_norm)
    if exclude:
        params = _without_decay(params, named_params, module)
    if module is not None and _is_lars(factory) and _excludes(factory, options):
        params = _marked_for_lars(params, module)
    check_options(factory, options, first="parameters", kind="optimizer")
    made = factory(params, **options)
    if not isinstance(made, Optimizer):
        raise TypeError(
            f"The optimizer factory must return a torch Optimizer, got {type(made).__name__}."
        )
    return made


def _factory(config: OptimizerConfig) -> tuple[Callable[..., Any], dict[str, Any]]:
    if isinstance(config, str):
        return find(config, optimizers(), "optimizer"), {}
    if isinstance(config, Mapping):
        return from_mapping(config, "AdamW", optimizers(), "optimizer")
    if callable(config):
        return config, {}
    raise TypeError(
        "The optimizer must be a name, a class, a callable or a mapping with `type`, got "
        f"{type(config).__name__}."
    )


def _without_decay(
    params: Iterable[Any],
    named_params: Iterable[tuple[str, Tensor]] | None,
    module: nn.Module | None,
) -> list[dict[str, Any]]:
    """The groups, split into those with the optimizer's decay and those with none."""
    if named_params is None and module is None:
        raise ValueError("`exclude_bias_norm` needs `named_params` or `module`, got neither.")
    free = undecayed_ids(module) if module is not None else set()
    free |= {id(p) for name, p in named_params or () if kind_of(name, p) != "weight"}
    groups = split_groups(params, free, {"weight_decay": 0.0})
    for group in groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError("There is no trainable parameter; all have `requires_grad=False`.")
    return groups


def _is_lars(factory: Callable[..., Any]) -> bool:
    target = factory.func if isinstance(factory, functools.partial) else factory
    return inspect.isclass(target) and issubclass(target, LARS)


def _excludes(factory: Callable[..., Any], options: Mapping[str, Any]) -> bool:
    given = {**getattr(factory, "keywords", {}), **options}
    return bool(given.get("exclude_bias_n_norm", True))


def _marked_for_lars(params: Iterable[Any], module: nn.Module) -> list[dict[str, Any]]:
    """The groups, with biases and norms in groups that LARS leaves unscaled and undecayed."""
    kinds = parameter_kinds(module)
    ids = {id(p) for name, p in module.named_parameters() if kinds[name] in ("bias", "norm")}
    marked: list[dict[str, Any]] = []
    for group in as_groups(params):
        marked += [group] if "exclude" in group else split_groups([group], ids, {"exclude": True})
    return marked
