"""What is written down about a configuration: all of it but the secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

MASK = "***"
SECRET = re.compile(
    r"(^|[_.-])(api_?key|access_?key|private_?key|secret|token|password|passwd|pwd|credentials?)$",
    re.IGNORECASE,
)
FROM_ENVIRONMENT = re.compile(r"\$\{oc\.env:\s*['\"]?([^,}'\"]+)")
IN_ADDRESS = re.compile(r"(?<=://)[^/@:\s]*:[^/@\s]+(?=@)")


def snapshot(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as nested plain values, interpolations resolved and secrets masked.

    Masked are strings under names such as ``api_key``, ``password`` or ``hf_token``, values taken
    from environment variables of such names, and passwords in addresses.

    Args:
        config: Parts by name; those that are no configurations are left out.

    Example:
        >>> snapshot({"module": {"lr": 0.1, "api_key": "k"}, "data": print})
        {'module': {'lr': 0.1, 'api_key': '***'}}
    """
    if isinstance(config, DictConfig):
        found: dict[str, Any] = masked(_resolved(config), _written(config))
        return found
    kept = (Mapping, ListConfig, str, int, float, bool)
    parts = {str(name): part for name, part in config.items() if isinstance(part, kept)}
    return {name: masked(_resolved(part), _written(part), name) for name, part in parts.items()}


def masked(value: Any, written: Any = None, name: str = "") -> Any:
    """The same values without secrets.

    Args:
        value: Nested plain values.
        written: The same before interpolation.
        name: Under which the value stands.
    """
    if isinstance(value, Mapping):
        source = written if isinstance(written, Mapping) else {}
        return {key: masked(item, source.get(key), str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        sources = written if isinstance(written, list) else [None] * len(value)
        return [masked(item, source, name) for item, source in zip(value, sources, strict=False)]
    if not isinstance(value, str):
        return value
    variables = FROM_ENVIRONMENT.findall(written) if isinstance(written, str) else []
    if value and (SECRET.search(name) or any(SECRET.search(found) for found in variables)):
        return MASK
    return IN_ADDRESS.sub(MASK, value)


def _resolved(part: Any) -> Any:
    if isinstance(part, (DictConfig, ListConfig)):
        return OmegaConf.to_container(part, resolve=True)
    return part


def _written(part: Any) -> Any:
    return OmegaConf.to_container(part) if isinstance(part, (DictConfig, ListConfig)) else None
