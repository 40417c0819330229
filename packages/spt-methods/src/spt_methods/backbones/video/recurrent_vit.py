"""A vision transformer on each frame and a GRU over their class tokens.

Dosovitskiy et al., https://arxiv.org/abs/2010.11929; Cho et al., https://arxiv.org/abs/1406.1078.
"""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from spt_methods.backbones.video._features import (
    Pool,
    VideoFeatures,
    check_pool,
    check_video,
)


class RecurrentViT(nn.Module):
    """Encode frames by themselves, then pass their class tokens through time.

    Several cameras of one scene are encoded alike; what they see is told apart by a learned vector,
    their class tokens are averaged, and their maps stand side by side along the columns.

    Args:
        img_size: Side of a frame.
        patch_size: Side of a patch.
        embed_dim: Width D.
        spatial_depth: Blocks of the transformer.
        gru_layers: Layers of the GRU.
        max_cams: Most cameras.
        num_heads: Heads; one for each 64 channels by default.
        in_channels: Channels of the video.
        global_pool: ``"avg"``: the mean of the tokens over time; ``""`` for none.

    Attributes:
        embed_dim: Width of the features.
        num_features: The same.

    Raises:
        ValueError: If the pooling is unknown; at a call, if the shape does not fit.

    Example:
        >>> net = RecurrentViT(16, 8, embed_dim=64, spatial_depth=1)
        >>> net(torch.zeros(2, 3, 5, 16, 16)).tokens.shape
        torch.Size([2, 5, 64])
    """

    def __init__(
        self,
        img_size: int = 64,
        patch_size: int = 8,
        embed_dim: int = 384,
        spatial_depth: int = 12,
        gru_layers: int = 1,
        max_cams: int = 1,
        num_heads: int | None = None,
        in_channels: int = 3,
        global_pool: Pool = "avg",
    ) -> None:
        super().__init__()
        check_pool(global_pool)
        self.in_channels, self.global_pool = in_channels, global_pool
        self.embed_dim = self.num_features = embed_dim
        self.vit = VisionTransformer(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_channels,
            num_classes=0,
            embed_dim=embed_dim,
            depth=spatial_depth,
            num_heads=num_heads or max(embed_dim // 64, 1),
        )
        self.cameras = nn.Parameter(torch.zeros(max_cams, embed_dim)) if max_cams > 1 else None
        self.gru = nn.GRU(embed_dim, embed_dim, gru_layers, batch_first=True)

    def forward(self, x: Tensor) -> VideoFeatures:
        """Of videos ``(B, C, T, H, W)``, or of several cameras ``(B, V, C, T, H, W)``.

        Raises:
            ValueError: If the shape does not fit.
        """
        videos = x.unsqueeze(1) if x.ndim == 5 else x
        if videos.ndim != 6 or videos.shape[1] > (1 if self.cameras is None else len(self.cameras)):
            raise ValueError(
                "RecurrentViT needs (B, C, T, H, W) or (B, V, C, T, H, W) with V up to `max_cams`, "
                f"got shape {tuple(x.shape)}."
            )
        check_video(videos[:, 0], self.in_channels, "RecurrentViT")
        b, v, _, t = videos.shape[:4]
        frames = videos.transpose(2, 3).flatten(0, 2)  # (B V T, C, H, W)
        hidden = self.vit.forward_features(frames).unflatten(0, (b, v, t))
        classes = hidden[..., 0, :]  # (B, V, T, D)
        if self.cameras is not None:
            classes = classes + self.cameras[:v, None]
        tokens, _ = self.gru(classes.mean(1))
        rows, columns = self.vit.patch_embed.grid_size
        patches = hidden[..., 1:, :].unflatten(3, (rows, columns))  # (B, V, T, H', W', D)
        feature_map = patches.permute(0, 5, 2, 3, 1, 4).flatten(4, 5)
        pooled = tokens.mean(1) if self.global_pool == "avg" else None
        return VideoFeatures(feature_map, pooled, tokens)
