"""Optimizers from a configuration, and the split of parameters for weight decay."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spt_optim._lookup import find, locate
from spt_optim.lars import LARS

OptimizerConfig = str | type[Optimizer] | Callable[..., Optimizer] | Mapping[str, Any]

NORM_LAYERS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)
"""Module types whose own parameters take no weight decay."""


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
        module: Where the parameters come from; ``exclude_bias_norm`` then goes by the types
            of its layers.

    Raises:
        TypeError: If a keyword argument is not one of the optimizer's, or the configuration
            is of another kind.
        ValueError: If the name is unknown.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> create_optimizer(layer.parameters(), {"type": "SGD", "lr": 0.1}).defaults["lr"]
        0.1
    """
    if isinstance(optimizer_config, str):
        optimizer_config = {"type": optimizer_config}
    if isinstance(optimizer_config, Mapping):
        return _from_mapping(params, optimizer_config, named_params, module)
    if callable(optimizer_config):
        factory: Callable[..., Any] = optimizer_config
        made = factory(params)
        if not isinstance(made, Optimizer):
            raise TypeError(
                f"The optimizer factory must return a torch Optimizer, got {type(made).__name__}."
            )
        return made
    raise TypeError(
        "The optimizer must be a name, a class, a callable or a mapping with `type`, got "
        f"{type(optimizer_config).__name__}."
    )


def _from_mapping(
    params: Iterable[Any],
    config: Mapping[str, Any],
    named_params: Iterable[tuple[str, Tensor]] | None,
    module: nn.Module | None,
) -> Optimizer:
    options = dict(config)
    exclude = options.pop("exclude_bias_norm", False)
    if "_target_" in options:
        partial = options.pop("_partial_", True)
        del partial
        factory = locate(str(options.pop("_target_")))
    else:
        kind = options.pop("type", "AdamW")
        factory = find(kind, optimizers(), "optimizer") if isinstance(kind, str) else kind
    if exclude:
        params = _groups_for_decay(named_params, module, options)
    _check_options(factory, options)
    made: Optimizer = factory(params, **options)
    return made


def _groups_for_decay(
    named_params: Iterable[tuple[str, Tensor]] | None,
    module: nn.Module | None,
    options: dict[str, Any],
) -> list[dict[str, Any]]:
    if named_params is None and module is None:
        raise ValueError("`exclude_bias_norm` needs `named_params` or `module`, got neither.")
    if named_params is None and module is not None:
        named_params = module.named_parameters()
    decay = float(options.get("weight_decay", 0.0))
    return split_params_for_weight_decay(named_params or (), decay, module=module)


def _check_options(factory: Callable[..., Any], options: dict[str, Any]) -> None:
    target = factory.func if isinstance(factory, functools.partial) else factory
    signature = inspect.signature(target).parameters
    if any(p.kind is p.VAR_KEYWORD for p in signature.values()):
        return
    unknown = sorted(set(options) - set(signature))
    if unknown:
        allowed = [name for name in signature if name not in ("self", "params")]
        name = getattr(target, "__name__", str(target))
        raise TypeError(f"{name} takes no argument {unknown}; it takes {allowed}.")


def is_bias_or_norm_param(name: str, p: Tensor) -> bool:
    """Whether a parameter is a bias, a norm's gain or a lone scale, judged without its module.

    Args:
        name: Qualified name.
        p: The parameter.

    Example:
        >>> is_bias_or_norm_param("head.bias", torch.zeros(3))
        True
        >>> is_bias_or_norm_param("normal_proj.weight", torch.zeros(3, 3))
        False
    """
    return p.ndim <= 1 or name.rpartition(".")[2] == "bias"


def undecayed_names(module: nn.Module) -> set[str]:
    """Names of the parameters that common practice leaves without decay.

    Biases and tensors of at most one dimension, all parameters of normalisation layers, and
    what a submodule's own ``no_weight_decay()`` names (timm's position embeddings and tokens).
    """
    names = {name for name, p in module.named_parameters() if is_bias_or_norm_param(name, p)}
    for prefix, layer in module.named_modules():
        dot = f"{prefix}." if prefix else ""
        if isinstance(layer, NORM_LAYERS):
            names |= {dot + name for name, _ in layer.named_parameters(recurse=False)}
        if callable(getattr(layer, "no_weight_decay", None)):
            names |= {dot + name for name in layer.no_weight_decay()}
    return names


def split_params_for_weight_decay(
    named_params: Iterable[tuple[str, Tensor]],
    weight_decay: float,
    *,
    module: nn.Module | None = None,
) -> list[dict[str, Any]]:
    """Two parameter groups, with and without weight decay; frozen parameters are left out.

    Args:
        named_params: Parameters with their names.
        weight_decay: Decay of the first group, at least 0.
        module: Where the parameters come from; layers' types then decide, see
            :func:`undecayed_names`. Without it, biases and 1-D tensors go undecayed.

    Raises:
        ValueError: If no parameter is trainable.
    """
    free = undecayed_names(module) if module is not None else set()
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for name, p in named_params:
        if p.requires_grad:
            undecayed = name in free or is_bias_or_norm_param(name, p)
            (plain if undecayed else decayed).append(p)
    if not decayed and not plain:
        raise ValueError("There is no trainable parameter; all have `requires_grad=False`.")
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
