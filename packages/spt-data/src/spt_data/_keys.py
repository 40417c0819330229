"""Paths into a sample: ``"image"``, ``"views.0.image"``, several at once, or ``""`` for all of it.

Writing copies the containers on the way, so the sample that was given stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from spt_data._errors import keys_of, name_of

Path: TypeAlias = str | Sequence[str]


def as_paths(path: Path) -> tuple[str, ...]:
    """One path or several as a tuple."""
    return (path,) if isinstance(path, str) else tuple(path)


def read(sample: Any, path: str, reader: str) -> Any:
    """The value at a path; a key that contains dots itself comes before a descent.

    Args:
        sample: A dict, possibly of dicts and lists.
        path: Keys joined by dots; a number is a place in a list.
        reader: Who asks, for the message.

    Raises:
        KeyError: If there is no such key; it names the reader, the sample and the keys there.

    Example:
        >>> read({"views": [{"image": 1}, {"image": 2}]}, "views.1.image", "ToImage")
        2
    """
    if path == "":
        return sample
    if isinstance(sample, Mapping) and path in sample:
        return sample[path]
    value = sample
    for part in path.split("."):
        try:
            value = _child(value, part)
        except (KeyError, IndexError, TypeError):
            raise KeyError(_missing(sample, value, path, part, reader)) from None
    return value


def _child(value: Any, part: str) -> Any:
    if isinstance(value, (list, tuple)):
        if not part.isdigit():
            raise KeyError(part)
        return value[int(part)]
    if not isinstance(value, Mapping):
        raise KeyError(part)
    return value[part]


def _missing(sample: Any, inner: Any, path: str, part: str, reader: str) -> str:
    name = name_of(sample).removeprefix("the ")
    text = f"{reader} needs the key {path!r}; the {name} has {keys_of(sample)}"
    if inner is not sample:
        there = f"{len(inner)} entries" if isinstance(inner, (list, tuple)) else keys_of(inner)
        text += f", and where {part!r} is looked up there are {there}"
    return f"{text}."


def write(sample: Any, path: str, value: Any) -> Any:
    """A copy of the sample with the value at a path.

    Example:
        >>> before = {"a": [{"b": 1}]}
        >>> write(before, "a.0.c", 2), before
        ({'a': [{'b': 1, 'c': 2}]}, {'a': [{'b': 1}]})
    """
    if path == "":
        return value
    if path in sample:
        return {**sample, path: value}
    return _write(sample, path.split("."), value)


def _write(container: Any, parts: list[str], value: Any) -> Any:
    first, rest = parts[0], parts[1:]
    if isinstance(container, (list, tuple)):
        items = list(container)
        items[int(first)] = _write(items[int(first)], rest, value) if rest else value
        return items if isinstance(container, list) else tuple(items)
    inner = container.get(first, {})
    return {**container, first: _write(inner, rest, value) if rest else value}


def copy_containers(value: Any) -> Any:
    """New dicts and lists around the same leaves."""
    if type(value) is dict:
        return {key: copy_containers(item) for key, item in value.items()}
    if type(value) is list:
        return [copy_containers(item) for item in value]
    return value


def containers_of(sample: Any, paths: Sequence[str]) -> list[str]:
    """Paths of the dicts that hold the values; none lies within another.

    Example:
        >>> containers_of({"views": [{"image": 1}, {"image": 2}]}, ["views.1.image"])
        ['views.1']
    """
    found = sorted({_container_of(sample, path) for path in paths}, key=len)
    if "" in found:
        return [""]
    outer: list[str] = []
    for path in found:
        if not any(path.startswith(f"{other}.") for other in outer):
            outer.append(path)
    return outer


def _container_of(sample: Any, path: str) -> str:
    parts = [] if path in sample else path.split(".")[:-1]
    while parts and not isinstance(read(sample, ".".join(parts), "a transform"), Mapping):
        parts.pop()
    return ".".join(parts)
