"""Which optimizer takes which parameter, and in which group."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import torch
from spt_optim import create_optimizer, layer_decay_groups, parameter_kinds
from spt_optim.param_groups import ParameterKind
from torch import Tensor, nn

from spt_methods.backbones.auto_linear import AutoLinearClassifier
from spt_methods.backbones.auto_tune_mlp import AutoTuneMLP
from spt_methods.optim.grammar import Entry

Named = dict[str, Tensor]


def assign(
    module: nn.Module, patterns: Mapping[str, str | None], frozen: str | None
) -> dict[str, Named]:
    r"""The trainable parameters of each optimizer, by name.

    A pattern names a subtree: it must match the whole path of a module (or parameter), as
    ``encoder`` or ``heads\..*``; the subtree nearest to a parameter takes it.

    Args:
        module: Whose parameters.
        patterns: A regular expression for each optimizer; ``None`` takes what is left.
        frozen: What no optimizer takes.

    Raises:
        ValueError: If a parameter belongs to no optimizer or to two, or an optimizer has none.
    """
    found: dict[str, Named] = {name: {} for name in patterns}
    rest = next((name for name, pattern in patterns.items() if pattern is None), None)
    chosen = {name: pattern for name, pattern in patterns.items() if pattern is not None}
    if frozen is not None:
        chosen["frozen"], found["frozen"] = frozen, {}
    stray = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        owner = owner_of(name, chosen) or rest
        if owner is None:
            stray.append(name)
        else:
            found[owner][name] = parameter
    if stray:
        raise ValueError(
            f"No optimizer takes {len(stray)} parameters, among them {stray[:5]}. Give one of them "
            "no `modules`, so that it takes the rest, or give `optim` as a mapping of named optimizers with "
            "a 'frozen' pattern for them."
        )
    empty = [name for name, parameters in found.items() if not parameters and name != "frozen"]
    if empty:
        raise ValueError(
            f"The optimizers {empty} have no trainable parameter; their `modules` are "
            f"{[patterns[name] for name in empty]}, the module's parts are "
            f"{[name for name, _ in module.named_children()]}."
        )
    return {name: found[name] for name in patterns}


def owner_of(name: str, patterns: Mapping[str, str]) -> str | None:
    r"""The pattern whose subtree is nearest to a parameter.

    Raises:
        ValueError: If two name the same subtree.

    Example:
        >>> owner_of("encoder2.weight", {"a": "encoder", "b": "encoder.*"})
        'b'
        >>> owner_of("heads.dino.weight", {"a": "heads", "b": r"heads\.dino"})
        'b'
    """
    depths = {key: _depth(name, pattern) for key, pattern in patterns.items()}
    deepest = max(depths.values(), default=0)
    owners = [key for key, depth in depths.items() if depth == deepest]
    if deepest == 0:
        return None
    if len(owners) > 1:
        raise ValueError(
            f"The optimizers {owners} both take {name!r}: their `modules` name the same subtree. "
            "Make one more specific, or leave it out to take the rest."
        )
    return owners[0]


def _depth(name: str, pattern: str) -> int:
    """Components of the shortest leading path that the pattern matches whole; 0 if none."""
    for depth, path in enumerate(_paths(name), start=1):
        if re.fullmatch(pattern, path):
            return depth
    return 0


def _paths(name: str) -> Iterator[str]:
    """``a``, ``a.b``, ``a.b.c``."""
    parts = name.split(".")
    return (".".join(parts[: i + 1]) for i in range(len(parts)))


def groups_of(module: nn.Module, parameters: Named, entry: Entry) -> list[dict[str, Any]]:
    """An optimizer's parameter groups: layer-wise rates, those of grids, then what ``groups`` names.

    Raises:
        ValueError: If a group's expression names nothing.
    """
    groups: list[dict[str, Any]] = [{"params": list(parameters.values())}]
    if entry.layer_decay is not None:
        groups = _layerwise(module, parameters, entry)
    groups = _of_grids(module, groups, entry)
    kinds = parameter_kinds(module)
    for key, options in entry.groups.items():
        ids = {
            id(p) for name, p in parameters.items() if kinds.get(name) == key or _depth(name, key)
        }
        if not ids and key not in get_args(ParameterKind):
            raise ValueError(
                f"The group {key!r} of `groups` names no parameter; give a kind ('norm', 'bias', "
                "'position', 'token') or a regular expression for names."
            )
        groups = [part for group in groups for part in _split(group, ids, options, entry)]
    return groups


def _defaults(entry: Entry) -> Mapping[str, Any]:
    """The rate and the decay that an optimizer has where a group sets none."""
    made = create_optimizer([nn.Parameter(torch.zeros(1))], entry.optimizer)
    return {
        "lr": float(made.defaults["lr"]),
        "weight_decay": made.defaults.get("weight_decay", 0.0),
    }


def _layerwise(module: nn.Module, parameters: Named, entry: Entry) -> list[dict[str, Any]]:
    defaults = _defaults(entry)
    wanted = {id(p) for p in parameters.values()}
    found = layer_decay_groups(
        module,
        defaults["lr"],
        entry.layer_decay or 1.0,
        defaults["weight_decay"],
        patch_embed_factor=entry.patch_embed_factor,
    )
    groups = []
    for group in found:
        mine = [p for p in group["params"] if id(p) in wanted]
        if mine:
            groups.append(
                {"params": mine, "lr": group["lr"], "weight_decay": group["weight_decay"]}
            )
    return groups


def _of_grids(
    module: nn.Module, groups: list[dict[str, Any]], entry: Entry
) -> list[dict[str, Any]]:
    """The groups, with the members of grids in groups of their own rates and decays."""
    grids = [
        part for part in module.modules() if isinstance(part, (AutoLinearClassifier, AutoTuneMLP))
    ]
    for grid in grids:
        for options in grid.parameter_groups(_defaults(entry)["lr"]):
            ids = {id(p) for p in options.pop("params")}
            groups = [part for group in groups for part in _split(group, ids, options, entry)]
    return groups


def _split(
    group: dict[str, Any], ids: set[int], options: Mapping[str, Any], entry: Entry
) -> list[dict[str, Any]]:
    """The group without, and with, some parameters; ``lr_factor`` multiplies the rate."""
    options = dict(options)
    if "lr_factor" in options:
        lr = group["lr"] if "lr" in group else _defaults(entry)["lr"]
        options["lr"] = lr * options.pop("lr_factor")
    inside = [p for p in group["params"] if id(p) in ids]
    outside = [p for p in group["params"] if id(p) not in ids]
    parts = [{**group, "params": outside}] if outside else []
    return [*parts, {**group, **options, "params": inside}] if inside else parts
