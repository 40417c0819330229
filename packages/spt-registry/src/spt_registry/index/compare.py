"""What differs among runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def differing(values: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys whose values are not the same everywhere, with the values; ``None`` if absent.

    Example:
        >>> differing([{"lr": 0.1, "epochs": 5}, {"lr": 0.3, "epochs": 5, "seed": 1}])
        {'lr': [0.1, 0.3], 'seed': [None, 1]}
    """
    absent = object()
    keys = sorted({key for one in values for key in one})
    found = {key: [one.get(key, absent) for one in values] for key in keys}
    return {
        key: [None if item is absent else item for item in items]
        for key, items in found.items()
        if any(not _same(items[0], item) for item in items[1:])
    }


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)
