"""The encoder of MAGVIT-v2: a causal 3-D residual network.

Yu et al., ICLR 2024, https://arxiv.org/abs/2310.05737, section 3.2. No official code is published;
the number of blocks and the widths are arguments. There is no quantiser here.
"""

from __future__ import annotations

from collections.abc import Sequence

from spt_methods.backbones.video._features import Pool
from spt_methods.backbones.video.causal_resnet import CausalResNet3d


class MAGVIT2Encoder(CausalResNet3d):
    """Full 3 x 3 x 3 convolutions and no attention; see :class:`CausalResNet3d`.

    Args:
        base_channels: Width of the first stage.
        channel_multipliers: Width of each stage over ``base_channels``.
        n_res_blocks: Residual blocks a stage.
        latent_dim: Channels of the result.
        temporal_downsample_stages: Numbers of the stages that are followed by a halving of time.
        in_channels: Channels of the video.
        global_pool: ``"avg"``, or ``""`` for no pooled features.

    Example:
        >>> import torch
        >>> net = MAGVIT2Encoder(8, (1, 2), 1, temporal_downsample_stages=(0,))
        >>> net(torch.zeros(1, 3, 4, 16, 16)).feature_map.shape
        torch.Size([1, 16, 2, 8, 8])
    """

    def __init__(
        self,
        base_channels: int = 128,
        channel_multipliers: Sequence[int] = (1, 2, 2, 4),
        n_res_blocks: int = 2,
        latent_dim: int = 16,
        temporal_downsample_stages: Sequence[int] = (1, 2),
        in_channels: int = 3,
        global_pool: Pool = "avg",
    ) -> None:
        super().__init__(
            in_channels,
            base_channels,
            channel_multipliers,
            n_res_blocks,
            latent_dim,
            (),
            temporal_downsample_stages,
            factorized=False,
            global_pool=global_pool,
        )
