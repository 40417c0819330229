"""Encoders and heads; images are ``(B, H, W, C)``, pooled outputs ``(B, embed_dim)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


class MLP(nnx.Module):
    """Linear layers with BatchNorm (if asked) and ReLU between them.

    Args:
        in_channels: Width of the input.
        widths: Widths of the layers; the last is the output's.
        rngs: Where initial weights are drawn.
        batch_norm: Normalise hidden layers.

    Raises:
        ValueError: If there is no layer.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        *,
        rngs: nnx.Rngs,
        batch_norm: bool = False,
    ) -> None:
        if not widths:
            raise ValueError("MLP needs the widths of its layers, got none.")
        layers: list[Any] = []
        for i, width in enumerate(widths):
            layers.append(nnx.Linear(in_channels, width, rngs=rngs))
            if i < len(widths) - 1:
                if batch_norm:
                    layers.append(nnx.BatchNorm(width, momentum=0.9, rngs=rngs))
                layers.append(nnx.relu)
            in_channels = width
        self.layers = nnx.Sequential(*layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, in_channels)`` to ``(B, widths[-1])``."""
        out: jax.Array = self.layers(x)
        return out


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions with a shortcut (He et al., 2016, https://arxiv.org/abs/1512.03385).

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Of the first convolution and of the shortcut.
        rngs: Where initial weights are drawn.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.conv1 = convolution(in_channels, channels, 3, stride, rngs)
        self.norm1 = nnx.BatchNorm(channels, momentum=0.9, rngs=rngs)
        self.conv2 = convolution(channels, channels, 3, 1, rngs)
        self.norm2 = nnx.BatchNorm(channels, momentum=0.9, rngs=rngs)
        self.changes = stride != 1 or in_channels != channels
        if self.changes:
            self.shortcut = convolution(in_channels, channels, 1, stride, rngs)
            self.norm3 = nnx.BatchNorm(channels, momentum=0.9, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, H, W, in_channels)`` to ``(B, H / stride, W / stride, channels)``."""
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return nnx.relu(y + (self.norm3(self.shortcut(x)) if self.changes else x))


class ResNet(nnx.Module):
    """A residual network of basic blocks with global average pooling.

    Args:
        layers: Blocks of each stage.
        widths: Channels of each stage.
        rngs: Where initial weights are drawn.
        in_channels: Channels of the images.
        low_resolution: 3x3 stem of stride 1 without pooling, for images of about 32 pixels.

    Raises:
        ValueError: If there are not as many widths as stages.
    """

    def __init__(
        self,
        layers: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        *,
        rngs: nnx.Rngs,
        in_channels: int = 3,
        low_resolution: bool = False,
    ) -> None:
        if len(layers) != len(widths) or not layers:
            raise ValueError(
                f"`layers` and `widths` need one entry per stage, got {list(layers)} and {list(widths)}."
            )
        kernel, stride = (3, 1) if low_resolution else (7, 2)
        self.low_resolution = low_resolution
        self.embed_dim = int(widths[-1])
        self.stem = convolution(in_channels, widths[0], kernel, stride, rngs)
        self.norm = nnx.BatchNorm(widths[0], momentum=0.9, rngs=rngs)
        blocks: list[BasicBlock] = []
        channels = widths[0]
        for stage, (count, width) in enumerate(zip(layers, widths, strict=True)):
            for block in range(count):
                step = 2 if stage > 0 and block == 0 else 1
                blocks.append(BasicBlock(channels, width, step, rngs=rngs))
                channels = width
        self.blocks = nnx.Sequential(*blocks)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, H, W, C)`` to ``(B, embed_dim)``."""
        x = nnx.relu(self.norm(self.stem(x)))
        if not self.low_resolution:
            x = nnx.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))  # as torchvision pads
        return jnp.mean(self.blocks(x), axis=(1, 2))


def convolution(
    in_channels: int, channels: int, kernel: int, stride: int, rngs: nnx.Rngs
) -> nnx.Conv:
    """A bias-free convolution with symmetric padding and He initialisation."""
    pad = kernel // 2
    return nnx.Conv(
        in_channels,
        channels,
        (kernel, kernel),
        strides=stride,
        padding=((pad, pad), (pad, pad)),
        use_bias=False,
        kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
        rngs=rngs,
    )


def resnet18(*, rngs: nnx.Rngs, in_channels: int = 3, low_resolution: bool = False) -> ResNet:
    """ResNet-18 without a head; ``embed_dim`` 512."""
    return ResNet((2, 2, 2, 2), rngs=rngs, in_channels=in_channels, low_resolution=low_resolution)
