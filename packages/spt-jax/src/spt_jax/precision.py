"""Numeric precision of the activations; weights, statistics and losses stay in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import jax.numpy as jnp
from flax import nnx

from spt_jax._compat import modules_of

Precision = Literal["f32", "bf16"]


def check_precision(precision: str) -> None:
    """Refuse a precision that is not known.

    Raises:
        ValueError: If it is neither ``"f32"`` nor ``"bf16"``.
    """
    if precision not in ("f32", "bf16"):
        raise ValueError(f"`precision` must be 'f32' or 'bf16', got {precision!r}.")


@contextmanager
def computing_in(module: nnx.Module, precision: Precision) -> Iterator[None]:
    """Let every layer without a ``dtype`` of its own compute in this precision, inside the block.

    A layer with a ``dtype`` casts its inputs and weights to it; its parameters stay as they are.
    """
    changed: list[Any] = []
    if precision == "bf16":
        layers: list[Any] = list(modules_of(module))
        for layer in layers:
            if hasattr(layer, "param_dtype") and getattr(layer, "dtype", 0) is None:
                layer.dtype = jnp.bfloat16
                changed.append(layer)
    try:
        yield
    finally:
        for layer in changed:
            layer.dtype = None
