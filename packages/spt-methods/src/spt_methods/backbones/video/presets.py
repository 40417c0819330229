"""Sizes of the video encoders; what is given on top replaces the preset's value.

Those of RecurrentViT are the vision transformers', VideoMamba's tiny, small and base (there: middle) are
published; the others are ours, steps of about two in parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from spt_methods.backbones.video.cosmos import CosmosEncoder
from spt_methods.backbones.video.magvit2 import MAGVIT2Encoder
from spt_methods.backbones.video.predrnn import PredRNNv2
from spt_methods.backbones.video.recurrent_vit import RecurrentViT
from spt_methods.backbones.video.videomamba import VideoMamba

Encoder = TypeVar("Encoder", bound=nn.Module)


def _preset(kind: Callable[..., Encoder], **sizes: int) -> Callable[..., Encoder]:
    def preset(**settings: Any) -> Encoder:
        return kind(**{**sizes, **settings})

    listed = ", ".join(f"{name}={size}" for name, size in sizes.items())
    preset.__doc__ = f"``{kind.__name__}({listed})``, with further arguments of its own."
    return preset


cosmos_tiny = _preset(CosmosEncoder, base_channels=32, n_res_blocks=1)
cosmos_small = _preset(CosmosEncoder, base_channels=64, n_res_blocks=1)
cosmos_base = _preset(CosmosEncoder, base_channels=96, n_res_blocks=2)
cosmos_large = _preset(CosmosEncoder, base_channels=128, n_res_blocks=2)
cosmos_huge = _preset(CosmosEncoder, base_channels=160, n_res_blocks=3)
cosmos_giant = _preset(CosmosEncoder, base_channels=192, n_res_blocks=3)
cosmos_gigantic = _preset(CosmosEncoder, base_channels=256, n_res_blocks=4)

magvit2_tiny = _preset(MAGVIT2Encoder, base_channels=32, n_res_blocks=1)
magvit2_small = _preset(MAGVIT2Encoder, base_channels=64, n_res_blocks=1)
magvit2_base = _preset(MAGVIT2Encoder, base_channels=96, n_res_blocks=2)
magvit2_large = _preset(MAGVIT2Encoder, base_channels=128, n_res_blocks=2)
magvit2_huge = _preset(MAGVIT2Encoder, base_channels=160, n_res_blocks=3)
magvit2_giant = _preset(MAGVIT2Encoder, base_channels=192, n_res_blocks=3)
magvit2_gigantic = _preset(MAGVIT2Encoder, base_channels=256, n_res_blocks=4)

predrnn_v2_tiny = _preset(PredRNNv2, hidden_channels=32, num_layers=3)
predrnn_v2_small = _preset(PredRNNv2, hidden_channels=64, num_layers=4)
predrnn_v2_base = _preset(PredRNNv2, hidden_channels=128, num_layers=4)
predrnn_v2_large = _preset(PredRNNv2, hidden_channels=192, num_layers=5)
predrnn_v2_huge = _preset(PredRNNv2, hidden_channels=256, num_layers=6)

recurrent_vit_tiny = _preset(RecurrentViT, embed_dim=192, spatial_depth=12, num_heads=3)
recurrent_vit_small = _preset(RecurrentViT, embed_dim=384, spatial_depth=12, num_heads=6)
recurrent_vit_base = _preset(RecurrentViT, embed_dim=768, spatial_depth=12, num_heads=12)
recurrent_vit_large = _preset(RecurrentViT, embed_dim=1024, spatial_depth=24, num_heads=16)
recurrent_vit_huge = _preset(RecurrentViT, embed_dim=1280, spatial_depth=32, num_heads=16)

videomamba_tiny = _preset(VideoMamba, embed_dim=192, depth=24)
videomamba_small = _preset(VideoMamba, embed_dim=384, depth=24)
videomamba_base = _preset(VideoMamba, embed_dim=576, depth=32)
videomamba_large = _preset(VideoMamba, embed_dim=768, depth=32)
videomamba_huge = _preset(VideoMamba, embed_dim=1024, depth=40)
videomamba_giant = _preset(VideoMamba, embed_dim=1280, depth=40)
videomamba_gigantic = _preset(VideoMamba, embed_dim=1536, depth=48)
