"""Weights from timm and torchvision, without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from spt_jax._compat import read, write

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
IGNORED = ("num_batches_tracked",)
HEADS = ("fc.", "head.", "fc_norm.", "head_dist.")


def from_torch(module: Any, state_dict: Mapping[str, Any]) -> Any:
    """Copy weights and running statistics of a torch model into a backbone, in place.

    Args:
        module: A ``ResNet`` or ``ViT`` of this package, or any ``nnx.Module`` with ``torch_names()``; it maps
            our modules' names to torch's.
        state_dict: Tensors or arrays by torch's names: torchvision's or timm's ResNets, timm's
            ViTs. Classification heads are left out.

    Returns:
        The module.

    Raises:
        TypeError: If the module has no ``torch_names()``.
        ValueError: If an array is missing, has another shape, or belongs to nothing.
    """
    if not hasattr(module, "torch_names"):
        raise TypeError(
            f"`from_torch` knows ResNet and ViT, got {type(module).__name__} without `torch_names()`."
        )
    names = module.torch_names()
    used: set[str] = set()
    for path, variable in list(nnx.iter_graph(module)):
        if not isinstance(variable, (nnx.Param, nnx.BatchStat)):
            continue
        name = torch_name([str(part) for part in path], names)
        if name not in state_dict:
            raise ValueError(f"`state_dict` has no {name!r} for {'.'.join(map(str, path))!r}.")
        used.add(name)
        value = as_flax(np.asarray(state_dict[name]), str(path[-1]))
        if value.shape != read(variable).shape:
            raise ValueError(
                f"{name!r} has shape {np.shape(state_dict[name])}, which does not fit "
                f"{'.'.join(map(str, path))!r} of shape {read(variable).shape}. Build the backbone with "
                "the same settings."
            )
        write(variable, np.array(value, np.float32))
    rest = [n for n in state_dict if n not in used and not n.endswith(IGNORED)]
    rest = [n for n in rest if not n.startswith(HEADS)]
    if rest:
        raise ValueError(f"`state_dict` holds arrays that belong to nothing here: {rest[:5]}.")
    return module


def torch_name(path: list[str], names: Mapping[str, str]) -> str:
    """Torch's name of a variable.

    Raises:
        ValueError: If the variable's module has none.
    """
    whole, owner = ".".join(path), ".".join(path[:-1])
    if whole in names:  # a token or a table
        return names[whole]
    if owner not in names or path[-1] not in LEAVES:
        raise ValueError(f"There is no torch name for {whole!r}.")
    return f"{names[owner]}.{LEAVES[path[-1]]}"


def as_flax(value: np.ndarray, leaf: str) -> np.ndarray:
    """An array in Flax's layout: kernels ``(in, out)`` and ``(height, width, in, out)``."""
    if leaf != "kernel":
        return value
    return value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)
