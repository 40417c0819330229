"""Looking values up: in the mapping that the step returned, then in the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

Key = str | Callable[[Any, Any], Tensor]


class MissingKeyError(KeyError):
    """A callback asked for a key that is neither in the step's outputs nor in the batch."""

    def __str__(self) -> str:
        return str(self.args[0])


def look_up(key: Key, outputs: Any, batch: Any, caller: str) -> Tensor:
    """The tensor under a key, detached.

    Args:
        key: A key of the outputs or of the batch; dots descend into mappings. Or a function
            of (outputs, batch).
        outputs: What the step returned.
        batch: What the loader gave.
        caller: Who asks, for messages.

    Raises:
        MissingKeyError: If the key is in neither.
        TypeError: If the value is no tensor.
    """
    if callable(key):
        value = key(outputs, batch)
    else:
        for source in (outputs, batch):
            found, value = _descend(source, key)
            if found:
                break
        else:
            raise MissingKeyError(
                f"{caller} needs the key {key!r}; the step returned {_contents(outputs)}, the "
                f"batch holds {_contents(batch)}."
            )
    if not isinstance(value, Tensor):
        raise TypeError(f"{caller} needs a tensor at {key!r}, got {type(value).__name__}.")
    return value.detach()


def _descend(source: Any, key: str) -> tuple[bool, Any]:
    if not isinstance(source, Mapping):
        return False, None
    if key in source:
        return True, source[key]
    head, dot, rest = key.partition(".")
    return _descend(source[head], rest) if dot and head in source else (False, None)


def _contents(source: Any) -> str:
    if isinstance(source, Mapping):
        return str(sorted(map(str, source)))
    return "nothing" if source is None else f"a {type(source).__name__}"


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
