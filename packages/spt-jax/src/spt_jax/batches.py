"""From a loader's batch to arrays of one fixed shape, with a weight for each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

WEIGHT = "sample_weight"
"""Key of the row weights in every batch: 1 for a row of the data, 0 for one that only fills up."""


def arrays_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a batch, at any depth; what cannot be an array of numbers is left out.

    Raises:
        TypeError: If the batch is no mapping.
    """
    if not isinstance(batch, Mapping):
        raise TypeError(f"A batch must be a dict, got {type(batch).__name__}.")
    found = {str(name): _arrays(value) for name, value in batch.items()}
    return {name: value for name, value in found.items() if value is not None}


def _arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        return arrays_of(value)
    if isinstance(value, (list, tuple)) and value and not np.isscalar(value[0]):
        parts = [_arrays(item) for item in value]
        return parts if all(part is not None for part in parts) else None
    array = np.asarray(value)
    numeric = array.dtype.kind in "biuf" or array.dtype.name == "bfloat16"
    return array if numeric and array.ndim > 0 else None


def rows_of(arrays: Any) -> int:
    """Rows of a batch.

    Raises:
        ValueError: If it has no array, or arrays of different lengths.
    """
    lengths = {len(leaf) for leaf in jax.tree.leaves(arrays)}
    if len(lengths) != 1:
        raise ValueError(
            f"The arrays of a batch must have one number of rows, got {sorted(lengths)}."
        )
    return lengths.pop()


def filled(arrays: dict[str, Any], rows: int, filling: dict[str, Any]) -> dict[str, Any]:
    """A batch of exactly so many rows, with the weights of its rows.

    Args:
        arrays: The batch, with at most ``rows`` rows.
        rows: How many there shall be.
        filling: A batch of the same structure that gives the missing rows.

    Raises:
        ValueError: If the structure or the shapes differ, or there are too many rows.
    """
    n = rows_of(arrays)
    check_alike(arrays, filling)
    if n > rows:
        raise ValueError(
            f"A batch has {n} rows, the first one had {rows}; batches must not grow. "
            "Give the loader one `batch_size`."
        )
    if n < rows:
        index = np.arange(rows - n) % rows_of(filling)
        arrays = jax.tree.map(lambda x, f: np.concatenate([x, f[index]]), arrays, filling)
    return {**arrays, WEIGHT: (np.arange(rows) < n).astype(np.float32)}


def check_alike(arrays: dict[str, Any], model: dict[str, Any]) -> None:
    """Refuse a batch that differs from the first one in more than its number of rows.

    Raises:
        ValueError: With what came and what is expected.
    """
    if description(arrays) != description(model):
        raise ValueError(
            f"A batch holds {description(arrays)}, the first one held {description(model)}; all "
            "batches must have the same keys, shapes and types."
        )


def description(arrays: Any) -> dict[str, str]:
    """Type and shape of a row, by path."""
    leaves = jax.tree_util.tree_flatten_with_path(arrays)[0]
    return {
        jax.tree_util.keystr(path).strip("[]'"): f"{leaf.dtype}{list(leaf.shape[1:])}"
        for path, leaf in leaves
    }


def parts_of(arrays: dict[str, Any], rows: int) -> Iterator[dict[str, Any]]:
    """A batch in parts of exactly so many rows, the last one filled with rows of its own."""
    for start in range(0, rows_of(arrays), rows):
        part = jax.tree.map(lambda x, start=start: x[start : start + rows], arrays)
        yield filled(part, rows, part)


def tiled_weight(weight: jax.Array, rows: int, caller: str) -> jax.Array:
    """Row weights for outputs that hold several views of each row, one after the other.

    Args:
        weight: Shape ``(B,)``.
        rows: Rows of the outputs, a multiple of B.
        caller: Who asks, for the error.

    Raises:
        ValueError: If ``rows`` is no multiple.
    """
    if rows % len(weight):
        raise ValueError(f"{caller} got {rows} rows from a batch of {len(weight)}.")
    return jax.numpy.tile(weight, rows // len(weight))
