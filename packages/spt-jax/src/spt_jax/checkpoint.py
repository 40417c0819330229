"""One file with the whole state, checked by its own digest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization
from loguru import logger
from spt_registry.run import atomic_file

MAGIC = b"SPTJAX01"


class CorruptCheckpointError(ValueError):
    """A checkpoint's content does not have the digest it was written with."""


def save(path: str | Path, state: Any, **meta: int) -> None:
    """Write a state; the file it replaces stays as ``<stem>-previous<suffix>``.

    Args:
        path: Where.
        state: A tree of arrays.
        **meta: Numbers to keep beside it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    leaves = jax.device_get([plain(leaf) for leaf in jax.tree.leaves(state)])
    numbered = {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)}
    payload = serialization.msgpack_serialize({"leaves": numbered, "meta": dict(meta)})
    with atomic_file(path) as file:
        file.write(MAGIC + hashlib.sha256(payload).digest() + payload)
        if path.exists():
            link = path.with_name(f".{path.name}.{os.getpid()}")
            link.unlink(missing_ok=True)
            os.link(path, link)
            os.replace(link, previous(path))


def plain(leaf: Any) -> Any:
    """A leaf as an array of numbers; a typed random key as its data."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def alike(stored: np.ndarray, model: Any) -> jax.Array:
    """Stored numbers as an array, or as a random key where the model has one."""
    array = jax.numpy.asarray(stored)
    if not is_key(model):
        return array
    key: jax.Array = jax.random.wrap_key_data(array, impl=jax.random.key_impl(model))
    return key


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed random key."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jax.numpy.issubdtype(dtype, jax.dtypes.prng_key)


def previous(path: Path) -> Path:
    """Where the checkpoint before this one is."""
    return path.with_name(f"{path.stem}-previous{path.suffix}")


def load(path: str | Path, state: Any) -> tuple[Any, dict[str, int]]:
    """Read a state into the structure of another one.

    Args:
        path: A file of :func:`save`.
        state: A state of the same structure and shapes.

    Returns:
        The state, and the numbers kept beside it.

    Raises:
        CorruptCheckpointError: If the file is damaged.
        ValueError: If it holds another structure.
    """
    content = Path(path).read_bytes()
    digest, payload = content[len(MAGIC) : len(MAGIC) + 32], content[len(MAGIC) + 32 :]
    if not content.startswith(MAGIC) or hashlib.sha256(payload).digest() != digest:
        raise CorruptCheckpointError(f"The checkpoint {path} is corrupt.")
    stored = serialization.msgpack_restore(payload)
    leaves, structure = jax.tree.flatten(state)
    found = [stored["leaves"][str(i)] for i in range(len(stored["leaves"]))]
    expected = [(leaf.shape, np.dtype(leaf.dtype)) for leaf in map(plain, leaves)]
    if [(leaf.shape, leaf.dtype) for leaf in found] != expected:
        raise ValueError(
            f"{path} holds {len(found)} arrays of other shapes than the {len(leaves)} of this module, "
            "optimizer and callbacks. Resume with the same ones."
        )
    restored = [alike(leaf, model) for leaf, model in zip(found, leaves, strict=True)]
    return jax.tree.unflatten(structure, restored), dict(stored["meta"])


def load_newest(path: Path, state: Any) -> tuple[Any, dict[str, int]] | None:
    """The last checkpoint, or the one before it if the last is corrupt; ``None`` without one.

    A corrupt file is set aside with a message; nothing is deleted.
    """
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        try:
            return load(candidate, state)
        except CorruptCheckpointError as error:
            aside = candidate.with_name(f"{candidate.name}.corrupt-{candidate.stat().st_mtime_ns}")
            os.replace(candidate, aside)
            logger.error(f"{error} It is set aside as {aside.name}; the one before is used.")
    return None
