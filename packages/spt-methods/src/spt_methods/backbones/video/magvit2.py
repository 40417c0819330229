"""The encoder of MAGVIT-v2: a causal 3-D residual network.

Yu et al., ICLR 2024, https://arxiv.org/abs/2310.05737, section 3.2. No official code is published;
the number of blocks and the widths are arguments. There is no quantiser here.
"""

from __future__ import annotations

from spt_methods.backbones.video.causal_resnet import CausalResNet3d


class MAGVIT2Encoder(CausalResNet3d):
    """Full 3 x 3 x 3 convolutions, as a rule without attention; see :class:`CausalResNet3d`.

    Example:
        >>> import torch
        >>> net = MAGVIT2Encoder(8, (1, 2), 1, temporal_downsample_stages=(0,))
        >>> net(torch.zeros(1, 3, 4, 16, 16)).feature_map.shape
        torch.Size([1, 16, 2, 8, 8])
    """

    factorized = False
