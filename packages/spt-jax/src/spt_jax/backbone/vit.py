"""Vision transformers (Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929), as timm builds them.

Registers of Darcet et al., https://arxiv.org/abs/2309.16588.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from spt_jax._compat import read
from spt_jax.backbone.layers import compute_in
from spt_jax.backbone.positions import interpolate_positions, rotary_angles, sincos_2d
from spt_jax.backbone.transformer import Block, MlpType, layer_norm, take_tokens

Positions = Literal["learned", "sincos", "none"]


class ViT(nnx.Module):
    """A vision transformer that returns its class token, or all of its tokens.

    Images of another size than ``img_size`` get interpolated positions.

    Args:
        rngs: Where initial weights are drawn.
        img_size: Side of the images.
        patch_size: Side of the patches.
        in_channels: Channels of the images.
        embed_dim: Width of the tokens.
        depth: Blocks.
        num_heads: Heads.
        mlp_ratio: Hidden width of the MLPs over ``embed_dim``.
        mlp_type: ``"gelu"`` or ``"swiglu"``.
        qk_norm: Normalise queries and keys.
        rope: Turn queries and keys by their places on the grid.
        num_registers: Register tokens, after the class token; positions are then for patches
            alone, as in timm's ``reg`` models.
        class_token: Whether there is one; without it the output is the mean of the patches.
        pos_embed: ``"learned"``, ``"sincos"`` (fixed) or ``"none"``.
        drop_path: Stochastic depth of the last block; it grows linearly.
        mask_token: Learn a token that takes the place of masked patches.
        dtype: Of the computation; float32, or what the Trainer's ``precision`` says, by default.

    Attributes:
        embed_dim: Width of the tokens.
        num_prefix_tokens: Class and register tokens.

    Raises:
        ValueError: If the sides do not divide, or a setting is unknown.
    """

    def __init__(
        self,
        *,
        rngs: nnx.Rngs,
        img_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        mlp_type: MlpType = "gelu",
        qk_norm: bool = False,
        rope: bool = False,
        num_registers: int = 0,
        class_token: bool = True,
        pos_embed: Positions = "learned",
        drop_path: float = 0.0,
        mask_token: bool = False,
        dtype: Any = None,
    ) -> None:
        if pos_embed not in ("learned", "sincos", "none"):
            raise ValueError(
                f"`pos_embed` must be 'learned', 'sincos' or 'none', got {pos_embed!r}."
            )
        self.patch_size = patch_size
        self.grid = self.grid_of(img_size, img_size)
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.depth = depth
        self.rope = rope
        self.pos_kind = pos_embed
        self.num_prefix_tokens = int(class_token) + num_registers
        self.class_position = class_token and num_registers == 0
        self.patch_embed = nnx.Conv(
            in_channels,
            embed_dim,
            (patch_size, patch_size),
            strides=patch_size,
            padding="VALID",
            rngs=rngs,
        )

        def token(*shape: int) -> nnx.Param:
            return nnx.Param(0.02 * jax.random.truncated_normal(rngs.params(), -2, 2, shape))

        if class_token:
            self.cls_token = token(1, 1, embed_dim)
        if num_registers:
            self.register_tokens = token(1, num_registers, embed_dim)
        if mask_token:
            self.mask_token = token(1, 1, embed_dim)
        if pos_embed == "learned":
            length = int(self.class_position) + self.grid[0] * self.grid[1]
            self.pos_embed = token(1, length, embed_dim)
        rates = np.linspace(0, drop_path, depth).tolist()
        self.blocks = nnx.Sequential(
            *(
                Block(
                    embed_dim,
                    num_heads,
                    rngs=rngs,
                    mlp_ratio=mlp_ratio,
                    mlp_type=mlp_type,
                    qk_norm=qk_norm,
                    drop_path=rate,
                )
                for rate in rates
            )
        )
        self.norm = layer_norm(embed_dim, rngs=rngs)
        compute_in(self, dtype)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches.

        Raises:
            ValueError: If the sides do not divide.
        """
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"`patch_size` {self.patch_size} must divide the images' sides {(height, width)}."
            )
        return height // self.patch_size, width // self.patch_size

    def __call__(
        self,
        x: jax.Array,
        *,
        mask: jax.Array | None = None,
        keep: jax.Array | None = None,
        valid: jax.Array | None = None,
        tokens: bool = False,
    ) -> jax.Array:
        """Encode images.

        Args:
            x: ``(B, H, W, C)``.
            mask: True where a patch is replaced by the mask token, ``(B, N)``.
            keep: Places of the patches that are encoded, ``(B, n)``; all by default.
            valid: Which of the kept patches exist, ``(B, n)``; the others are seen by none.
            tokens: Return every token instead of the pooled output.

        Returns:
            ``(B, embed_dim)``; or ``(B, prefix + n, embed_dim)``, prefix tokens first.

        Raises:
            ValueError: If there is a ``mask`` and no mask token.
        """
        grid = self.grid_of(x.shape[1], x.shape[2])
        patches = self.patch_embed(x).reshape(len(x), grid[0] * grid[1], -1)
        if mask is not None:
            if not hasattr(self, "mask_token"):
                raise ValueError("This ViT has no mask token; build it with `mask_token=True`.")
            patches = jnp.where(mask[..., None] > 0, self._token("mask_token", patches), patches)
        z, angles = self._placed(patches, grid, keep)
        if valid is not None:
            prefix = jnp.ones((len(valid), self.num_prefix_tokens), bool)
            valid = jnp.concatenate([prefix, valid], axis=1)
        for block in self.blocks.layers:
            z = block(z, angles, valid)
        z = self.norm(z)
        if tokens:
            return z
        return z[:, 0] if hasattr(self, "cls_token") else z[:, self.num_prefix_tokens :].mean(1)

    def _token(self, name: str, like: jax.Array) -> jax.Array:
        return read(getattr(self, name)).astype(like.dtype)

    def _placed(
        self, patches: jax.Array, grid: tuple[int, int], keep: jax.Array | None
    ) -> tuple[jax.Array, jax.Array | None]:
        """Tokens with their positions, prefix first, and the rotations of the patches."""
        table = self._table(grid, patches)
        prefix = int(self.class_position)
        if table is not None:
            patches = patches + table[:, prefix:]
        angles = (
            jnp.asarray(rotary_angles(self.embed_dim // self.num_heads, grid))
            if self.rope
            else None
        )
        if keep is not None:
            patches = take_tokens(patches, keep)
            angles = None if angles is None else angles[keep]
        heads = []
        if hasattr(self, "cls_token"):
            token = self._token("cls_token", patches)
            heads.append(token if table is None or not prefix else token + table[:, :1])
        if hasattr(self, "register_tokens"):
            heads.append(self._token("register_tokens", patches))
        wide = [jnp.broadcast_to(t, (len(patches), *t.shape[1:])) for t in heads]
        return jnp.concatenate([*wide, patches], axis=1), angles

    def _table(self, grid: tuple[int, int], like: jax.Array) -> jax.Array | None:
        """Positions ``(1, [1 +] N, D)`` of a grid."""
        prefix = int(self.class_position)
        if self.pos_kind == "none":
            return None
        if self.pos_kind == "sincos":
            fixed = sincos_2d(self.embed_dim, grid, cls_token=bool(prefix))
            return jnp.asarray(fixed)[None].astype(like.dtype)
        learned = read(self.pos_embed)
        return interpolate_positions(learned, self.grid, grid, prefix).astype(like.dtype)

    def torch_names(self) -> dict[str, str]:
        """Our modules' and tokens' names, and timm's."""
        names = {
            "cls_token": "cls_token",
            "pos_embed": "pos_embed",
            "register_tokens": "reg_token",
            "mask_token": "mask_token",
            "patch_embed": "patch_embed.proj",
            "norm": "norm",
        }
        parts = ("norm1", "attn.qkv", "attn.proj", "attn.q_norm", "attn.k_norm", "norm2")
        for i in range(self.depth):
            for part in (*parts, "mlp.fc1", "mlp.fc1_g", "mlp.fc1_x", "mlp.fc2"):
                names[f"blocks.layers.{i}.{part}"] = f"blocks.{i}.{part}"
        return names


def vit_tiny(*, rngs: nnx.Rngs, **settings: Any) -> ViT:
    """ViT-Ti: width 192, 12 blocks, 3 heads."""
    return ViT(rngs=rngs, **{"embed_dim": 192, "depth": 12, "num_heads": 3, **settings})


def vit_small(*, rngs: nnx.Rngs, **settings: Any) -> ViT:
    """ViT-S: width 384, 12 blocks, 6 heads."""
    return ViT(rngs=rngs, **{"embed_dim": 384, "depth": 12, "num_heads": 6, **settings})


def vit_base(*, rngs: nnx.Rngs, **settings: Any) -> ViT:
    """ViT-B: width 768, 12 blocks, 12 heads."""
    return ViT(rngs=rngs, **{"embed_dim": 768, "depth": 12, "num_heads": 12, **settings})


def vit_large(*, rngs: nnx.Rngs, **settings: Any) -> ViT:
    """ViT-L: width 1024, 24 blocks, 16 heads."""
    return ViT(rngs=rngs, **{"embed_dim": 1024, "depth": 24, "num_heads": 16, **settings})
