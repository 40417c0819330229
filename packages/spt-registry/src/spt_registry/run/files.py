"""Files that appear whole or not at all: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import enum
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    temporary.touch(exist_ok=False)
    try:
        with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sweep(folder: Path, names: Sequence[str]) -> None:
    """Remove temporary files of these targets that a killed writer left."""
    for name in names:
        for path in folder.glob(f".{name}.*.tmp"):
            path.unlink(missing_ok=True)


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


MAX_STRING = 1_000_000
MAX_ELEMENTS = 1000
MAX_DEPTH = 64


def to_json(value: Any, depth: int = 0) -> Any:
    """A value made of JSON's own kinds.

    Non-finite numbers become the strings ``"nan"``, ``"inf"`` and ``"-inf"``; numbers and small
    arrays of other libraries Python's; an enum its value; sets sorted lists; keys strings;
    anything else its ``str``. Strings of more than a million characters are cut and say so, larger
    arrays give their shape, and what nests deeper than 64 levels its ``str``.

    Args:
        value: Anything.
        depth: How deep it lies.

    Example:
        >>> to_json({"lr": 0.1, 3: float("inf"), "path": Path("a/b")})
        {'lr': 0.1, '3': 'inf', 'path': 'a/b'}
    """
    if isinstance(value, enum.Enum):
        return to_json(value.value, depth + 1)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, str):
        return _short(str(value))
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {_short(key_name(key)): to_json(item, depth + 1) for key, item in value.items()}
    if depth < MAX_DEPTH and isinstance(value, (list, tuple)):
        return [to_json(item, depth + 1) for item in value]
    if depth < MAX_DEPTH and isinstance(value, (set, frozenset)):
        return sorted((to_json(item, depth + 1) for item in value), key=repr)
    return _foreign(value, depth)


def _foreign(value: Any, depth: int) -> Any:
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and hasattr(value, "tolist"):
        if math.prod(shape) > MAX_ELEMENTS:
            return f"{type(value).__name__} of shape {tuple(shape)}, {value.dtype}"
        return to_json(value.tolist(), depth + 1)
    return _short(str(value))


def _short(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate is no UTF-8
    if len(text) <= MAX_STRING:
        return text
    return f"{text[: MAX_STRING - 50]}... ({len(text)} characters)"


def key_name(key: Any) -> str:
    """A mapping's key as text; an enum's is its value."""
    return str(key.value if isinstance(key, enum.Enum) else key)


def flatten(value: Any, prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Nested mappings and lists as one mapping with dotted keys; empty containers stay.

    Example:
        >>> flatten({"optim": {"lr": 0.1, "betas": [0.9, 0.95]}, "tags": []})
        {'optim.lr': 0.1, 'optim.betas.0': 0.9, 'optim.betas.1': 0.95, 'tags': []}
    """
    if depth > MAX_DEPTH:
        return {prefix: str(value)}
    if isinstance(value, Mapping):
        items = [(key_name(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [(str(i), item) for i, item in enumerate(value)]
    else:
        return {prefix: value}
    if not items:
        return {prefix: {} if isinstance(value, Mapping) else []} if prefix else {}
    flat: dict[str, Any] = {}
    for key, item in items:
        flat.update(flatten(item, f"{prefix}.{key}" if prefix else key, depth + 1))
    return flat


def file_system_time(folder: str | Path) -> float:
    """Now, by the clock of the file system that holds a folder.

    Clocks of nodes differ; modification times on one file system are comparable. A file is
    touched and removed again; where that is not allowed this machine's clock must do.
    """
    probe = Path(folder) / f".clock.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            return os.stat(probe).st_mtime
        finally:
            os.unlink(probe)
    except OSError:  # read-only, full or vanished
        return time.time()
