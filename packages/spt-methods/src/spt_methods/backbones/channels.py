"""Images with another number of channels than a network was made for."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def adapted_kernel(weight: Tensor, in_channels: int) -> Tensor:
    """A first layer's kernel for another number of channels, as timm adapts pretrained ones.

    For one channel the kernels of the colours are summed: grey images then give what their copies in
    all colours gave. For more, they are repeated and scaled, so that the response keeps its size.

    Args:
        weight: Shape ``(out, in, ...)``.
        in_channels: Wanted.

    Example:
        >>> adapted_kernel(torch.ones(1, 3, 1, 1), 1).flatten().tolist()
        [3.0]
        >>> adapted_kernel(torch.ones(1, 3, 1, 1), 4).sum().item()
        3.0
    """
    present = weight.shape[1]
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    repeats = -(-in_channels // present)
    wide = weight.repeat(1, repeats, *[1] * (weight.ndim - 2))[:, :in_channels]
    return wide * (present / in_channels)


def change_channels(model: nn.Module, in_channels: int, name: str) -> nn.Module:
    """Make a network's first convolution take another number of channels, keeping what it has learned.

    Args:
        model: Changed in place.
        in_channels: Wanted.
        name: What to call it in messages.

    Raises:
        ValueError: If it has no convolution over 3 channels.
    """
    found = {
        path: layer
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.in_channels == 3 and layer.groups == 1
    }
    if not found:
        raise ValueError(f"{name!r} has no first convolution over 3 channels to adapt.")
    path, layer = next(iter(found.items()))
    fresh = nn.Conv2d(
        in_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=layer.bias is not None,
    )
    with torch.no_grad():
        fresh.weight.copy_(adapted_kernel(layer.weight, in_channels))
        if fresh.bias is not None and layer.bias is not None:
            fresh.bias.copy_(layer.bias)
    parent, _, last = path.rpartition(".")
    setattr(model.get_submodule(parent), last, fresh)
    return model
