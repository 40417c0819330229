"""The encoder of the Cosmos tokenizer: factorised causal convolutions and attention.

NVIDIA, "Cosmos World Foundation Model Platform for Physical AI", 2025, section 4.1,
https://arxiv.org/abs/2501.03575; official code https://github.com/NVIDIA/Cosmos-Tokenizer.

Deviations: no Haar wavelet before the first convolution, whose halvings are stages of the network
here; norms by frame and group; no quantiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spt_methods.backbones.video.causal_resnet import CausalResNet3d


class CosmosEncoder(CausalResNet3d):
    """Convolutions in space and then in time; attention in space, and causal in time.

    Its last two stages of four attend by default; for all other arguments see
    :class:`CausalResNet3d`.

    Example:
        >>> import torch
        >>> net = CosmosEncoder(8, (1, 2), 1, attn_stages=(1,), temporal_downsample_stages=(0,))
        >>> net(torch.zeros(1, 3, 4, 16, 16)).pooled.shape
        torch.Size([1, 16])
    """

    factorized = True

    def __init__(
        self,
        base_channels: int = 128,
        channel_multipliers: Sequence[int] = (1, 2, 2, 4),
        n_res_blocks: int = 2,
        latent_dim: int = 16,
        attn_stages: Sequence[int] = (2, 3),
        **settings: Any,
    ) -> None:
        super().__init__(
            base_channels, channel_multipliers, n_res_blocks, latent_dim, attn_stages, **settings
        )
