"""Multi-layer perceptrons: encoders of vectors, projectors and predictors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
from flax import nnx

from spt_jax.backbone.layers import BatchNorm, compute_in

LastNorm = Literal["none", "affine", "no_shift", "no_affine"]


class MLP(nnx.Module):
    """Linear layers with an activation between them; the last one is bare.

    Args:
        in_channels: Width of the input.
        hidden_channels: Widths of the layers; the last is the output's, ``embed_dim``.
        rngs: Where initial weights are drawn.
        activation: Between the layers.
        use_bias: Whether the layers have biases.
        dtype: Of the computation; float32, or what the Trainer's ``precision`` says, by default.

    Raises:
        ValueError: If there is no layer.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: Sequence[int],
        *,
        rngs: nnx.Rngs,
        activation: Callable[[jax.Array], jax.Array] = nnx.relu,
        use_bias: bool = True,
        dtype: Any = None,
    ) -> None:
        if not hidden_channels:
            raise ValueError("MLP needs the widths of its layers, got none.")
        layers: list[Any] = []
        for width in hidden_channels:
            layers += [nnx.Linear(in_channels, width, use_bias=use_bias, rngs=rngs), activation]
            in_channels = width
        self.layers = nnx.Sequential(*layers[:-1])
        self.embed_dim = int(hidden_channels[-1])
        compute_in(self, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, in_channels)``, or images, which are flattened, to ``(B, embed_dim)``."""
        out: jax.Array = self.layers(x.reshape(len(x), -1))
        return out


def mlp_head(
    in_channels: int,
    widths: Sequence[int],
    *,
    rngs: nnx.Rngs,
    hidden_bias: bool = False,
    last_bias: bool = False,
    last_norm: LastNorm = "none",
) -> nnx.Sequential:
    """Linear layers with BatchNorm and ReLU between them, as on the torch side.

    Args:
        in_channels: Width of the features.
        widths: Widths of the layers; the last is the output's.
        rngs: Where initial weights are drawn.
        hidden_bias: Whether the hidden linear layers have biases (BatchNorm follows them).
        last_bias: Whether the last linear layer has a bias.
        last_norm: BatchNorm after the last layer: none, with scale and shift, without shift, or
            without both.

    Raises:
        ValueError: If there is no width, or ``last_norm`` is unknown.
    """
    if not widths or min(widths) < 1:
        raise ValueError(f"`widths` must hold the widths of the layers, each >= 1, got {widths}.")
    if last_norm not in ("none", "affine", "no_shift", "no_affine"):
        raise ValueError(f"Unknown `last_norm` {last_norm!r}.")
    layers: list[Any] = []
    for width in widths[:-1]:
        layers.append(nnx.Linear(in_channels, width, use_bias=hidden_bias, rngs=rngs))
        layers += [BatchNorm(width, rngs=rngs), nnx.relu]
        in_channels = width
    layers.append(nnx.Linear(in_channels, widths[-1], use_bias=last_bias, rngs=rngs))
    if last_norm != "none":
        norm = BatchNorm(
            widths[-1],
            rngs=rngs,
            use_scale=last_norm != "no_affine",
            use_bias=last_norm == "affine",
        )
        layers.append(norm)
    return nnx.Sequential(*layers)
