"""Encoders of timm."""

from __future__ import annotations

import difflib
from typing import Any

import timm
from torch import nn

from spt_methods.backbones.stem import use_low_resolution_stem


def from_timm(model_name: str, low_resolution: bool = False, **kwargs: Any) -> nn.Module:
    """A timm model without its classifier, or with a new one.

    Args:
        model_name: One of ``timm.list_models()``.
        low_resolution: Replace a ResNet's stem, for images of about 32 pixels.
        **kwargs: As for ``timm.create_model``: with ``num_classes`` there is a head of that width,
            without it none, as in :func:`from_torchvision`; ``in_chans`` (or ``in_channels``) sets the
            channels of the input, ``pretrained`` loads weights.

    Returns:
        The model; ``num_features`` is the width of what it returns without a head.

    Raises:
        ValueError: If there is no such model, or its stem cannot be replaced.

    Example:
        >>> import torch
        >>> encoder = from_timm("resnet10t", in_chans=1)
        >>> encoder(torch.zeros(2, 1, 32, 32)).shape, encoder.num_features
        (torch.Size([2, 512]), 512)
    """
    if not timm.is_model(model_name):
        near = difflib.get_close_matches(model_name, timm.list_models(), n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ValueError(f"timm has no model {model_name!r}.{hint} See timm.list_models().")
    if "in_channels" in kwargs:  # torchvision's word
        kwargs["in_chans"] = kwargs.pop("in_channels")
    model: nn.Module = timm.create_model(model_name, **{"num_classes": 0, **kwargs})
    if not low_resolution:
        return model
    return use_low_resolution_stem(model, model_name, trained=bool(kwargs.get("pretrained")))
