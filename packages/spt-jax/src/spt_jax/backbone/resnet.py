"""Residual networks (He et al., 2016, https://arxiv.org/abs/1512.03385), as torchvision builds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spt_jax.backbone.layers import BatchNorm, compute_in, convolution, identity, max_pool


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions with a shortcut.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Of the first convolution and of the shortcut.
        rngs: Where initial weights are drawn.
    """

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.conv1 = convolution(in_channels, channels, 3, stride, rngs=rngs)
        self.norm1 = BatchNorm(channels, rngs=rngs)
        self.conv2 = convolution(channels, channels, 3, rngs=rngs)
        self.norm2 = BatchNorm(channels, rngs=rngs)
        self.shortcut = shortcut(in_channels, channels, stride, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, H, W, in_channels)`` to ``(B, H / stride, W / stride, channels)``."""
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return nnx.relu(y + self.shortcut(x))


class Bottleneck(nnx.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions with a shortcut; four times as wide outside.

    Args:
        in_channels: Channels of the input.
        channels: Channels inside.
        stride: Of the 3x3 convolution and of the shortcut.
        rngs: Where initial weights are drawn.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, *, rngs: nnx.Rngs) -> None:
        out = channels * self.expansion
        self.conv1 = convolution(in_channels, channels, 1, rngs=rngs)
        self.norm1 = BatchNorm(channels, rngs=rngs)
        self.conv2 = convolution(channels, channels, 3, stride, rngs=rngs)
        self.norm2 = BatchNorm(channels, rngs=rngs)
        self.conv3 = convolution(channels, out, 1, rngs=rngs)
        self.norm3 = BatchNorm(out, rngs=rngs)
        self.shortcut = shortcut(in_channels, out, stride, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, H, W, in_channels)`` to ``(B, H / stride, W / stride, 4 channels)``."""
        y = nnx.relu(self.norm1(self.conv1(x)))
        y = nnx.relu(self.norm2(self.conv2(y)))
        return nnx.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


def shortcut(in_channels: int, out: int, stride: int, rngs: nnx.Rngs) -> nnx.Sequential:
    """The identity, or a 1x1 convolution with BatchNorm where the shape changes."""
    if stride == 1 and in_channels == out:
        return nnx.Sequential(identity)
    conv = convolution(in_channels, out, 1, stride, rngs=rngs)
    return nnx.Sequential(conv, BatchNorm(out, rngs=rngs))


class ResNet(nnx.Module):
    """A residual network with global average pooling.

    Args:
        block: ``BasicBlock`` or ``Bottleneck``.
        layers: Blocks of each stage.
        rngs: Where initial weights are drawn.
        in_channels: Channels of the images.
        low_resolution: 3x3 stem of stride 1 without pooling, for images of about 32 pixels.
        widths: Channels (inside the blocks) of each stage.
        dtype: Of the computation; float32, or what the Trainer's ``precision`` says, by default.

    Attributes:
        embed_dim: Width of the output.

    Raises:
        ValueError: If there are not as many widths as stages.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        *,
        rngs: nnx.Rngs,
        in_channels: int = 3,
        low_resolution: bool = False,
        widths: Sequence[int] = (64, 128, 256, 512),
        dtype: Any = None,
    ) -> None:
        if len(layers) != len(widths) or not layers:
            raise ValueError(
                f"`layers` and `widths` need one entry per stage, got {list(layers)} and {list(widths)}."
            )
        kernel, stride = (3, 1) if low_resolution else (7, 2)
        self.low_resolution = low_resolution
        self.stages = tuple(layers)
        self.embed_dim = int(widths[-1]) * block.expansion
        self.stem = convolution(in_channels, widths[0], kernel, stride, rngs=rngs)
        self.norm = BatchNorm(widths[0], rngs=rngs)
        blocks: list[Any] = []
        channels = widths[0]
        for stage, (count, width) in enumerate(zip(layers, widths, strict=True)):
            for number in range(count):
                step = 2 if stage > 0 and number == 0 else 1
                blocks.append(block(channels, width, step, rngs=rngs))
                channels = width * block.expansion
        self.blocks = nnx.Sequential(*blocks)
        compute_in(self, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, H, W, C)`` to ``(B, embed_dim)``."""
        x = nnx.relu(self.norm(self.stem(x)))
        if not self.low_resolution:
            x = max_pool(x)
        return jnp.mean(self.blocks(x), axis=(1, 2))

    def torch_names(self) -> dict[str, str]:
        """Our modules' names, and torchvision's (and timm's)."""
        names = {"stem": "conv1", "norm": "bn1"}
        number = 0
        for stage, count in enumerate(self.stages, start=1):
            for block in range(count):
                ours, theirs = f"blocks.layers.{number}", f"layer{stage}.{block}"
                for part in (1, 2, 3):
                    names[f"{ours}.conv{part}"] = f"{theirs}.conv{part}"
                    names[f"{ours}.norm{part}"] = f"{theirs}.bn{part}"
                for part in (0, 1):
                    names[f"{ours}.shortcut.layers.{part}"] = f"{theirs}.downsample.{part}"
                number += 1
        return names


def resnet18(*, rngs: nnx.Rngs, **settings: Any) -> ResNet:
    """ResNet-18 without a head; ``embed_dim`` 512."""
    return ResNet(BasicBlock, (2, 2, 2, 2), rngs=rngs, **settings)


def resnet34(*, rngs: nnx.Rngs, **settings: Any) -> ResNet:
    """ResNet-34 without a head; ``embed_dim`` 512."""
    return ResNet(BasicBlock, (3, 4, 6, 3), rngs=rngs, **settings)


def resnet50(*, rngs: nnx.Rngs, **settings: Any) -> ResNet:
    """ResNet-50 without a head; ``embed_dim`` 2048."""
    return ResNet(Bottleneck, (3, 4, 6, 3), rngs=rngs, **settings)


def resnet101(*, rngs: nnx.Rngs, **settings: Any) -> ResNet:
    """ResNet-101 without a head; ``embed_dim`` 2048."""
    return ResNet(Bottleneck, (3, 4, 23, 3), rngs=rngs, **settings)


def resnet152(*, rngs: nnx.Rngs, **settings: Any) -> ResNet:
    """ResNet-152 without a head; ``embed_dim`` 2048."""
    return ResNet(Bottleneck, (3, 8, 36, 3), rngs=rngs, **settings)
