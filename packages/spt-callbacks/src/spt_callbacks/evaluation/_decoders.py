"""Small networks from features back to images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

ImageShape = tuple[int, int, int]


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, as in the decoder of latent diffusion.

    Rombach et al., CVPR 2022. https://arxiv.org/abs/2112.10752
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [_norm(width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to the same shape."""
        out: Tensor = x + self.layers(x)
        return out


class CNNDecoder(nn.Module):
    """One vector an image to an image: lifted to a small map, then doubled stage by stage.

    Args:
        embed_dim: Width D of the vectors.
        image_shape: ``(C, H, W)``, square; H is ``start_size`` times a power of two.
        start_size: Side of the first map.
        width: Channels of the first map; each stage halves them.
        least_width: Channels at least.

    Raises:
        ValueError: If the image cannot be reached by doubling.
    """

    def __init__(
        self,
        embed_dim: int,
        image_shape: ImageShape,
        *,
        start_size: int = 4,
        width: int = 512,
        least_width: int = 32,
    ) -> None:
        super().__init__()
        side = image_shape[1]
        stages = max(side // start_size, 1).bit_length() - 1
        if start_size * 2**stages != side:
            raise ValueError(
                f"A cnn decoder doubles {start_size} until it has the side of the image, got "
                f"`image_shape={image_shape}`; use a side of {start_size} x 2^n."
            )
        self.embed_dim = embed_dim
        self.start = (width, start_size, start_size)
        self.lift = nn.Linear(embed_dim, width * start_size**2)
        layers: list[nn.Module] = []
        for _ in range(stages):
            narrower = max(width // 2, least_width)
            layers += [ResidualBlock(width), ResidualBlock(width), nn.Upsample(scale_factor=2)]
            layers += [nn.Conv2d(width, narrower, 3, padding=1)]
            width = narrower
        layers += [_norm(width), nn.SiLU(), nn.Conv2d(width, image_shape[0], 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` of vectors ``(N, D)``."""
        _check(x, (self.embed_dim,), "vectors (N, D)")
        images: Tensor = self.layers(self.lift(x).unflatten(1, self.start))
        return images


class ViTDecoder(nn.Module):
    """Patch tokens to an image by a small transformer, as in MAE.

    He et al., CVPR 2022. https://arxiv.org/abs/2111.06377

    Args:
        embed_dim: Width D of the tokens.
        image_shape: ``(C, H, W)``, square.
        patch_size: Side of a patch; it divides H.
        decoder_dim: Width of the transformer, a multiple of 4 and of ``num_heads``.
        depth: Blocks.
        num_heads: Attention heads.

    Raises:
        ValueError: If patches do not tile the image.
    """

    def __init__(
        self,
        embed_dim: int,
        image_shape: ImageShape,
        patch_size: int,
        *,
        decoder_dim: int = 256,
        depth: int = 4,
        num_heads: int = 8,
    ) -> None:
        super().__init__()
        channels, side, _ = image_shape
        if patch_size < 1 or side % patch_size:
            raise ValueError(f"`patch_size` must divide the image's side {side}, got {patch_size}.")
        grid = side // patch_size
        self.tokens_shape = (grid**2, embed_dim)
        self.patches = (grid, grid, patch_size, patch_size, channels)
        self.embed = nn.Linear(embed_dim, decoder_dim)
        self.register_buffer("places", sine_places(grid, decoder_dim), persistent=False)
        block = nn.TransformerEncoderLayer(
            decoder_dim, num_heads, 4 * decoder_dim, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            block, depth, nn.LayerNorm(decoder_dim), enable_nested_tensor=False
        )
        self.project = nn.Linear(decoder_dim, patch_size**2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` of patch tokens ``(N, P, D)``, row by row."""
        _check(x, self.tokens_shape, "patch tokens (N, P, D)")
        pixels = self.project(self.blocks(self.embed(x) + self.places))
        return unpatchify(pixels.unflatten(2, self.patches[2:]).unflatten(1, self.patches[:2]))


def unpatchify(pixels: Tensor) -> Tensor:
    """Images ``(N, C, h p, w q)`` of the pixels of patches ``(N, h, w, p, q, C)``."""
    return pixels.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def sine_places(grid: int, width: int) -> Tensor:
    """Fixed codes of the places of a grid, ``(grid^2, width)``: half for the row, half for the column."""
    rates = 10000.0 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(grid)[:, None] * rates  # (grid, width / 4)
    code = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = code[:, None].expand(-1, grid, -1), code.expand(grid, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, width), width)


def _check(x: Tensor, shape: tuple[int, ...], name: str) -> None:
    if tuple(x.shape[1:]) != shape:
        raise ValueError(
            f"The decoder takes {name} of shape (N, {', '.join(map(str, shape))}), got "
            f"{tuple(x.shape)}."
        )
