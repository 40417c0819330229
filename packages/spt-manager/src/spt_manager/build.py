"""The trainer, the module and the data, from whatever form they were given in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

Kinds = type | tuple[type, ...]


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


def build(name: str, value: Any, kinds: Kinds, **defaults: Any) -> Any:
    """The instance itself, or what the configuration or the factory makes.

    Args:
        name: Name of the argument, for messages.
        value: In any form that :func:`check_form` accepts.
        kinds: What it must be in the end.
        **defaults: Arguments that a configuration leaves out.

    Raises:
        TypeError: If something else was made.
    """
    if isinstance(value, kinds):
        return value
    if isinstance(value, Mapping):
        from hydra.utils import instantiate

        absent = {key: item for key, item in defaults.items() if key not in value}
        made = instantiate(value, **absent, _convert_="object")
    else:
        made = value()
    if not isinstance(made, kinds):
        raise TypeError(f"`{name}` made a {type(made).__name__}, expected a {_names(kinds)}.")
    return made


def snapshot(**parts: Any) -> dict[str, Any]:
    """The configurations among the parts, nested, with plain values."""
    config: dict[str, Any] = {}
    for name, value in parts.items():
        if isinstance(value, DictConfig):
            config[name] = OmegaConf.to_container(value, resolve=True)
        elif isinstance(value, Mapping):
            config[name] = dict(value)
    return config


def _names(kinds: Kinds) -> str:
    return " or ".join(k.__name__ for k in (kinds if isinstance(kinds, tuple) else (kinds,)))
