"""Sizes of the video encoders.

Those of RecurrentViT are the vision transformers', VideoMamba's tiny, small and base (there: middle) are
published; the others are ours, steps of about two in parameters.
"""

from __future__ import annotations

from typing import Any

from spt_methods.backbones.video.cosmos import CosmosEncoder
from spt_methods.backbones.video.magvit2 import MAGVIT2Encoder
from spt_methods.backbones.video.predrnn import PredRNNv2
from spt_methods.backbones.video.recurrent_vit import RecurrentViT
from spt_methods.backbones.video.videomamba import VideoMamba


def cosmos_tiny(**settings: Any) -> CosmosEncoder:
    """32 channels, 1 block a stage. ``settings`` go to :class:`CosmosEncoder`."""
    return CosmosEncoder(**{"base_channels": 32, "n_res_blocks": 1, **settings})


def cosmos_small(**settings: Any) -> CosmosEncoder:
    """64 channels, 1 block a stage. ``settings`` go to :class:`CosmosEncoder`."""
    return CosmosEncoder(**{"base_channels": 64, "n_res_blocks": 1, **settings})


def cosmos_base(**settings: Any) -> CosmosEncoder:
    """96 channels, 2 blocks a stage. ``settings`` go to :class:`CosmosEncoder`."""
    return CosmosEncoder(**{"base_channels": 96, "n_res_blocks": 2, **settings})


def cosmos_large(**settings: Any) -> CosmosEncoder:
    """128 channels, 2 blocks a stage. ``settings`` go to :class:`CosmosEncoder`."""
    return CosmosEncoder(**{"base_channels": 128, "n_res_blocks": 2, **settings})


def cosmos_huge(**settings: Any) -> CosmosEncoder:
    """160 channels, 3 blocks a stage. ``settings`` go to :class:`CosmosEncoder`."""
    return CosmosEncoder(**{"base_channels": 160, "n_res_blocks": 3, **settings})


def cosmos_giant(**settings: Any) -> CosmosEncoder:
    """192 channels, 3 blocks a stage. ``settings`` go to :class:`CosmosEncoder`."""
    return CosmosEncoder(**{"base_channels": 192, "n_res_blocks": 3, **settings})


def cosmos_gigantic(**settings: Any) -> CosmosEncoder:
    """256 channels, 4 blocks a stage. ``settings`` go to :class:`CosmosEncoder`."""
    return CosmosEncoder(**{"base_channels": 256, "n_res_blocks": 4, **settings})


def magvit2_tiny(**settings: Any) -> MAGVIT2Encoder:
    """32 channels, 1 block a stage. ``settings`` go to :class:`MAGVIT2Encoder`."""
    return MAGVIT2Encoder(**{"base_channels": 32, "n_res_blocks": 1, **settings})


def magvit2_small(**settings: Any) -> MAGVIT2Encoder:
    """64 channels, 1 block a stage. ``settings`` go to :class:`MAGVIT2Encoder`."""
    return MAGVIT2Encoder(**{"base_channels": 64, "n_res_blocks": 1, **settings})


def magvit2_base(**settings: Any) -> MAGVIT2Encoder:
    """96 channels, 2 blocks a stage. ``settings`` go to :class:`MAGVIT2Encoder`."""
    return MAGVIT2Encoder(**{"base_channels": 96, "n_res_blocks": 2, **settings})


def magvit2_large(**settings: Any) -> MAGVIT2Encoder:
    """128 channels, 2 blocks a stage. ``settings`` go to :class:`MAGVIT2Encoder`."""
    return MAGVIT2Encoder(**{"base_channels": 128, "n_res_blocks": 2, **settings})


def magvit2_huge(**settings: Any) -> MAGVIT2Encoder:
    """160 channels, 3 blocks a stage. ``settings`` go to :class:`MAGVIT2Encoder`."""
    return MAGVIT2Encoder(**{"base_channels": 160, "n_res_blocks": 3, **settings})


def magvit2_giant(**settings: Any) -> MAGVIT2Encoder:
    """192 channels, 3 blocks a stage. ``settings`` go to :class:`MAGVIT2Encoder`."""
    return MAGVIT2Encoder(**{"base_channels": 192, "n_res_blocks": 3, **settings})


def magvit2_gigantic(**settings: Any) -> MAGVIT2Encoder:
    """256 channels, 4 blocks a stage. ``settings`` go to :class:`MAGVIT2Encoder`."""
    return MAGVIT2Encoder(**{"base_channels": 256, "n_res_blocks": 4, **settings})


def predrnn_v2_tiny(**settings: Any) -> PredRNNv2:
    """32 channels, 3 layers. ``settings`` go to :class:`PredRNNv2`."""
    return PredRNNv2(**{"hidden_channels": 32, "num_layers": 3, **settings})


def predrnn_v2_small(**settings: Any) -> PredRNNv2:
    """64 channels, 4 layers. ``settings`` go to :class:`PredRNNv2`."""
    return PredRNNv2(**{"hidden_channels": 64, "num_layers": 4, **settings})


def predrnn_v2_base(**settings: Any) -> PredRNNv2:
    """128 channels, 4 layers. ``settings`` go to :class:`PredRNNv2`."""
    return PredRNNv2(**{"hidden_channels": 128, "num_layers": 4, **settings})


def predrnn_v2_large(**settings: Any) -> PredRNNv2:
    """192 channels, 5 layers. ``settings`` go to :class:`PredRNNv2`."""
    return PredRNNv2(**{"hidden_channels": 192, "num_layers": 5, **settings})


def predrnn_v2_huge(**settings: Any) -> PredRNNv2:
    """256 channels, 6 layers. ``settings`` go to :class:`PredRNNv2`."""
    return PredRNNv2(**{"hidden_channels": 256, "num_layers": 6, **settings})


def recurrent_vit_tiny(**settings: Any) -> RecurrentViT:
    """Width 192, 12 blocks, 3 heads. ``settings`` go to :class:`RecurrentViT`."""
    return RecurrentViT(**{"embed_dim": 192, "spatial_depth": 12, "num_heads": 3, **settings})


def recurrent_vit_small(**settings: Any) -> RecurrentViT:
    """Width 384, 12 blocks, 6 heads. ``settings`` go to :class:`RecurrentViT`."""
    return RecurrentViT(**{"embed_dim": 384, "spatial_depth": 12, "num_heads": 6, **settings})


def recurrent_vit_base(**settings: Any) -> RecurrentViT:
    """Width 768, 12 blocks, 12 heads. ``settings`` go to :class:`RecurrentViT`."""
    return RecurrentViT(**{"embed_dim": 768, "spatial_depth": 12, "num_heads": 12, **settings})


def recurrent_vit_large(**settings: Any) -> RecurrentViT:
    """Width 1024, 24 blocks, 16 heads. ``settings`` go to :class:`RecurrentViT`."""
    return RecurrentViT(**{"embed_dim": 1024, "spatial_depth": 24, "num_heads": 16, **settings})


def recurrent_vit_huge(**settings: Any) -> RecurrentViT:
    """Width 1280, 32 blocks, 16 heads. ``settings`` go to :class:`RecurrentViT`."""
    return RecurrentViT(**{"embed_dim": 1280, "spatial_depth": 32, "num_heads": 16, **settings})


def videomamba_tiny(**settings: Any) -> VideoMamba:
    """Width 192, 24 blocks. ``settings`` go to :class:`VideoMamba`."""
    return VideoMamba(**{"embed_dim": 192, "depth": 24, **settings})


def videomamba_small(**settings: Any) -> VideoMamba:
    """Width 384, 24 blocks. ``settings`` go to :class:`VideoMamba`."""
    return VideoMamba(**{"embed_dim": 384, "depth": 24, **settings})


def videomamba_base(**settings: Any) -> VideoMamba:
    """Width 576, 32 blocks. ``settings`` go to :class:`VideoMamba`."""
    return VideoMamba(**{"embed_dim": 576, "depth": 32, **settings})


def videomamba_large(**settings: Any) -> VideoMamba:
    """Width 768, 32 blocks. ``settings`` go to :class:`VideoMamba`."""
    return VideoMamba(**{"embed_dim": 768, "depth": 32, **settings})


def videomamba_huge(**settings: Any) -> VideoMamba:
    """Width 1024, 40 blocks. ``settings`` go to :class:`VideoMamba`."""
    return VideoMamba(**{"embed_dim": 1024, "depth": 40, **settings})


def videomamba_giant(**settings: Any) -> VideoMamba:
    """Width 1280, 40 blocks. ``settings`` go to :class:`VideoMamba`."""
    return VideoMamba(**{"embed_dim": 1280, "depth": 40, **settings})


def videomamba_gigantic(**settings: Any) -> VideoMamba:
    """Width 1536, 48 blocks. ``settings`` go to :class:`VideoMamba`."""
    return VideoMamba(**{"embed_dim": 1536, "depth": 48, **settings})
