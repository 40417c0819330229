"""The encoder of the Cosmos tokenizer: factorised causal convolutions and attention.

NVIDIA, "Cosmos World Foundation Model Platform for Physical AI", 2025, section 4.1,
https://arxiv.org/abs/2501.03575; official code https://github.com/NVIDIA/Cosmos-Tokenizer.

Deviations: no Haar wavelet before the first convolution, whose halvings are stages of the network
here; norms by frame and group; no quantiser.
"""

from __future__ import annotations

from collections.abc import Sequence

from spt_methods.backbones.video._features import Pool
from spt_methods.backbones.video.causal_resnet import CausalResNet3d


class CosmosEncoder(CausalResNet3d):
    """Convolutions in space and then in time, attention in space and causal in time.

    See :class:`CausalResNet3d`.

    Args:
        base_channels: Width of the first stage.
        channel_multipliers: Width of each stage over ``base_channels``.
        n_res_blocks: Residual blocks a stage.
        latent_dim: Channels of the result.
        attn_stages: Numbers of the stages with attention.
        temporal_downsample_stages: Numbers of the stages that are followed by a halving of time.
        in_channels: Channels of the video.
        global_pool: ``"avg"``, or ``""`` for no pooled features.

    Example:
        >>> import torch
        >>> net = CosmosEncoder(8, (1, 2), 1, attn_stages=(1,), temporal_downsample_stages=(0,))
        >>> net(torch.zeros(1, 3, 4, 16, 16)).pooled.shape
        torch.Size([1, 16])
    """

    def __init__(
        self,
        base_channels: int = 128,
        channel_multipliers: Sequence[int] = (1, 2, 2, 4),
        n_res_blocks: int = 2,
        latent_dim: int = 16,
        attn_stages: Sequence[int] = (2, 3),
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
            attn_stages,
            temporal_downsample_stages,
            factorized=True,
            global_pool=global_pool,
        )
