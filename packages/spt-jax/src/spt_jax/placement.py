"""Where arrays live: on one device, or over all devices of all processes."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Placement:
    """Puts states and batches on devices, and brings values back.

    Args:
        data_parallel: Split batches over all visible devices; states are kept whole on each.
            The compiled step sees one logical batch, so losses, negatives and BatchNorm
            statistics are those of all devices together.
    """

    def __init__(self, data_parallel: bool) -> None:
        self.replicated: NamedSharding | None = None
        self.splits: tuple[NamedSharding, NamedSharding] | None = None
        self.devices = len(jax.devices()) if data_parallel else 1
        if data_parallel:
            mesh = Mesh(np.asarray(jax.devices()), ("data",))
            self.replicated = NamedSharding(mesh, PartitionSpec())
            plain, stacked = PartitionSpec("data"), PartitionSpec(None, "data")
            self.splits = NamedSharding(mesh, plain), NamedSharding(mesh, stacked)
            self._spread = jax.jit(copied, out_shardings=self.replicated)

    def check_rows(self, rows: int) -> None:
        """Refuse a batch that cannot be split.

        Args:
            rows: Rows of this process's part.

        Raises:
            ValueError: If they do not divide by this process's devices.
        """
        own = self.devices // jax.process_count() if self.replicated is not None else 1
        if rows % own:
            raise ValueError(
                f"A batch of {rows} rows cannot be split over {own} devices; choose a multiple."
            )

    def batch(self, tree: Any, *, stacked: bool = False) -> Any:
        """Arrays of this process on their devices.

        Args:
            tree: Arrays whose rows are split; with ``stacked`` behind an axis of micro-batches.
            stacked: Whether there is that axis.
        """
        if self.splits is None:
            return jax.device_put(tree)
        sharding = self.splits[stacked]
        if jax.process_count() == 1:
            return jax.device_put(tree, sharding)
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
        )

    def state(self, tree: Any) -> Any:
        """Fresh arrays, whole on each device; equal on all processes."""
        if self.replicated is None:
            return copied(tree)
        if jax.process_count() == 1:
            return self._spread(tree)
        return jax.tree.map(self._everywhere, tree)

    def _everywhere(self, leaf: Any) -> jax.Array:
        """An array of this process, the same in all, as one of all processes' devices."""
        typed = is_key(leaf)
        value = np.asarray(jax.random.key_data(leaf) if typed else leaf)
        assert self.replicated is not None
        array = jax.make_array_from_callback(value.shape, self.replicated, lambda i: value[i])
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf)) if typed else array

    def jit(self, function: Any, donate: tuple[int, ...] = ()) -> Any:
        """Compile a function whose results are whole on each device."""
        if self.replicated is None:
            return jax.jit(function, donate_argnums=donate)
        return jax.jit(function, donate_argnums=donate, out_shardings=self.replicated)


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed random key."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jax.numpy.issubdtype(dtype, jax.dtypes.prng_key)


def copied(tree: Any) -> Any:
    """New arrays of the same content."""
    return jax.tree.map(jax.numpy.copy, tree)


def fetch(tree: Any) -> Any:
    """Bring arrays to the host, all in one transfer; the only place where a run waits for its device."""
    return jax.device_get(tree)


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def all_processes(name: str) -> None:
    """Wait until every process is here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
