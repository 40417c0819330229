"""A tree of arrays as a flat mapping from paths to arrays on the host, as checkpoints hold it."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spt_jax.placement import is_key


def flat(state: Any) -> dict[str, np.ndarray]:
    """Arrays on the host by their path; typed random keys as their data."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    plain = {path_name(path): plain_array(leaf) for path, leaf in leaves}
    return {name: np.asarray(value) for name, value in jax.device_get(plain).items()}


def path_name(path: Any) -> str:
    """A path in words: ``params/backbone/conv/kernel``."""
    words = [
        str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part))))
        for part in path
    ]
    return "/".join(word.strip(".") for word in words)


def unflat(arrays: dict[str, Any], state: Any) -> Any:
    """Arrays in the structure of a state, random keys typed as there."""
    paths, structure = jax.tree_util.tree_flatten_with_path(state)
    leaves = [alike(arrays[path_name(path)], model) for path, model in paths]
    return jax.tree.unflatten(structure, leaves)


def plain_array(leaf: Any) -> Any:
    """A leaf as an array of numbers; a typed random key as its data."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def alike(stored: Any, model: Any) -> Any:
    """Stored numbers, as a random key where the model has one."""
    if not is_key(model):
        return jax.numpy.asarray(stored)
    return jax.random.wrap_key_data(jax.numpy.asarray(stored), impl=jax.random.key_impl(model))


def checksums(arrays: dict[str, np.ndarray]) -> dict[str, list[Any]]:
    """CRC-32, type and shape of each array."""
    return {
        name: [zlib.crc32(np.ascontiguousarray(x).view(np.uint8).data), str(x.dtype), list(x.shape)]
        for name, x in arrays.items()
    }


def check_structure(stored: dict[str, Any], expected: dict[str, Any], path: Path) -> None:
    """Refuse a checkpoint of another module, optimizer or callbacks.

    Raises:
        ValueError: With the first differences.
    """
    missing, extra = sorted(set(expected) - set(stored)), sorted(set(stored) - set(expected))
    shapes = {
        name: (_shape_of(stored[name]), list(np.shape(expected[name])))
        for name in sorted(set(stored) & set(expected))
        if _shape_of(stored[name]) != list(np.shape(expected[name]))
    }
    if missing or extra or shapes:
        raise ValueError(
            f"{path} belongs to another module, optimizer or callbacks: it lacks {missing[:3]}, has "
            f"{extra[:3]} besides, and other shapes (there, here) in {dict(list(shapes.items())[:3])}. "
            "Resume with the same ones, or start a new run."
        )


def _shape_of(stored: Any) -> list[int]:
    return list(stored[2]) if isinstance(stored, list) else list(np.shape(stored))
