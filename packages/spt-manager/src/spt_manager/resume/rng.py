"""The random state of a process as tensors and plain values, which load with ``weights_only``."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


def rng_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's generators, and of this rank's device.

    Example:
        >>> state = rng_state()
        >>> first = (random.random(), np.random.rand(), torch.rand(1).item())
        >>> set_rng_state(state)
        >>> first == (random.random(), np.random.rand(), torch.rand(1).item())
        True
    """
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    state = {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
    }
    device = _accelerator()
    if device is not None:
        state[device.__name__] = device.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Go back to a state; that of an absent device is left out."""
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(_words(python["words"])), python["gauss"]))
    keys = numpy["keys"].cpu().numpy().astype(np.uint32)
    np.random.set_state(  # noqa: NPY002
        (numpy["name"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"])
    )
    torch.set_rng_state(state["torch"].cpu())
    device = _accelerator()
    if device is not None and device.__name__ in state:
        device.set_rng_state(state[device.__name__].cpu())


def same_rng_state(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two states are equal, so that nothing was drawn between them."""
    if a.keys() != b.keys():
        return False
    return all(_same(a[name], b[name]) for name in a)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return all(_same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)


def _words(words: Tensor) -> list[int]:
    numbers: list[int] = words.tolist()
    return numbers


def _accelerator() -> Any:
    """The device module whose generator this process uses, once it has been used."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda
    if torch.backends.mps.is_available():
        return torch.mps
    return None
