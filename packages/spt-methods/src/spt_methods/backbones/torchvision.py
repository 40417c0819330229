"""Encoders of torchvision."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn
from torchvision import models

from spt_methods.backbones.channels import change_channels
from spt_methods.backbones.stem import use_low_resolution_stem

HEADS = ("fc", "classifier", "head", "heads")


def from_torchvision(model_name: str, low_resolution: bool = False, **kwargs: Any) -> nn.Module:
    """A torchvision model without its classifier, or with a new one.

    Args:
        model_name: One of ``torchvision.models.list_models()``.
        low_resolution: Replace a ResNet's stem, for images of about 32 pixels.
        **kwargs: As for torchvision; with ``num_classes`` there is a new head of that width, whatever
            the weights were trained for; ``num_classes=0`` is no head. With ``in_channels`` the first
            convolution takes so many channels, and keeps what it has learned.

    Returns:
        The model; ``num_features`` is the width of what it returns without a head.

    Raises:
        ValueError: If there is no such model, or a part of it cannot be changed.

    Example:
        >>> import torch
        >>> encoder = from_torchvision("resnet18", low_resolution=True)
        >>> encoder(torch.zeros(2, 3, 32, 32)).shape, encoder.num_features
        (torch.Size([2, 512]), 512)
    """
    known = models.list_models(module=models)
    if model_name not in known:
        near = difflib.get_close_matches(model_name, known, n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"torchvision has no model {model_name!r}.{hint} There are {known}.")
    in_channels = kwargs.pop("in_channels", 3)
    num_classes = kwargs.pop("num_classes", 0)
    model: nn.Module = models.get_model(model_name, **kwargs)
    replace_head(model, model_name, num_classes)
    if in_channels != 3:
        change_channels(model, in_channels, model_name)
    if not low_resolution:
        return model
    return use_low_resolution_stem(model, model_name, trained=kwargs.get("weights") is not None)


def replace_head(model: nn.Module, name: str, num_classes: int = 0) -> None:
    """Put an identity, or a new layer, in the place of the last linear layer.

    Its width is recorded as ``num_features``.

    Raises:
        ValueError: If there is no such layer.
    """
    for head in HEADS:
        part = getattr(model, head, None)
        holder, last_name = model, head
        if isinstance(part, nn.Sequential):
            holder, (last_name, part) = part, list(part.named_children())[-1]
        if isinstance(part, nn.Linear):
            width = part.in_features
            new = nn.Linear(width, num_classes) if num_classes else nn.Identity()
            setattr(holder, last_name, new)
            model.num_features = width  # type: ignore[assignment]
            return
    raise ValueError(f"{name!r} has no linear head to take away; take another architecture.")
