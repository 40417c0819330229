"""Objects from mappings with ``_target_``, as Hydra writes them."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Mapping
from typing import Any


def instantiate(node: Any) -> Any:
    """Build what a configuration names, from the inside out; other values pass through.

    Args:
        node: A mapping with ``_target_`` (a dotted path), optionally ``_partial_``, and keyword
            arguments; or a list or mapping that holds some.

    Raises:
        ValueError: If there is nothing at a path.
    """
    omegaconf = sys.modules.get("omegaconf")  # without it, no node can be one of its own
    if omegaconf is not None and isinstance(node, omegaconf.Container):
        node = omegaconf.OmegaConf.to_container(node, resolve=True)
    if type(node) in (list, tuple):
        return type(node)(instantiate(item) for item in node)
    if not isinstance(node, Mapping):
        return node
    values = {key: instantiate(value) for key, value in node.items()}
    if "_target_" not in values:
        return values
    target, partial = values.pop("_target_"), values.pop("_partial_", False)
    factory = _locate(target) if isinstance(target, str) else target
    return functools.partial(factory, **values) if partial else factory(**values)


def _locate(path: str) -> Any:
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        try:
            for part in parts[cut:]:
                found = getattr(found, part)
        except AttributeError as error:
            raise ValueError(f"There is nothing at `_target_` {path!r}: {error}.") from error
        return found
    raise ValueError(f"There is no module at `_target_` {path!r}.")
