"""Decoders from features to images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from spt_methods.backbones.patches import unpatchify
from spt_methods.backbones.pos_embed import get_sincos_pos_embed
from spt_methods.backbones.transformer import TransformerBlock


class _ResBlock(nn.Module):
    """GroupNorm, SiLU, convolution, twice, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        groups = next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0)
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.GroupNorm(groups, channels), nn.SiLU()]
            layers.append(nn.Conv2d(channels, channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


class CNNImageDecoder(nn.Module):
    """One vector per image to the image: convolutions between nearest-neighbour doublings.

    Args:
        embed_dim: Width of the vectors.
        img_size: Side of the images: ``start_size`` times a power of two.
        out_chans: Channels of the images.
        base_channels: Channels at the start, halved with each doubling.
        min_channels: They do not fall below this.
        start_size: Side at the start.
        num_res_blocks: Residual blocks per size.

    Raises:
        ValueError: If the sizes do not fit.
    """

    def __init__(
        self,
        embed_dim: int,
        img_size: int,
        out_chans: int = 3,
        base_channels: int = 512,
        min_channels: int = 32,
        start_size: int = 4,
        num_res_blocks: int = 2,
    ) -> None:
        super().__init__()
        doublings = (img_size // start_size).bit_length() - 1
        if start_size < 1 or start_size * 2**doublings != img_size:
            raise ValueError(
                f"`img_size` must be `start_size` times a power of two, got {img_size} and "
                f"{start_size}."
            )
        self.start_size, channels = start_size, base_channels
        self.embed = nn.Linear(embed_dim, channels * start_size**2)
        layers: list[nn.Module] = [_ResBlock(channels) for _ in range(num_res_blocks)]
        for _ in range(doublings):
            narrower = max(channels // 2, min_channels)
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(channels, narrower, 3, padding=1)]
            layers += [_ResBlock(narrower) for _ in range(num_res_blocks)]
            channels = narrower
        layers += [nn.SiLU(), nn.Conv2d(channels, out_chans, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` of vectors ``(B, D)``."""
        start = self.embed(x).view(len(x), -1, self.start_size, self.start_size)
        out: Tensor = self.layers(start)
        return out


class ViTImageDecoder(nn.Module):
    """Tokens of patches to the image, by a transformer.

    Args:
        embed_dim: Width of the tokens.
        img_size: Side of the images.
        patch_size: Side of the patches, which divides it.
        out_chans: Channels of the images.
        decoder_dim: Width inside.
        depth: Blocks.
        num_heads: Heads.
        mlp_ratio: Hidden width of the MLPs over ``decoder_dim``.

    Raises:
        ValueError: If the patch does not divide the image.
    """

    pos_embed: Tensor

    def __init__(
        self,
        embed_dim: int,
        img_size: int,
        patch_size: int,
        out_chans: int = 3,
        decoder_dim: int = 256,
        depth: int = 4,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if img_size % patch_size:
            raise ValueError(f"`patch_size` {patch_size} must divide `img_size`, got {img_size}.")
        self.shape, side = (out_chans, patch_size, patch_size), img_size // patch_size
        self.grid = (1, side, side)
        self.embed = nn.Linear(embed_dim, decoder_dim)
        table = get_sincos_pos_embed(decoder_dim, side**2, "2d", (side, side))
        self.register_buffer("pos_embed", table.unsqueeze(0), persistent=False)
        self.blocks = nn.Sequential(
            *(TransformerBlock(decoder_dim, num_heads, mlp_ratio) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(decoder_dim, eps=1e-6)
        self.pred = nn.Linear(decoder_dim, out_chans * patch_size**2)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` of tokens ``(B, P, D)``."""
        x = self.blocks(self.embed(x) + self.pos_embed.to(x.dtype))
        return unpatchify(self.pred(self.norm(x)), self.shape, self.grid)


def build_image_decoder(
    embed_dim: int,
    image_shape: Sequence[int],
    kind: Literal["auto", "cnn", "vit"] = "auto",
    patch_size: int | None = None,
    decoder_kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A decoder for square images.

    Args:
        embed_dim: Width of the features.
        image_shape: ``(C, H, W)``.
        kind: ``"cnn"`` for vectors, ``"vit"`` for tokens, ``"auto"``: tokens if there is a
            ``patch_size``.
        patch_size: Side of the patches.
        decoder_kwargs: Further arguments of the decoder.

    Raises:
        ValueError: If the image is not square, or the kind lacks its patch size or is unknown.

    Example:
        >>> import torch
        >>> decoder = build_image_decoder(8, (3, 16, 16), decoder_kwargs={"base_channels": 16})
        >>> decoder(torch.zeros(2, 8)).shape
        torch.Size([2, 3, 16, 16])
    """
    channels, height, width = image_shape
    if height != width:
        raise ValueError(f"`image_shape` must be square, got {tuple(image_shape)}.")
    if kind == "auto":
        kind = "cnn" if patch_size is None else "vit"
    more = dict(decoder_kwargs or {})
    if kind == "cnn":
        return CNNImageDecoder(embed_dim, height, channels, **more)
    if kind == "vit" and patch_size is not None:
        return ViTImageDecoder(embed_dim, height, patch_size, channels, **more)
    raise ValueError(f"`kind` must be 'auto', 'cnn' or 'vit' with a `patch_size`, got {kind!r}.")
