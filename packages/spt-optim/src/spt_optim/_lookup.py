"""Finding what a configuration names: an optimizer, a schedule, or any dotted path."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def locate(path: str) -> Callable[..., Any]:
    """The object at a dotted path such as ``"timm.optim.Lamb"``.

    Raises:
        ValueError: If there is no such module or attribute, or it cannot be called.
    """
    module_name, _, attribute = path.rpartition(".")
    if not module_name:
        raise ValueError(f"A dotted path has a module before its last dot, got {path!r}.")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"There is nothing at {path!r}: {error}.") from error
    if not callable(found):
        raise ValueError(f"{path!r} must be a class or a function, got {type(found).__name__}.")
    return found


def find(name: str, known: Mapping[str, Callable[..., Any]], kind: str) -> Callable[..., Any]:
    """The object of that name, or at that dotted path.

    Args:
        name: A key of ``known`` in any case, or a dotted path.
        known: What can be named.
        kind: ``"optimizer"`` or ``"scheduler"``, for the message.

    Raises:
        ValueError: If it is unknown; the message lists the near names.
    """
    if name in known:
        return known[name]
    for key, value in known.items():
        if key.lower() == name.lower():
            return value
    if "." in name:
        return locate(name)
    lower = {key.lower(): key for key in known}
    near = [lower[key] for key in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
    raise ValueError(
        f"Unknown {kind} {name!r}; {hint}Known: {', '.join(sorted(known))}, and any dotted path."
    )


def from_mapping(
    config: Mapping[str, Any], default: str, known: Mapping[str, Callable[..., Any]], kind: str
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What a mapping names with ``type`` or ``_target_``, and its remaining options.

    Args:
        config: The mapping; a Hydra configuration too.
        default: Name taken when there is neither ``type`` nor ``_target_``.
        known: What can be named.
        kind: ``"optimizer"`` or ``"scheduler"``, for messages.

    Raises:
        TypeError: If ``type`` is neither a name nor callable.
    """
    options = {str(key): plain(value) for key, value in config.items()}
    if "_target_" in options:
        for key in ("_partial_", "_convert_", "_recursive_"):
            options.pop(key, None)
        return locate(str(options.pop("_target_"))), options
    factory = options.pop("type", default)
    if isinstance(factory, str):
        factory = find(factory, known, kind)
    if not callable(factory):
        raise TypeError(
            f"`type` of the {kind} must be a name or a class, got {type(factory).__name__}."
        )
    return factory, options


def plain(value: Any) -> Any:
    """Configuration containers as dicts and lists, so that no checkpoint needs their library."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list) or (
        isinstance(value, Sequence) and not isinstance(value, str | bytes | tuple | range)
    ):
        return [plain(item) for item in value]
    return value


def check_options(
    factory: Callable[..., Any], options: Mapping[str, Any], *, first: str, kind: str
) -> None:
    """Name what a factory does not take, and what it requires and did not get.

    Args:
        factory: A class, a function or a partial of one.
        options: Keyword arguments for it.
        first: What is given as the first argument, for messages.
        kind: ``"optimizer"`` or ``"scheduler"``, for messages.

    Raises:
        TypeError: If an option is unknown, or a required one is missing.
    """
    parameters = list(inspect.signature(factory).parameters.values())[1:]
    name = getattr(factory, "__name__", None) or getattr(
        getattr(factory, "func", factory), "__name__", type(factory).__name__
    )
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    unknown = sorted(set(options) - {p.name for p in named})
    if unknown and not open_ended:
        raise TypeError(
            f"The {kind} {name} takes no argument {unknown}; besides the {first} it takes "
            f"{[p.name for p in named]}."
        )
    missing = [p.name for p in named if p.default is p.empty and p.name not in options]
    if missing:
        raise TypeError(f"The {kind} {name} needs {missing}; got {sorted(options)}.")
