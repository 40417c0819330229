"""Encoders of torchvision."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn
from torchvision import models

from spt_methods.backbones.stem import use_low_resolution_stem

HEADS = ("fc", "classifier", "head", "heads")


def from_torchvision(model_name: str, low_resolution: bool = False, **kwargs: Any) -> nn.Module:
    """A torchvision model without its classifier, or with a new one.

    Args:
        model_name: One of ``torchvision.models.list_models()``.
        low_resolution: Replace a ResNet's stem, for images of about 32 pixels.
        **kwargs: As for torchvision; with ``num_classes`` the head stays, in that width. With
            ``in_channels`` a ResNet's first convolution takes so many channels.

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
    model: nn.Module = models.get_model(model_name, **kwargs)
    if "num_classes" not in kwargs:
        remove_head(model, model_name)
    if in_channels != 3:
        change_channels(model, in_channels, model_name)
    return use_low_resolution_stem(model, model_name) if low_resolution else model


def remove_head(model: nn.Module, name: str) -> None:
    """Put an identity in the place of the last linear layer; record its width as ``num_features``.

    Raises:
        ValueError: If there is no such layer.
    """
    for head in HEADS:
        part = getattr(model, head, None)
        if isinstance(part, nn.Linear):
            setattr(model, head, nn.Identity())
            model.num_features = part.in_features  # type: ignore[assignment]
            return
        if isinstance(part, nn.Sequential):
            layers = list(part.named_children())
            last_name, last = layers[-1]
            if isinstance(last, nn.Linear):
                setattr(part, last_name, nn.Identity())
                model.num_features = last.in_features  # type: ignore[assignment]
                return
    raise ValueError(f"{name!r} has no linear head; give `num_classes` to keep the one it has.")


def change_channels(model: nn.Module, in_channels: int, name: str) -> None:
    """Make a ResNet's first convolution take another number of channels.

    Raises:
        ValueError: If the model has no ``conv1``.
    """
    conv = getattr(model, "conv1", None)
    if not isinstance(conv, nn.Conv2d):
        raise ValueError(f"`in_channels` can be changed for ResNets only, got {name!r}.")
    settings = (conv.out_channels, conv.kernel_size, conv.stride, conv.padding)
    fresh = nn.Conv2d(in_channels, *settings, bias=conv.bias is not None)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
    model.conv1 = fresh
