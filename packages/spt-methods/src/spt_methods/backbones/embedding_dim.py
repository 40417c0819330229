"""Another width for what a network returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from spt_methods.backbones.torchvision import HEADS


def set_embedding_dim(
    module: nn.Module,
    dim: int,
    bias: bool = True,
    expected_input_shape: Sequence[int] | None = None,
    expected_output_shape: Sequence[int] | None = None,
) -> nn.Module:
    """Put a flattening and a new linear layer of ``dim`` outputs in the place of the head.

    The head is the last linear layer under ``fc``, ``classifier``, ``head`` or ``heads``, or the
    identity that :func:`from_timm` and :func:`from_torchvision` leave there.

    Args:
        module: A network, changed in place; all other weights stay as they are.
        dim: Width.
        bias: Whether the new layer has one.
        expected_input_shape: Shape of a batch, to try the network on.
        expected_output_shape: What it must then return, ``(N, dim)`` by default.

    Returns:
        ``module``.

    Raises:
        ValueError: If there is no head, or another shape comes out.

    Example:
        >>> from spt_methods.backbones import from_torchvision
        >>> net = set_embedding_dim(from_torchvision("resnet18"), 16)
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 16])
    """
    holder, name, width = _head(module)
    setattr(holder, name, nn.Sequential(nn.Flatten(), nn.Linear(width, dim, bias=bias)))
    if expected_input_shape is not None:
        given = tuple(expected_input_shape)
        expected = tuple(expected_output_shape or (given[0], dim))
        found = _output_shape(module, given)
        if found != expected:
            raise ValueError(f"Input of shape {given} must give {expected}, but gives {found}.")
    return module


def _head(module: nn.Module) -> tuple[nn.Module, str, int]:
    """What holds the head, the head's name there, and the width that comes in."""
    for head in HEADS:
        holder, name = module, head
        part: Any = getattr(module, head, None)
        while True:
            if isinstance(part, nn.Sequential):
                inner, layer = list(part.named_children())[-1]
            elif isinstance(getattr(part, "fc", None), nn.Module):  # timm's `ClassifierHead`
                inner, layer = "fc", part.fc
            else:
                break
            holder, name, part = part, inner, layer
        if isinstance(part, nn.Linear):
            return holder, name, part.in_features
        width = getattr(module, "head_hidden_size", None) or getattr(module, "num_features", None)
        if isinstance(part, nn.Identity) and isinstance(width, int):
            return holder, name, width
    raise ValueError(f"{type(module).__name__} has no linear head under any of {HEADS}.")


def _output_shape(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Tried in evaluation mode, which leaves statistics alone."""
    weight = next(module.parameters())
    modes = {part: part.training for part in module.modules()}
    module.eval()
    with torch.no_grad():
        out = module(torch.zeros(shape, dtype=weight.dtype, device=weight.device))
    for part, mode in modes.items():
        part.training = mode
    return tuple(out.shape)
