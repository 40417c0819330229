"""The blocks of a network by name: where to read features from."""

from __future__ import annotations

from collections.abc import Iterator

import timm
import torch
from torch import nn


def block_names(model: nn.Module | str) -> list[str]:
    """Names of the repeated blocks, in the order in which the network holds them.

    These are the entries of its outermost ``ModuleList`` and ``Sequential``, as in ``layer1.0`` of
    a ResNet and ``blocks.0`` of a vision transformer; entries without weights are left out. The
    names fit :class:`HiddenStateExtractor` and ``spt_callbacks.EmbeddingCache``.

    Args:
        model: A network, or the name of one of timm's, whose weights are then not made.

    Raises:
        ValueError: If there are no such blocks.

    Example:
        >>> block_names("resnet18")[:3]
        ['layer1.0', 'layer1.1', 'layer2.0']
    """
    if isinstance(model, str):
        with torch.device("meta"):
            model = timm.create_model(model)
    names = list(_entries(model, ""))
    if not names:
        raise ValueError(f"{type(model).__name__} has no ModuleList or Sequential with weights.")
    return names


def _entries(module: nn.Module, path: str) -> Iterator[str]:
    for name, child in module.named_children():
        where = f"{path}.{name}" if path else name
        if not any(True for _ in child.parameters()):
            continue
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            yield where
        else:
            yield from _entries(child, where)
