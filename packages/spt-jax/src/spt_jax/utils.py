"""Small conversions between torch and JAX that need no torch."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from spt_jax._compat import modules_of, write


def to_jax(tree: Any) -> Any:
    """Tensors and arrays anywhere in a tree as JAX arrays; other leaves stay as they are."""

    def convert(leaf: Any) -> Any:
        if hasattr(leaf, "detach"):
            leaf = leaf.detach().cpu().numpy()
        return jnp.asarray(leaf) if isinstance(leaf, (np.ndarray, np.generic)) else leaf

    return jax.tree.map(convert, tree)


def copy_linear_(dst: nnx.Linear, weight: Any, bias: Any = None) -> None:
    """Copy a torch linear layer's weight ``(out, in)`` and bias into a Flax one, in place.

    Raises:
        ValueError: If the shapes differ.
    """
    kernel = np.asarray(weight).T
    if kernel.shape != dst.kernel.shape:
        raise ValueError(f"`weight` of shape {np.shape(weight)} does not fit {dst.kernel.shape}.")
    write(dst.kernel, np.array(kernel))
    if bias is not None:
        write(dst.bias, np.array(bias))


def copy_torch_params_(dst: nnx.Module, src: Any) -> None:
    """Copy the linear layers of a torch module, or of its state dict, into ours, in order.

    For whole ResNets and ViTs see ``from_torch``.

    Raises:
        ValueError: If the numbers of layers differ.
    """
    state = src if isinstance(src, dict) else src.state_dict()
    arrays = {name: to_jax(value) for name, value in state.items()}
    weights = [
        name for name, value in arrays.items() if value.ndim == 2 and name.endswith("weight")
    ]
    layers = [layer for layer in modules_of(dst) if isinstance(layer, nnx.Linear)]
    if len(weights) != len(layers):
        raise ValueError(
            f"There are {len(weights)} linear layers in `src` and {len(layers)} in `dst`."
        )
    for layer, name in zip(layers, weights, strict=True):
        copy_linear_(layer, arrays[name], arrays.get(name.removesuffix("weight") + "bias"))
