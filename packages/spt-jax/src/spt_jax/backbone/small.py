"""Small convolutional encoders: ResNet-9 and ConvMixer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spt_jax.backbone.layers import BatchNorm, compute_in, convolution, gelu


class ConvBlock(nnx.Module):
    """A 3x3 convolution, BatchNorm, ReLU, and a 2x2 max pool if asked.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        pool: Halve the sides.
        rngs: Where initial weights are drawn.
    """

    def __init__(self, in_channels: int, channels: int, pool: bool, *, rngs: nnx.Rngs) -> None:
        self.conv = convolution(in_channels, channels, 3, rngs=rngs)
        self.norm = BatchNorm(channels, rngs=rngs)
        self.pool = pool

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, H, W, C)``."""
        x = nnx.relu(self.norm(self.conv(x)))
        return nnx.max_pool(x, (2, 2), (2, 2)) if self.pool else x


class ResNet9(nnx.Module):
    """The nine-layer residual network of DAWNBench; ``embed_dim`` 512 at width 64.

    Args:
        rngs: Where initial weights are drawn.
        in_channels: Channels of the images.
        width: Channels of the first layer; an eighth of ``embed_dim``.
        dtype: Of the computation.
    """

    def __init__(
        self, *, rngs: nnx.Rngs, in_channels: int = 3, width: int = 64, dtype: Any = None
    ) -> None:
        w = width
        self.conv1 = ConvBlock(in_channels, w, False, rngs=rngs)
        self.conv2 = ConvBlock(w, 2 * w, True, rngs=rngs)
        self.pair1 = nnx.Sequential(*(ConvBlock(2 * w, 2 * w, False, rngs=rngs) for _ in range(2)))
        self.conv3 = ConvBlock(2 * w, 4 * w, True, rngs=rngs)
        self.conv4 = ConvBlock(4 * w, 8 * w, True, rngs=rngs)
        self.pair2 = nnx.Sequential(*(ConvBlock(8 * w, 8 * w, False, rngs=rngs) for _ in range(2)))
        self.embed_dim = 8 * w
        compute_in(self, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, H, W, C)`` with sides of at least 8 pixels to ``(B, embed_dim)``."""
        x = self.conv2(self.conv1(x))
        x = x + self.pair1(x)
        x = self.conv4(self.conv3(x))
        return jnp.mean(x + self.pair2(x), axis=(1, 2))


class MixerBlock(nnx.Module):
    """Depthwise mixing with a residual, then pointwise mixing.

    Args:
        dim: Channels.
        kernel_size: Side of the depthwise kernel.
        rngs: Where initial weights are drawn.
    """

    def __init__(self, dim: int, kernel_size: int, *, rngs: nnx.Rngs) -> None:
        self.depthwise = convolution(
            dim, dim, kernel_size, rngs=rngs, groups=dim, use_bias=True, padding="SAME"
        )
        self.norm1 = BatchNorm(dim, rngs=rngs)
        self.pointwise = convolution(dim, dim, 1, rngs=rngs, use_bias=True)
        self.norm2 = BatchNorm(dim, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, H, W, dim)``."""
        x = x + self.norm1(gelu(self.depthwise(x)))
        return self.norm2(gelu(self.pointwise(x)))


class ConvMixer(nnx.Module):
    """ConvMixer (Trockman and Kolter, 2022, https://arxiv.org/abs/2201.09792); ``embed_dim`` is ``dim``.

    Args:
        rngs: Where initial weights are drawn.
        dim: Channels.
        depth: Blocks.
        kernel_size: Side of the depthwise kernels.
        patch_size: Side of the patches.
        in_channels: Channels of the images.
        dtype: Of the computation.
    """

    def __init__(
        self,
        *,
        rngs: nnx.Rngs,
        dim: int = 256,
        depth: int = 8,
        kernel_size: int = 9,
        patch_size: int = 7,
        in_channels: int = 3,
        dtype: Any = None,
    ) -> None:
        self.patch = convolution(
            in_channels, dim, patch_size, patch_size, rngs=rngs, use_bias=True, padding="VALID"
        )
        self.norm = BatchNorm(dim, rngs=rngs)
        self.blocks = nnx.Sequential(
            *(MixerBlock(dim, kernel_size, rngs=rngs) for _ in range(depth))
        )
        self.embed_dim = dim
        compute_in(self, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, H, W, C)`` to ``(B, embed_dim)``."""
        x = self.norm(gelu(self.patch(x)))
        return jnp.mean(self.blocks(x), axis=(1, 2))
