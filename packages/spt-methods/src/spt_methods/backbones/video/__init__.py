"""Encoders of videos ``(B, C, T, H, W)``: causal convolutions, recurrence, and state spaces.

Each returns a :class:`VideoFeatures`. The sizes of the presets follow the papers where these name
them; the others fill the ladder from tiny to gigantic.
"""

from spt_methods.backbones.video._features import VideoFeatures as VideoFeatures
from spt_methods.backbones.video.causal import CausalConv3d as CausalConv3d
from spt_methods.backbones.video.causal import GroupNormPerFrame as GroupNormPerFrame
from spt_methods.backbones.video.cosmos import CosmosEncoder as CosmosEncoder
from spt_methods.backbones.video.magvit2 import MAGVIT2Encoder as MAGVIT2Encoder
from spt_methods.backbones.video.predrnn import PredRNNv2 as PredRNNv2
from spt_methods.backbones.video.presets import cosmos_base as cosmos_base
from spt_methods.backbones.video.presets import cosmos_giant as cosmos_giant
from spt_methods.backbones.video.presets import cosmos_gigantic as cosmos_gigantic
from spt_methods.backbones.video.presets import cosmos_huge as cosmos_huge
from spt_methods.backbones.video.presets import cosmos_large as cosmos_large
from spt_methods.backbones.video.presets import cosmos_small as cosmos_small
from spt_methods.backbones.video.presets import cosmos_tiny as cosmos_tiny
from spt_methods.backbones.video.presets import magvit2_base as magvit2_base
from spt_methods.backbones.video.presets import magvit2_giant as magvit2_giant
from spt_methods.backbones.video.presets import magvit2_gigantic as magvit2_gigantic
from spt_methods.backbones.video.presets import magvit2_huge as magvit2_huge
from spt_methods.backbones.video.presets import magvit2_large as magvit2_large
from spt_methods.backbones.video.presets import magvit2_small as magvit2_small
from spt_methods.backbones.video.presets import magvit2_tiny as magvit2_tiny
from spt_methods.backbones.video.presets import predrnn_v2_base as predrnn_v2_base
from spt_methods.backbones.video.presets import predrnn_v2_huge as predrnn_v2_huge
from spt_methods.backbones.video.presets import predrnn_v2_large as predrnn_v2_large
from spt_methods.backbones.video.presets import predrnn_v2_small as predrnn_v2_small
from spt_methods.backbones.video.presets import predrnn_v2_tiny as predrnn_v2_tiny
from spt_methods.backbones.video.presets import recurrent_vit_base as recurrent_vit_base
from spt_methods.backbones.video.presets import recurrent_vit_huge as recurrent_vit_huge
from spt_methods.backbones.video.presets import recurrent_vit_large as recurrent_vit_large
from spt_methods.backbones.video.presets import recurrent_vit_small as recurrent_vit_small
from spt_methods.backbones.video.presets import recurrent_vit_tiny as recurrent_vit_tiny
from spt_methods.backbones.video.presets import videomamba_base as videomamba_base
from spt_methods.backbones.video.presets import videomamba_giant as videomamba_giant
from spt_methods.backbones.video.presets import videomamba_gigantic as videomamba_gigantic
from spt_methods.backbones.video.presets import videomamba_huge as videomamba_huge
from spt_methods.backbones.video.presets import videomamba_large as videomamba_large
from spt_methods.backbones.video.presets import videomamba_small as videomamba_small
from spt_methods.backbones.video.presets import videomamba_tiny as videomamba_tiny
from spt_methods.backbones.video.recurrent_vit import RecurrentViT as RecurrentViT
from spt_methods.backbones.video.selective_scan import selective_scan as selective_scan
from spt_methods.backbones.video.videomamba import VideoMamba as VideoMamba
