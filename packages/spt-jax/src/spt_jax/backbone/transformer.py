"""Pre-norm transformer blocks (Dosovitskiy et al., https://arxiv.org/abs/2010.11929).

Query-key norms of Dehghani et al., https://arxiv.org/abs/2302.05442; SwiGLU of Shazeer,
https://arxiv.org/abs/2002.05202.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from spt_jax.backbone.layers import DropPath, gelu
from spt_jax.backbone.positions import rotate

MlpType = Literal["gelu", "swiglu"]


def token_linear(dim: int, out: int, *, rngs: nnx.Rngs, use_bias: bool = True) -> nnx.Linear:
    """A linear layer with Xavier initialisation, as MAE's."""
    init = nnx.initializers.xavier_uniform()
    return nnx.Linear(dim, out, use_bias=use_bias, kernel_init=init, rngs=rngs)


def layer_norm(dim: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm with the epsilon of vision transformers, 1e-6."""
    return nnx.LayerNorm(dim, epsilon=1e-6, use_fast_variance=False, rngs=rngs)


class Attention(nnx.Module):
    """Self-attention, parameters as timm's.

    Args:
        dim: Width of the tokens, a multiple of ``num_heads``.
        num_heads: Heads.
        qk_norm: Normalise queries and keys.
        rngs: Where initial weights are drawn.

    Raises:
        ValueError: If ``dim`` does not divide.
    """

    def __init__(self, dim: int, num_heads: int, *, rngs: nnx.Rngs, qk_norm: bool = False) -> None:
        if dim % num_heads:
            raise ValueError(f"`dim` must be a multiple of `num_heads`, got {dim} and {num_heads}.")
        self.num_heads = num_heads
        self.qk_norm = qk_norm
        self.qkv = token_linear(dim, 3 * dim, rngs=rngs)
        self.proj = token_linear(dim, dim, rngs=rngs)
        if qk_norm:
            self.q_norm = layer_norm(dim // num_heads, rngs=rngs)
            self.k_norm = layer_norm(dim // num_heads, rngs=rngs)

    def __call__(
        self, x: jax.Array, angles: jax.Array | None = None, valid: jax.Array | None = None
    ) -> jax.Array:
        """Attend; ``x`` is ``(B, N, dim)``, ``angles`` turn the last tokens.

        Tokens that are not ``valid`` ``(B, N)`` are seen by none.
        """
        n, length, _ = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.num_heads, -1)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]  # (B, N, heads, head_dim)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        allowed = None if valid is None else valid[:, None, None, :]
        out = jax.nn.dot_product_attention(q, k, v, mask=allowed)
        return self.proj(out.reshape(n, length, -1))


class Mlp(nnx.Module):
    """Two layers with the exact GELU, or a SwiGLU of two thirds of the width.

    Args:
        dim: Width of the tokens.
        hidden: Width inside, of the plain form.
        kind: ``"gelu"`` or ``"swiglu"``.
        rngs: Where initial weights are drawn.

    Raises:
        ValueError: If the kind is unknown.
    """

    def __init__(self, dim: int, hidden: int, kind: MlpType, *, rngs: nnx.Rngs) -> None:
        if kind not in ("gelu", "swiglu"):
            raise ValueError(f"`mlp_type` must be 'gelu' or 'swiglu', got {kind!r}.")
        self.kind = kind
        if kind == "swiglu":
            hidden = int(hidden * 2 / 3)
            self.fc1_g = token_linear(dim, hidden, rngs=rngs)
            self.fc1_x = token_linear(dim, hidden, rngs=rngs)
        else:
            self.fc1 = token_linear(dim, hidden, rngs=rngs)
        self.fc2 = token_linear(hidden, dim, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``(B, N, dim)``."""
        if self.kind == "swiglu":
            return self.fc2(jax.nn.silu(self.fc1_g(x)) * self.fc1_x(x))
        return self.fc2(gelu(self.fc1(x)))


class Block(nnx.Module):
    """Attention and MLP, each behind a norm and around a residual.

    Args:
        dim: Width of the tokens.
        num_heads: Heads.
        mlp_ratio: Hidden width over ``dim``.
        mlp_type: ``"gelu"`` or ``"swiglu"``.
        qk_norm: Normalise queries and keys.
        drop_path: Stochastic depth.
        rngs: Where initial weights are drawn.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        rngs: nnx.Rngs,
        mlp_ratio: float = 4.0,
        mlp_type: MlpType = "gelu",
        qk_norm: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        self.norm1 = layer_norm(dim, rngs=rngs)
        self.attn = Attention(dim, num_heads, rngs=rngs, qk_norm=qk_norm)
        self.norm2 = layer_norm(dim, rngs=rngs)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), mlp_type, rngs=rngs)
        self.drop_path = DropPath(drop_path, rngs=rngs)

    def __call__(
        self, x: jax.Array, angles: jax.Array | None = None, valid: jax.Array | None = None
    ) -> jax.Array:
        """``(B, N, dim)``; see :class:`Attention`."""
        x = x + self.drop_path(self.attn(self.norm1(x), angles, valid))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def take_tokens(x: jax.Array, places: jax.Array) -> jax.Array:
    """The tokens of ``x`` ``(B, N, D)`` at places ``(B, n)``."""
    return jnp.take_along_axis(x, places[..., None], axis=1)
