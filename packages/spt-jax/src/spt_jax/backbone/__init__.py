"""Encoders and heads; images are ``(B, H, W, C)``, pooled outputs ``(B, embed_dim)``."""

from spt_jax.backbone.convert import from_torch as from_torch
from spt_jax.backbone.layers import BatchNorm as BatchNorm
from spt_jax.backbone.layers import DropPath as DropPath
from spt_jax.backbone.mlp import MLP as MLP
from spt_jax.backbone.mlp import mlp_head as mlp_head
from spt_jax.backbone.positions import sincos_2d as sincos_2d
from spt_jax.backbone.resnet import BasicBlock as BasicBlock
from spt_jax.backbone.resnet import Bottleneck as Bottleneck
from spt_jax.backbone.resnet import ResNet as ResNet
from spt_jax.backbone.resnet import resnet18 as resnet18
from spt_jax.backbone.resnet import resnet34 as resnet34
from spt_jax.backbone.resnet import resnet50 as resnet50
from spt_jax.backbone.resnet import resnet101 as resnet101
from spt_jax.backbone.resnet import resnet152 as resnet152
from spt_jax.backbone.small import ConvMixer as ConvMixer
from spt_jax.backbone.small import ResNet9 as ResNet9
from spt_jax.backbone.transformer import Block as Block
from spt_jax.backbone.vit import ViT as ViT
from spt_jax.backbone.vit import vit_base as vit_base
from spt_jax.backbone.vit import vit_large as vit_large
from spt_jax.backbone.vit import vit_small as vit_small
from spt_jax.backbone.vit import vit_tiny as vit_tiny
