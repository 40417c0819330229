"""Files that appear whole or not at all: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_file(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Write a file that replaces ``path`` when the block ends, and never partly.

    The temporary file stands beside the target and has the permissions that the umask gives.
    If the block fails it is removed and the target is as it was.

    Args:
        path: The target; its folder must exist.
        mode: ``"wb"`` or ``"w"`` (UTF-8).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    handle = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def atomic_write_bytes(path: str | Path, content: bytes) -> None:
    """Replace a file."""
    with atomic_file(path) as file:
        file.write(content)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Replace a text file."""
    with atomic_file(path, "w") as file:
        file.write(text)


def atomic_write_json(path: str | Path, value: Any) -> None:
    """Replace a JSON file; see :func:`to_json` for what becomes of values JSON lacks."""
    atomic_write_text(path, json.dumps(to_json(value), indent=2) + "\n")


def to_json(value: Any) -> Any:
    """A value made of JSON's own kinds.

    Non-finite numbers become the strings ``"nan"``, ``"inf"`` and ``"-inf"``; numbers of other
    libraries their Python number; anything else its ``str``.

    Example:
        >>> to_json({"lr": 0.1, 3: float("inf"), "path": Path("a/b")})
        {'lr': 0.1, '3': 'inf', 'path': 'a/b'}
    """
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return to_json(value.item())
    return str(value)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping with dotted keys; empty containers stay.

    Example:
        >>> flatten({"optim": {"lr": 0.1, "betas": [0.9, 0.95]}, "tags": []})
        {'optim.lr': 0.1, 'optim.betas.0': 0.9, 'optim.betas.1': 0.95, 'tags': []}
    """
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [(str(i), item) for i, item in enumerate(value)]
    else:
        return {prefix: value}
    if not items:
        return {prefix: {} if isinstance(value, Mapping) else []} if prefix else {}
    flat: dict[str, Any] = {}
    for key, item in items:
        flat.update(flatten(item, f"{prefix}.{key}" if prefix else key))
    return flat
