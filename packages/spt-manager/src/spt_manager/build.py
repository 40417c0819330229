"""The trainer, the module and the data, from whatever form they were given in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import lightning as pl
from omegaconf import DictConfig, OmegaConf, open_dict

from spt_manager.fsdp2 import make_fsdp2_strategy

Kinds = type | tuple[type, ...]


class BuildError(RuntimeError):
    """A part of a configuration could not be made; the message says which and why."""


def check_form(name: str, value: Any, kinds: Kinds) -> None:
    """Refuse what can never become an instance.

    Raises:
        TypeError: If the value is neither an instance, nor a configuration, nor a factory.
    """
    if isinstance(value, kinds) or callable(value):
        return
    if isinstance(value, Mapping):
        if "_target_" not in value:
            raise TypeError(
                f"`{name}` is a mapping without `_target_`, the dotted path of what to make; it "
                f"has {sorted(map(str, value))}."
            )
        return
    raise TypeError(
        f"`{name}` must be a {_names(kinds)}, a mapping with `_target_` or a function that makes "
        f"one, got {type(value).__name__}."
    )


def build(name: str, value: Any, kinds: Kinds, **given: Any) -> Any:
    """The instance itself, or what the configuration or the factory makes.

    Args:
        name: Name of the argument, for messages.
        value: In any form that :func:`check_form` accepts.
        kinds: What it must be in the end.
        **given: Arguments that a configuration's target gets beside its own.

    Raises:
        BuildError: If a ``_target_`` fails, with its path in the configuration.
        TypeError: If something else was made.
    """
    if isinstance(value, kinds):
        return value
    made = make(as_node(name, value), **given) if isinstance(value, Mapping) else value()
    if not isinstance(made, kinds):
        raise TypeError(f"`{name}` made a {type(made).__name__}, expected a {_names(kinds)}.")
    return made


def build_trainer(value: Any) -> tuple[pl.Trainer, list[Any]]:
    """The trainer, and the entries of its callbacks that wait for the module.

    In a configuration, an entry with ``_partial_: true`` is a function of the module, and the
    strategy ``fsdp2`` is that of :func:`make_fsdp2_strategy`.

    Raises:
        BuildError: If a ``_target_`` fails, with its path in the configuration.
        TypeError: If something else was made.
    """
    if not isinstance(value, Mapping):
        return build("trainer", value, pl.Trainer), []
    node = as_node("trainer", value)
    given: dict[str, Any] = {}
    entries = [
        make(entry) if isinstance(entry, DictConfig) else entry
        for entry in node.get("callbacks") or []
    ]
    ready = [entry for entry in entries if isinstance(entry, pl.Callback)]
    if entries:
        given["callbacks"] = ready
    if node.get("strategy") == "fsdp2":  # Lightning's own registry of names stays as it is
        given["strategy"] = make_fsdp2_strategy()
    with open_dict(node):
        for name in given:
            node.pop(name)
    waiting = [entry for entry in entries if not isinstance(entry, pl.Callback)]
    return build("trainer", node, pl.Trainer, **given), waiting


def callbacks_of_module(waiting: list[Any], module: pl.LightningModule) -> list[pl.Callback]:
    """What the waiting entries make of the module.

    Raises:
        TypeError: If an entry is no function, or makes no callback.
    """
    made = []
    for entry in waiting:
        callback = entry(module=module) if callable(entry) else entry
        if not isinstance(callback, pl.Callback):
            raise TypeError(
                f"`trainer.callbacks` made a {type(callback).__name__}, expected a Callback or, "
                "with `_partial_: true`, a function of `module` that makes one."
            )
        made.append(callback)
    return made


def as_node(name: str, value: Mapping[str, Any]) -> DictConfig:
    """A configuration that knows its place, so that errors can name it; a copy."""
    if isinstance(value, DictConfig) and value._get_root() is not value:
        root: Any = value._get_root()
        root = root.copy()  # interpolations reach the rest of the file
        node = OmegaConf.select(root, str(value._get_full_key(None)))
    elif isinstance(value, DictConfig):
        node = OmegaConf.create({name: value.copy()})[name]
    else:
        node = OmegaConf.create({name: _plain(value)}, flags={"allow_objects": True})[name]
    assert isinstance(node, DictConfig)
    return node


def make(node: Any, **given: Any) -> Any:
    """What a configuration's ``_target_`` makes.

    Raises:
        BuildError: With the path in the configuration.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(node, **given, _convert_="object")
    except InstantiationException as error:
        reason, _, path = str(error).partition("\nfull_key: ")
        path = path or node._get_full_key(None)
        cause = error.__cause__ or error
        told = re.sub(r"^Error in call to target '([^']*)':\n", r"\1: ", reason)
        raise BuildError(f"`{path}` failed: {told}") from cause


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _names(kinds: Kinds) -> str:
    return " or ".join(k.__name__ for k in (kinds if isinstance(kinds, tuple) else (kinds,)))
