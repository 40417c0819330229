"""What is written down about a configuration: all of it but the secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from spt_registry.run.masking import masked


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


def _resolved(part: Any) -> Any:
    if isinstance(part, (DictConfig, ListConfig)):
        return OmegaConf.to_container(part, resolve=True)
    return part


def _written(part: Any) -> Any:
    return OmegaConf.to_container(part) if isinstance(part, (DictConfig, ListConfig)) else None
