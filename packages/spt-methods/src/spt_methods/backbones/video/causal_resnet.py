"""A residual network of causal convolutions: the encoder that MAGVIT-v2 and Cosmos share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from spt_methods.backbones.video._features import (
    Pool,
    VideoFeatures,
    check_pool,
    check_video,
    mean_of_map,
)
from spt_methods.backbones.video.causal import (
    AxisAttention,
    CausalConv3d,
    GroupNormPerFrame,
    ResidualBlock3d,
    convolution,
)


class CausalResNet3d(nn.Module):
    """Stages of residual blocks; between them space is halved, and in some of them time.

    A frame of the result depends on no later frame of the video.

    Args:
        base_channels: Width of the first stage.
        channel_multipliers: Width of each stage over ``base_channels``.
        n_res_blocks: Residual blocks a stage.
        latent_dim: Channels of the result.
        attn_stages: Numbers of the stages with attention in space and in time.
        temporal_downsample_stages: Numbers of the stages that are followed by a halving of time.
        in_channels: Channels of the video.
        global_pool: ``"avg"``, or ``""`` for no pooled features.

    Attributes:
        embed_dim: Width of the features.
        num_features: The same.
        factorized: Whether the class convolves in space and then in time.

    Raises:
        ValueError: If a stage is named that is not there, or the pooling is unknown.
    """

    factorized: ClassVar[bool]

    def __init__(
        self,
        base_channels: int = 128,
        channel_multipliers: Sequence[int] = (1, 2, 2, 4),
        n_res_blocks: int = 2,
        latent_dim: int = 16,
        attn_stages: Sequence[int] = (),
        temporal_downsample_stages: Sequence[int] = (1, 2),
        in_channels: int = 3,
        global_pool: Pool = "avg",
    ) -> None:
        super().__init__()
        check_pool(global_pool)
        last = len(channel_multipliers) - 1
        for name, stages, limit in (
            ("attn_stages", attn_stages, last),
            ("temporal_downsample_stages", temporal_downsample_stages, last - 1),
        ):
            if any(not 0 <= stage <= limit for stage in stages):
                raise ValueError(
                    f"`{name}` must name stages from 0 to {limit}, got {tuple(stages)}."
                )
        self.in_channels, self.global_pool = in_channels, global_pool
        self.embed_dim = self.num_features = latent_dim
        layers: list[nn.Module] = [CausalConv3d(in_channels, base_channels, 3)]
        width = base_channels
        for stage, multiplier in enumerate(channel_multipliers):
            for _ in range(n_res_blocks):
                outer = base_channels * multiplier
                layers.append(ResidualBlock3d(width, outer, factorized=self.factorized))
                width = outer
                if stage in attn_stages:
                    layers += [AxisAttention(width, "space"), AxisAttention(width, "time")]
            if stage < last:
                stride = (2 if stage in temporal_downsample_stages else 1, 2, 2)
                layers.append(convolution(width, width, factorized=self.factorized, stride=stride))
        layers.append(ResidualBlock3d(width, width, factorized=self.factorized))
        layers += [GroupNormPerFrame(width), nn.SiLU(), CausalConv3d(width, latent_dim, 3)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> VideoFeatures:
        """Of videos ``(B, C, T, H, W)``.

        Raises:
            ValueError: If the shape is another one.
        """
        check_video(x, self.in_channels, type(self).__name__)
        feature_map = self.layers(x)
        return VideoFeatures(feature_map, mean_of_map(feature_map, self.global_pool))
