"""Layers that compute what torch's compute: BatchNorm, stochastic depth, convolution, dtype."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spt_jax._compat import modules_of, read, write


class BatchNorm(nnx.BatchNorm):
    """BatchNorm over all axes but the last, with torch's running statistics.

    Statistics are computed in float32 over the logical batch, so under data parallelism they are
    those of all devices. The running variance is the unbiased one, as torch's (Flax keeps the
    biased one); 0.1 of each batch enters.

    Args:
        num_features: Channels.
        rngs: Where initial weights are drawn.
        use_scale: Learn a scale.
        use_bias: Learn a shift.
        epsilon: Added to the variance.
    """

    def __init__(
        self,
        num_features: int,
        *,
        rngs: nnx.Rngs,
        use_scale: bool = True,
        use_bias: bool = True,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__(
            num_features,
            momentum=0.9,
            epsilon=epsilon,
            use_scale=use_scale,
            use_bias=use_bias,
            rngs=rngs,
        )

    def __call__(
        self, x: jax.Array, use_running_average: bool | None = None, **_: Any
    ) -> jax.Array:
        """Normalise ``(..., C)``; in training the running statistics move."""
        fixed = self.use_running_average if use_running_average is None else use_running_average
        wide = x.astype(jnp.float32)
        if fixed:
            mean, variance = read(self.mean), read(self.var)
        else:
            axes = tuple(range(x.ndim - 1))
            mean = wide.mean(axes)
            variance = ((wide - mean) ** 2).mean(axes)
            count = x.size // x.shape[-1]
            unbiased = variance * (count / max(count - 1, 1))
            for running, new in ((self.mean, mean), (self.var, unbiased)):
                old = read(running)
                write(running, old + (1 - self.momentum) * (jax.lax.stop_gradient(new) - old))
        y = (wide - mean) * jax.lax.rsqrt(variance + self.epsilon)
        if self.use_scale:
            y = y * read(self.scale)
        if self.use_bias:
            y = y + read(self.bias)
        return y.astype(self.dtype or x.dtype)


class DropPath(nnx.Module):
    """Stochastic depth: leave a residual out for whole samples (https://arxiv.org/abs/1603.09382).

    Args:
        rate: Probability, in [0, 1).
        rngs: Where samples are drawn.
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs) -> None:
        self.rate = rate
        if rate:
            self.drop = nnx.Dropout(rate, broadcast_dims=(1, 2), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, N, D)``, some samples zero and the others larger."""
        return self.drop(x) if self.rate else x


def convolution(
    in_channels: int,
    channels: int,
    kernel: int,
    stride: int = 1,
    *,
    rngs: nnx.Rngs,
    groups: int = 1,
    use_bias: bool = False,
    padding: Any = None,
) -> nnx.Conv:
    """A convolution with symmetric padding and He initialisation."""
    pad = kernel // 2
    return nnx.Conv(
        in_channels,
        channels,
        (kernel, kernel),
        strides=stride,
        padding=((pad, pad), (pad, pad)) if padding is None else padding,
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
        rngs=rngs,
    )


def max_pool(x: jax.Array) -> jax.Array:
    """3x3 windows of stride 2, one pixel of padding on each side, as torchvision."""
    pooled: jax.Array = nnx.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    return pooled


def identity(x: jax.Array) -> jax.Array:
    """``x`` itself."""
    return x


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, with the error function, as torch's default."""
    return jax.nn.gelu(x, approximate=False)


def compute_in(module: nnx.Module, dtype: Any) -> None:
    """Let every layer compute in a dtype; weights stay in float32. ``None`` changes nothing."""
    for layer in modules_of(module) if dtype is not None else ():
        if hasattr(layer, "param_dtype") and hasattr(layer, "dtype"):
            layer.dtype = dtype
