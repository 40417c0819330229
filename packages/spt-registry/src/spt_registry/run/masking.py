"""Secrets among hyper-parameters and configurations, which no file of a run shall hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
# "key" and "tokens" alone are names of the field: columns of a batch, special tokens of a tokenizer
SECRET = re.compile(
    r"(^|[_.-])(((api|access|private|secret|signing|encryption|ssh|wandb|hf|comet|neptune|swanlab)[_-]?keys?)"
    r"|((access|auth|bearer|refresh|api|hf)[_-]?tokens?)|token|secrets?|passwords?|passwd|passphrase|pwd"
    r"|credentials?|authorization)(\.\d+)*$",
    re.IGNORECASE,
)
FROM_ENVIRONMENT = re.compile(r"\$\{oc\.env:\s*['\"]?([^,}'\"]+)")
IN_ADDRESS = re.compile(r"(?<=://)[^/@:\s]*:[^/@\s]+(?=@)")


def masked(value: Any, written: Any = None, name: str = "") -> Any:
    """The same values without secrets.

    Masked are strings under names such as ``api_key``, ``password`` or ``hf_token``, values taken
    from environment variables of such names, and passwords in addresses.

    Args:
        value: Nested plain values.
        written: The same before interpolation by OmegaConf.
        name: Under which the value stands; may be dotted.

    Example:
        >>> masked({"lr": 0.1, "hub": {"api_key": "k", "url": "https://me:k@host"}})
        {'lr': 0.1, 'hub': {'api_key': '***', 'url': 'https://***@host'}}
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
