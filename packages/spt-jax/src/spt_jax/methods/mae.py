"""MAE: encode a few patches, decode the others' pixels.

He et al., CVPR 2022. https://arxiv.org/abs/2111.06377; official code https://github.com/facebookresearch/mae.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spt_jax._compat import read
from spt_jax.backbone.positions import sincos_2d
from spt_jax.backbone.transformer import Block, layer_norm, token_linear
from spt_jax.backbone.vit import ViT
from spt_jax.losses import MAELoss
from spt_jax.methods._method import Method, embedded, images_of, labels_of, views_of, weight_of
from spt_jax.module import State


def mae(self: Any, batch: Mapping[str, Any], stage: str) -> State:
    """Reconstruct the masked patches of each image.

    Needs: ``backbone`` (a ``ViT``), ``decoder``, ``mae_loss``, ``mask_ratio``.
    Reads: ``image`` ``(N, H, W, C)``, or the first of ``views``.
    Writes: ``embedding`` (of the visible patches in ``fit``) and ``label``; in ``fit`` also ``predictions``
    ``(N, L, p * p * C)``, ``mask`` ``(N, L)``, 1 where masked, and ``loss``.
    """
    views = views_of(batch)[:1]
    if stage != "fit":
        return embedded(self.backbone, views)
    images = images_of(views)
    grid = self.backbone.grid_of(*images.shape[1:3])
    noise = jax.random.uniform(self.step_key(), (len(images), grid[0] * grid[1]))
    keep, mask = random_masking(noise, self.mask_ratio)
    tokens = self.backbone(images, keep=keep, tokens=True)
    state: State = {"embedding": pooled(self.backbone, tokens), "mask": mask, **labels_of(views)}
    state["predictions"] = self.decoder(tokens, keep, grid)
    weight = weight_of(batch)
    counted = mask if weight is None else mask * weight[:, None]
    state["loss"] = self.mae_loss(state["predictions"], images, counted)
    return state


def random_masking(noise: jax.Array, ratio: float) -> tuple[jax.Array, jax.Array]:
    """Keep the patches of least noise, as the official code.

    Args:
        noise: One number per patch, ``(N, L)``.
        ratio: Share that is masked; ``int(L * (1 - ratio))`` patches are kept.

    Returns:
        Places of the kept patches ``(N, n)`` in order of rising noise, and the mask ``(N, L)``, 1 where
        masked.

    Raises:
        ValueError: If no patch is kept.
    """
    length = noise.shape[1]
    number = int(length * (1 - ratio))
    if number < 1:
        raise ValueError(f"`mask_ratio` {ratio} leaves none of {length} patches.")
    keep = jnp.argsort(noise, axis=1)[:, :number]
    rows = jnp.arange(len(noise))[:, None]
    return keep, jnp.ones(noise.shape).at[rows, keep].set(0.0)


def pooled(backbone: ViT, tokens: jax.Array) -> jax.Array:
    """The class token, or the mean of the patches without one."""
    if hasattr(backbone, "cls_token"):
        return tokens[:, 0]
    return tokens[:, backbone.num_prefix_tokens :].mean(1)


class MAEDecoder(nnx.Module):
    """Mask tokens among the encoded patches, a narrow transformer, and pixels.

    Args:
        embed_dim: Width of the encoder's tokens.
        output_dim: Values predicted per patch.
        num_prefix_tokens: Leading tokens that are not patches; they take part and are left out of
            the result.
        rngs: Where weights are drawn.
        dim: Width inside, a multiple of 4.
        depth: Blocks.
        num_heads: Heads.
        mlp_ratio: Hidden width of the MLPs over ``dim``.
    """

    def __init__(
        self,
        embed_dim: int,
        output_dim: int,
        num_prefix_tokens: int,
        *,
        rngs: nnx.Rngs,
        dim: int = 512,
        depth: int = 8,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
    ) -> None:
        self.prefix = num_prefix_tokens
        self.dim = dim
        self.depth = depth
        self.embed = token_linear(embed_dim, dim, rngs=rngs)
        self.mask_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 1, dim)))
        self.blocks = nnx.Sequential(
            *(Block(dim, num_heads, rngs=rngs, mlp_ratio=mlp_ratio) for _ in range(depth))
        )
        self.norm = layer_norm(dim, rngs=rngs)
        self.pred = token_linear(dim, output_dim, rngs=rngs)

    def __call__(self, tokens: jax.Array, keep: jax.Array, grid: tuple[int, int]) -> jax.Array:
        """Predict every patch.

        Args:
            tokens: Prefix tokens and visible patches, ``(N, prefix + n, embed_dim)``.
            keep: Places of the visible patches, ``(N, n)``.
            grid: Rows and columns of patches.

        Returns:
            ``(N, L, output_dim)``.
        """
        x = self.embed(tokens)
        n, length = len(x), grid[0] * grid[1]
        full = jnp.broadcast_to(read(self.mask_token).astype(x.dtype), (n, length, self.dim))
        full = full.at[jnp.arange(n)[:, None], keep].set(x[:, self.prefix :])
        full = full + jnp.asarray(sincos_2d(self.dim, grid)).astype(x.dtype)
        x = jnp.concatenate([x[:, : self.prefix], full], axis=1)
        for block in self.blocks.layers:
            x = block(x)
        return self.pred(self.norm(x))[:, self.prefix :]

    def torch_names(self) -> dict[str, str]:
        """Our modules' names, and those of the official code."""
        names = {
            "embed": "decoder_embed",
            "mask_token": "mask_token",
            "norm": "decoder_norm",
            "pred": "decoder_pred",
        }
        for i in range(self.depth):
            for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
                names[f"blocks.layers.{i}.{part}"] = f"decoder_blocks.{i}.{part}"
        return names


class MAE(Method):
    """MAE on a vision transformer; the paper's has fixed positions, ``ViT(pos_embed="sincos")``.

    Args:
        backbone: A ``ViT``.
        rngs: Where the decoder's weights are drawn.
        in_channels: Channels of the images.
        decoder_embed_dim: Width of the decoder.
        decoder_depth: Its blocks.
        decoder_num_heads: Its heads.
        mask_ratio: Share of patches that are masked.
        norm_pix_loss: Standardise each patch of the target.
        **common: As for :class:`SimCLR`.
    """

    def __init__(
        self,
        backbone: ViT,
        *,
        rngs: nnx.Rngs,
        in_channels: int = 3,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mask_ratio: float = 0.75,
        norm_pix_loss: bool = True,
        **common: Any,
    ) -> None:
        if not 0 < mask_ratio < 1:
            raise ValueError(f"`mask_ratio` must be in (0, 1), got {mask_ratio}.")
        decoder = MAEDecoder(
            backbone.embed_dim,
            backbone.patch_size**2 * in_channels,
            backbone.num_prefix_tokens,
            rngs=rngs,
            dim=decoder_embed_dim,
            depth=decoder_depth,
            num_heads=decoder_num_heads,
        )
        super().__init__(
            mae,
            backbone,
            settings={
                "decoder_embed_dim": decoder_embed_dim,
                "decoder_depth": decoder_depth,
                "decoder_num_heads": decoder_num_heads,
                "mask_ratio": mask_ratio,
                "norm_pix_loss": norm_pix_loss,
            },
            parts={
                "decoder": decoder,
                "mae_loss": MAELoss(backbone.patch_size, norm_pix_loss),
                "mask_ratio": mask_ratio,
            },
            **common,
        )
