"""A loader's place as values that JSON can hold: arrays, tensors, bytes and tuples included."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

KIND = "__kind__"
"""Key that marks what JSON has no word for."""


def encoded(value: Any) -> Any:
    """A state in JSON's words.

    Raises:
        TypeError: If it holds a value of another kind.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [encoded(item) for item in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and KIND not in value:
            return {key: encoded(item) for key, item in value.items()}
        return _marked("dict", [[encoded(key), encoded(item)] for key, item in value.items()])
    if isinstance(value, tuple):
        return _marked("tuple", [encoded(item) for item in value])
    if isinstance(value, bytes):
        return _marked("bytes", base64.b64encode(value).decode())
    return _array(value)


def decoded(value: Any) -> Any:
    """The state again; a tensor needs the torch that its loader has imported."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if KIND not in value:
        return {key: decoded(item) for key, item in value.items()}
    return DECODERS[value[KIND]](value["value"])


def _marked(kind: str, value: Any) -> dict[str, Any]:
    return {KIND: kind, "value": value}


def _array(value: Any) -> dict[str, Any]:
    """An array, a number of NumPy's, or a tensor, by its bytes."""
    tensor = type(value).__module__ == "torch" and hasattr(value, "detach")
    array = np.asarray(value.detach().cpu() if tensor else value)
    if array.dtype.hasobject:
        raise TypeError(
            f"The loader's `state_dict` holds a {type(value).__name__}, which no checkpoint can keep; it may "
            "hold numbers, texts, bytes, arrays, tensors, and lists, tuples and dicts of them."
        )
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    kind = "tensor" if tensor else "array" if isinstance(value, np.ndarray) else "number"
    return _marked(kind, base64.b64encode(file.getvalue()).decode())


def _loaded(text: str) -> np.ndarray:
    found: np.ndarray = np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
    return found


DECODERS: dict[str, Any] = {
    "dict": lambda pairs: {decoded(key): decoded(item) for key, item in pairs},
    "tuple": lambda items: tuple(decoded(item) for item in items),
    "bytes": base64.b64decode,
    "array": _loaded,
    "number": lambda text: _loaded(text)[()],
    "tensor": lambda text: sys.modules["torch"].from_numpy(_loaded(text)),
}
