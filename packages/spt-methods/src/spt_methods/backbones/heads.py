"""Projection and prediction heads, as the official codes of the methods build them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

LastNorm = Literal["none", "affine", "no_shift", "no_affine"]


def mlp_head(
    in_channels: int,
    widths: Sequence[int],
    *,
    hidden_bias: bool = False,
    last_bias: bool = False,
    last_norm: LastNorm = "none",
    norm: bool = True,
    gelu: bool = False,
) -> nn.Sequential:
    """Linear layers with BatchNorm and ReLU (or GELU) between them.

    Args:
        in_channels: Width of the features.
        widths: Widths of the layers; the last is the output's.
        hidden_bias: Whether the hidden linear layers have biases (BatchNorm follows them).
        last_bias: Whether the last linear layer has a bias.
        last_norm: BatchNorm after the last layer: none, with scale and shift, without shift, or
            without both.
        norm: Whether BatchNorm follows the hidden layers; without it they have biases.
        gelu: Take GELU instead of ReLU.

    Raises:
        ValueError: If there is no width, or ``last_norm`` is unknown.

    Example:
        >>> mlp_head(8, [16, 4], last_norm="no_affine")[-1].affine
        False
    """
    if not widths or min(widths) < 1:
        raise ValueError(f"`widths` must hold the widths of the layers, each >= 1, got {widths}.")
    if last_norm not in ("none", "affine", "no_shift", "no_affine"):
        raise ValueError(f"Unknown `last_norm` {last_norm!r}.")
    layers: list[nn.Module] = []
    for width in widths[:-1]:
        layers.append(nn.Linear(in_channels, width, bias=hidden_bias or not norm))
        layers += [nn.BatchNorm1d(width)] if norm else []
        layers.append(nn.GELU() if gelu else nn.ReLU(inplace=True))
        in_channels = width
    layers.append(nn.Linear(in_channels, widths[-1], bias=last_bias))
    if last_norm != "none":
        last = nn.BatchNorm1d(widths[-1], affine=last_norm != "no_affine")
        if last_norm == "no_shift":
            last.bias.requires_grad_(False)
        layers.append(last)
    return nn.Sequential(*layers)


def projection_head(in_channels: int, widths: Sequence[int]) -> nn.Sequential:
    """SimCLR's head: every layer with BatchNorm, the last one's without its learned shift.

    As ``model_util.py`` of https://github.com/google-research/simclr.

    Args:
        in_channels: Width of the features.
        widths: Widths of the layers.
    """
    return mlp_head(in_channels, widths, last_norm="no_shift")
