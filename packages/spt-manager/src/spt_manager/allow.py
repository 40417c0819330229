"""A YAML is code; a list of packages bounds what it may name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

PATHS = (
    "_target_", "forward", "type", "path", "method", "optim", "optimizer", "scheduler", "()", "class",
)  # fmt: skip
"""Keys under which a dotted path is imported: by Hydra, by our own packages, by Python's logging."""


ALWAYS = ("_target_", "()")
"""Those under which a name without a dot is imported too."""


class NotAllowedError(ValueError):
    """A configuration names something of a package that was not allowed."""


def require_allowed(config: Any, allowed: Sequence[str], where: str = "") -> None:
    """Refuse a configuration that names anything outside of some packages.

    It bounds what a file can name, not what those packages can do.

    Args:
        config: As composed.
        allowed: Packages or dotted prefixes, such as ``torch`` or ``torch.optim``.
        where: The configuration's own path.

    Raises:
        NotAllowedError: With the path in the configuration.

    Example:
        >>> require_allowed({"module": {"_target_": "os.system"}}, ["torch"])
        Traceback (most recent call last):
            ...
        spt_manager.allow.NotAllowedError: `module._target_` is 'os.system'; allowed is ['torch'].
    """
    if isinstance(config, (DictConfig, dict)):
        for key in config:
            path = f"{where}.{key!s}" if where else str(key)
            value = _resolved(config, key, path)
            if key in PATHS and isinstance(value, str) and (key in ALWAYS or "." in value):
                _check(path, value, allowed)
            require_allowed(value, allowed, path)
    elif isinstance(config, (ListConfig, list)):
        for i, value in enumerate(config):
            require_allowed(value, allowed, f"{where}.{i}")


def _resolved(config: Any, key: Any, path: str) -> Any:
    """A value, or ``None`` where it can only be known later and is no path."""
    try:
        return config[key]
    except OmegaConfBaseException as error:
        if key in PATHS:
            raise NotAllowedError(f"`{path}` cannot be resolved, so not be allowed.") from error
        return None


def _check(path: str, value: str, allowed: Sequence[str]) -> None:
    if not any(value == prefix or value.startswith(f"{prefix}.") for prefix in allowed):
        raise NotAllowedError(f"`{path}` is {value!r}; allowed is {list(allowed)}.")
