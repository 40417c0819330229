"""A vision transformer over videos: tubelets, fixed positions in space and time, timm's blocks.

Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video", 2024,
section 4. https://arxiv.org/abs/2404.08471; official code https://github.com/facebookresearch/jepa,
``src/models/vision_transformer.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import timm
from torch import Tensor, nn
from torch.nn import functional as F

from spt_methods.backbones.pos_embed import get_3d_sincos_pos_embed
from spt_methods.backbones.predictor import truncated_init
from spt_methods.backbones.timm import from_timm
from spt_methods.masking.patches import keep_tokens

HOME = "timm.models.vision_transformer"

Volume = tuple[int, int, int]


class VideoTokens(NamedTuple):
    """What a video encoder returns.

    Attributes:
        embedding: Mean of the patches, shape ``(B, D)``.
        patches: Shape ``(B, n, D)``, frame by frame.
        grid_size: Frames (of tubelets), rows and columns of the whole grid.
    """

    embedding: Tensor
    patches: Tensor
    grid_size: Volume


class VideoViT(nn.Module):
    """Encodes videos, or the tubelets of them that are kept.

    Args:
        model_name: A timm ``VisionTransformer``, whose width, blocks and norm are taken.
        num_frames: Frames of a video.
        tubelet_size: Frames of a tubelet.
        image_size: Side of the frames.
        in_chans: Channels.
        uniform_power: Give time, rows and columns equal parts of the positions, as the published
            runs; else time has half.
        drop_path_rate: Stochastic depth.
        **settings: Further arguments of ``timm.create_model``.

    Attributes:
        embed_dim: Width of the tokens.
        num_features: Width of the embedding, the same.
        default_grid: Frames (of tubelets), rows and columns at the encoder's own size.

    Raises:
        ValueError: If the model is no plain vision transformer, or frames or sides do not divide.

    Example:
        >>> import torch
        >>> encoder = VideoViT("vit_tiny_patch16_224", num_frames=4, image_size=32, depth=1)
        >>> embedding, patches, grid = encoder(torch.zeros(2, 3, 4, 32, 32))
        >>> embedding.shape, patches.shape, grid
        (torch.Size([2, 192]), torch.Size([2, 8, 192]), (2, 2, 2))
    """

    positions: Tensor

    def __init__(
        self,
        model_name: str = "vit_base_patch16_224",
        num_frames: int = 16,
        tubelet_size: int = 2,
        image_size: int = 224,
        in_chans: int = 3,
        uniform_power: bool = True,
        drop_path_rate: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__()
        if not (timm.is_model(model_name) and timm.model_entrypoint(model_name).__module__ == HOME):
            raise ValueError(
                f"VideoViT needs the name of a VisionTransformer of timm, got {model_name!r}."
            )
        plain = {"class_token": False, "global_pool": "avg", "fc_norm": False, "pos_embed": "none"}
        vit: Any = from_timm(
            model_name, num_classes=0, img_size=image_size, drop_path_rate=drop_path_rate,
            **{**plain, **settings},
        )  # fmt: skip
        side = int(vit.patch_embed.patch_size[0])
        if num_frames % tubelet_size or image_size % side:
            raise ValueError(
                f"{num_frames} frames of side {image_size} do not divide into tubelets of "
                f"{tubelet_size} frames and patches of side {side}."
            )
        self.embed_dim = self.num_features = int(vit.embed_dim)
        self.num_heads = int(vit.blocks[0].attn.num_heads)
        self.uniform_power = uniform_power
        self.tubelet = (tubelet_size, side, side)
        self.default_grid = (num_frames // tubelet_size, image_size // side, image_size // side)
        self.patch_embed = nn.Conv3d(in_chans, self.embed_dim, self.tubelet, self.tubelet)
        table = get_3d_sincos_pos_embed(self.embed_dim, self.default_grid, uniform=uniform_power)
        self.register_buffer("positions", table, persistent=False)
        self.norm_pre, self.blocks, self.norm = vit.norm_pre, vit.blocks, vit.norm
        truncated_init(self)
        nn.init.trunc_normal_(self.patch_embed.weight, std=0.02)
        nn.init.zeros_(self.patch_embed.bias)  # type: ignore[arg-type]

    def grid_of(self, videos: Tensor) -> Volume:
        """Frames (of tubelets), rows and columns of videos ``(B, C, T, H, W)``."""
        frames, rows, columns = (
            n // part for n, part in zip(videos.shape[2:], self.tubelet, strict=True)
        )
        return frames, rows, columns

    def positions_of(self, grid: Volume) -> Tensor:
        """Positions of a grid ``(N, D)``; resampled if it is not the encoder's own."""
        if grid == self.default_grid:
            return self.positions
        table = self.positions.T.unflatten(1, self.default_grid).unsqueeze(0)
        return F.interpolate(table, size=grid, mode="trilinear")[0].flatten(1).T

    def forward(self, videos: Tensor, ids_keep: Tensor | None = None) -> VideoTokens:
        """Encode videos.

        Args:
            videos: Shape ``(B, C, T, H, W)``.
            ids_keep: The places of the tubelets to encode, alone, shape ``(B, n)``.

        Raises:
            ValueError: If the shape is another one.
        """
        if videos.ndim != 5:
            raise ValueError(
                f"`videos` must have shape (B, C, T, H, W), got {tuple(videos.shape)}."
            )
        grid = self.grid_of(videos)
        x = self.patch_embed(videos).flatten(2).mT + self.positions_of(grid)
        if ids_keep is not None:
            x = keep_tokens(x, ids_keep)
        x = self.norm_pre(x)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return VideoTokens(x.mean(1), x, grid)
