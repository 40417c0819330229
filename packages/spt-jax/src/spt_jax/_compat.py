"""The few calls that differ between Flax releases."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import jax
from flax import nnx


def read(variable: Any) -> jax.Array:
    """The array of a variable."""
    value: jax.Array = variable.get_value() if hasattr(variable, "get_value") else variable.value
    return value


def write(variable: Any, value: Any) -> None:
    """Set the array of a variable."""
    if hasattr(variable, "set_value"):
        variable.set_value(value)
    else:
        variable.value = value


def modules_of(module: nnx.Module) -> Iterator[nnx.Module]:
    """The module and everything below it, each once."""
    for _, node in nnx.iter_graph(module):
        if isinstance(node, nnx.Module):
            yield node


def merge(graph: Any, *states: Any) -> Any:
    """A module of its own from structure and values; older Flax always copies the variables."""
    copies = {"copy": True} if "copy" in inspect.signature(nnx.merge).parameters else {}
    return nnx.merge(graph, *states, **copies)


def split(module: nnx.Module) -> tuple[Any, Any, Any]:
    """Structure, weights, and everything else, such as running statistics."""
    graph, params, rest = nnx.split(module, nnx.Param, ...)  # type: ignore[misc]
    return graph, params, rest


def list_of(items: list[Any]) -> Any:
    """A list whose modules belong to the module that has it; older Flax takes a plain one."""
    return nnx.List(items) if hasattr(nnx, "List") else items


def dict_of(items: dict[str, Any]) -> Any:
    """As :func:`list_of`, by name."""
    return nnx.Dict(items) if hasattr(nnx, "Dict") else items
