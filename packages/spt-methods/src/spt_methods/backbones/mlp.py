"""Multi-layer perceptrons: heads, projectors, predictors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


class MLP(nn.Sequential):
    """Linear layers with an activation between them: ``MLP(512, 512, 128)``.

    Args:
        in_channels: Width of the input; ``None`` takes that of the first input.
        *widths: Widths of the layers, one by one or as one sequence; the last is the output's.
        norm_layer: Normalisation after each hidden layer: ``"batch_norm"``, ``"layer_norm"``, a
            class that takes the width, or ``None``.
        activation_layer: Class of the activation.
        bias: Whether the linear layers have biases.
        dropout: Share of hidden values that are dropped.

    Raises:
        ValueError: If there is no layer, or the norm is unknown.

    Example:
        >>> import torch
        >>> MLP(512, 512, 128)(torch.zeros(2, 512)).shape
        torch.Size([2, 128])
        >>> MLP(512, [256, 64], norm_layer="batch_norm")(torch.zeros(2, 512)).shape
        torch.Size([2, 64])
    """

    def __init__(
        self,
        in_channels: int | None,
        *widths: int | Sequence[int],
        norm_layer: str | type[nn.Module] | None = None,
        activation_layer: type[nn.Module] = nn.ReLU,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        sizes: list[int] = []
        for width in widths:
            sizes += [width] if isinstance(width, int) else list(width)
        if not sizes or min(sizes) < 1:
            raise ValueError(f"MLP needs the widths of its layers, each >= 1, got {widths}.")
        layers: list[nn.Module] = []
        for i, size in enumerate(sizes):
            if in_channels is None:
                layers.append(nn.LazyLinear(size, bias))
            else:
                layers.append(nn.Linear(in_channels, size, bias))
            if i < len(sizes) - 1:
                if norm_layer is not None:
                    layers.append(_norm(norm_layer)(size))
                layers.append(activation_layer())
                if dropout:
                    layers.append(nn.Dropout(dropout))
            in_channels = size
        super().__init__(*layers)


def _norm(norm_layer: str | type[nn.Module]) -> type[nn.Module]:
    known = {"batch_norm": nn.BatchNorm1d, "layer_norm": nn.LayerNorm}
    if not isinstance(norm_layer, str):
        return norm_layer
    if norm_layer not in known:
        raise ValueError(
            f"`norm_layer` must be one of {sorted(known)}, a class or None, got {norm_layer!r}."
        )
    return known[norm_layer]
