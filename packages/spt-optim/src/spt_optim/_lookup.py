"""Finding what a configuration names: an optimizer, a schedule, or any dotted path."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any


def locate(path: str) -> Callable[..., Any]:
    """The object at a dotted path such as ``"timm.optim.Lamb"``.

    Raises:
        ValueError: If there is no such module or attribute, or it cannot be called.
    """
    module_name, _, attribute = path.rpartition(".")
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
    raise ValueError(f"Unknown {kind} {name!r}; {hint}Known: {', '.join(sorted(known))}.")
