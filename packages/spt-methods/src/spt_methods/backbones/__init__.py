"""Backbones and heads."""

from spt_methods.backbones.encoder import build_encoder as build_encoder
from spt_methods.backbones.encoder import width_of as width_of
from spt_methods.backbones.heads import mlp_head as mlp_head
from spt_methods.backbones.heads import projection_head as projection_head
from spt_methods.backbones.mlp import MLP as MLP
from spt_methods.backbones.teacher import TeacherStudentWrapper as TeacherStudentWrapper
from spt_methods.backbones.timm import from_timm as from_timm
from spt_methods.backbones.torchvision import from_torchvision as from_torchvision
