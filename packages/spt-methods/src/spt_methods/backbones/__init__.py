"""Backbones, transformer blocks and heads."""

from spt_methods.backbones.attention import Attention as Attention
from spt_methods.backbones.attention import CrossAttention as CrossAttention
from spt_methods.backbones.encoder import build_encoder as build_encoder
from spt_methods.backbones.encoder import width_of as width_of
from spt_methods.backbones.flexible import FlexibleTransformer as FlexibleTransformer
from spt_methods.backbones.heads import mlp_head as mlp_head
from spt_methods.backbones.heads import projection_head as projection_head
from spt_methods.backbones.mae_decoder import MAEDecoder as MAEDecoder
from spt_methods.backbones.masked_encoder import MaskedEncoder as MaskedEncoder
from spt_methods.backbones.masked_encoder import MaskedEncoderOutput as MaskedEncoderOutput
from spt_methods.backbones.mlp import MLP as MLP
from spt_methods.backbones.patches import patchify as patchify
from spt_methods.backbones.patches import unpatchify as unpatchify
from spt_methods.backbones.pos_embed import get_sincos_pos_embed as get_sincos_pos_embed
from spt_methods.backbones.pos_embed import interpolate_pos_embed as interpolate_pos_embed
from spt_methods.backbones.prototypes import PrototypeHead as PrototypeHead
from spt_methods.backbones.prototypes import Prototypes as Prototypes
from spt_methods.backbones.teacher import TeacherStudentWrapper as TeacherStudentWrapper
from spt_methods.backbones.timm import from_timm as from_timm
from spt_methods.backbones.torchvision import from_torchvision as from_torchvision
from spt_methods.backbones.transformer import TransformerBlock as TransformerBlock
from spt_methods.backbones.transformer import modulate as modulate
from spt_methods.backbones.vit_tokens import Tokens as Tokens
from spt_methods.backbones.vit_tokens import ViTTokens as ViTTokens
from spt_methods.masking.patches import MaskingOutput as MaskingOutput
from spt_methods.masking.patches import PatchMasking as PatchMasking
