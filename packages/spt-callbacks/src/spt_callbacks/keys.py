"""Looking values up: in the mapping that the step returned, then in the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

Key = str | Callable[[Any, Any], Tensor]


class MissingKeyError(KeyError):
    """A callback asked for a key that is neither in the step's outputs nor in the batch."""

    def __str__(self) -> str:
        return str(self.args[0])


def look_up(key: Key, outputs: Any, batch: Any, caller: str) -> Tensor:
    """The tensor under a key, detached.

    Args:
        key: A key of the outputs or of the batch; dots descend into mappings, and by number
            into lists. What neither holds is sought in the dicts of ``batch["views"]`` and
            concatenated, as the embeddings of views are. Or a function of (outputs, batch).
        outputs: What the step returned.
        batch: What the loader gave.
        caller: Who asks, for messages.

    Raises:
        MissingKeyError: If the key is in neither.
        TypeError: If the value is no tensor.
    """
    value = find(key, outputs, batch, caller)
    if not isinstance(value, Tensor):
        raise TypeError(f"{caller} needs a tensor at {key!r}, got {type(value).__name__}.")
    return value.detach()


def find(key: Key, outputs: Any, batch: Any, caller: str) -> Any:
    """The value under a key, whatever it is; see :func:`look_up`.

    Raises:
        MissingKeyError: If the key is in neither.
    """
    if callable(key):
        return key(outputs, batch)
    for source in (outputs, batch):
        found, value = _descend(source, key)
        if found:
            return value
    found, value = _of_views(batch, key)
    if not found:
        raise MissingKeyError(
            f"{caller} needs the key {key!r}; the step returned {_contents(outputs)}, the "
            f"batch holds {_contents(batch)}."
        )
    return value


def holds(key: Key, outputs: Any, batch: Any) -> bool:
    """Whether the outputs or the batch hold the key; of a function this is not known: True."""
    if callable(key):
        return True
    return any(_descend(source, key)[0] for source in (outputs, batch)) or _of_views(batch, key)[0]


def _descend(source: Any, key: str) -> tuple[bool, Any]:
    if isinstance(source, Mapping):
        if key in source:
            return True, source[key]
        for head, rest in _splits(key):
            if head in source:
                found, value = _descend(source[head], rest)
                if found:
                    return True, value
    elif isinstance(source, (list, tuple)):
        head, dot, rest = key.partition(".")
        if head.isdigit() and int(head) < len(source):
            return _descend(source[int(head)], rest) if dot else (True, source[int(head)])
    return False, None


def _splits(key: str) -> Iterable[tuple[str, str]]:
    parts = key.split(".")
    return ((".".join(parts[:i]), ".".join(parts[i:])) for i in range(1, len(parts)))


def _of_views(batch: Any, key: str) -> tuple[bool, Any]:
    views = batch.get("views") if isinstance(batch, Mapping) else None
    if not isinstance(views, (list, tuple)) or not views:
        return False, None
    values = [_descend(view, key)[1] for view in views]
    if not all(isinstance(value, Tensor) for value in values):
        return False, None
    return True, torch.cat(values)


def _contents(source: Any) -> str:
    if isinstance(source, Mapping):
        return str(sorted(map(str, source)))
    return "nothing" if source is None else f"a {type(source).__name__}"


_floats: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def look_up_float(
    key: Key, outputs: Any, batch: Any, caller: str, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The tensor under a key, detached, and in this floating-point type unless it holds integers.

    Callbacks that read the same tensor share one conversion.
    """
    value = find(key, outputs, batch, caller)
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == dtype:
        return look_up(key, outputs, batch, caller)
    converted: dict[torch.dtype, Tensor] = _floats.setdefault(value, {})
    if dtype not in converted:
        converted[dtype] = value.detach().to(dtype)
    return converted[dtype]


def check_rows(features: Tensor, targets: Tensor, names: tuple[Key, Key], caller: str) -> None:
    """Refuse features and targets that are not row by row of the same samples.

    Raises:
        ValueError: If they differ in length.
    """
    if len(features) != len(targets):
        raise ValueError(
            f"{caller} needs one {names[1]!r} per row of {names[0]!r}, got {tuple(targets.shape)} "
            f"and {tuple(features.shape)}. Return both from the step; with two views, concatenate "
            "the labels as the embeddings."
        )


def check_width(
    features: Tensor, expected: int | tuple[int, ...] | None, setting: str, key: Key, caller: str
) -> None:
    """Refuse features of another shape than the user said, ``(N, *expected)``.

    Raises:
        ValueError: If the shape differs.
    """
    if expected is None:
        return
    shape = (expected,) if isinstance(expected, int) else tuple(expected)
    if tuple(features.shape[1:]) != shape:
        raise ValueError(
            f"{caller} was told `{setting}={expected}`, but {key!r} has shape "
            f"{tuple(features.shape)}."
        )


def expose(outputs: Any, name: str, value: Tensor, caller: str) -> None:
    """Put predictions into the dict that the step returned, for later callbacks to read.

    Raises:
        ValueError: If the step has a value of that name.
    """
    if not isinstance(outputs, MutableMapping):
        return
    if name in outputs:
        raise ValueError(
            f"{caller} writes its predictions to {name!r}, but the step already returned that key; "
            "rename the callback."
        )
    outputs[name] = value
