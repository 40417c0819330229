"""Backbones and heads."""

from spt_methods.backbones.mlp import MLP as MLP
from spt_methods.backbones.mlp import projection_head as projection_head
from spt_methods.backbones.timm import from_timm as from_timm
from spt_methods.backbones.torchvision import from_torchvision as from_torchvision
