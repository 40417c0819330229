"""MoCo v3: predictions of each view pick the other view's momentum keys out of the batch.

Chen, Xie and He, "An Empirical Study of Training Self-Supervised Vision Transformers", ICCV 2021.
https://arxiv.org/abs/2104.02057; official code https://github.com/facebookresearch/moco-v3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from spt_losses import MoCoV3Loss
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from spt_methods.backbones.heads import mlp_head
from spt_methods.backbones.pos_embed import get_sincos_pos_embed
from spt_methods.backbones.teacher import momentum_pair
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, two_views_of, views_of


def mocov3(self: Any, batch: Any, stage: Stage) -> State:
    """Contrast predictions of each view with the other view's momentum keys in the batch.

    Needs: ``backbone`` and ``projector`` (each a ``TeacherStudentWrapper``), ``predictor``,
    ``mocov3_loss``.
    Reads: two views, each with ``image`` ``(N, C, H, W)``, in ``fit``; any number elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` of the student and ``label`` to match, if there are labels; in
    ``fit`` also ``prediction`` and ``target`` ``(2N, D)`` and ``loss``.
    """
    views = two_views_of(batch, "MoCo v3") if stage == "fit" else views_of(batch)
    images = images_of(views)
    state: State = {"embedding": self.backbone.forward_student(images), **labels_of(batch, views)}
    if stage == "fit":
        state["prediction"] = self.predictor(self.projector.forward_student(state["embedding"]))
        state["target"] = self.projector.forward_teacher(self.backbone.forward_teacher(images))
        halves = (*state["prediction"].chunk(2), *state["target"].chunk(2))
        state["loss"] = self.mocov3_loss(*halves)
    return state


class MoCov3(Method):
    """MoCo v3 on a timm encoder, with the heads of the official code.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        projector_dims: Widths of the projector, which ends in BatchNorm without affine parameters;
            the official code has (4096, 256) for a ResNet.
        predictor_hidden_dim: Width of the predictor's hidden layer.
        temperature: tau.
        ema_decay_start: m at the first step.
        ema_decay_end: m at the last step.
        frozen_patches: Keep a ViT's patch projection at its random start, with fixed 2-D sine
            positions, as the paper does for stability; by default of an encoder given by name without
            ``pretrained``. Other encoders are left alone.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is AdamW at 1.5e-4 for a batch of 256, decay 0.1.

    Note:
        BatchNorm sees both views together (one pass of 2N images); the official code normalises
        each view alone.
    """

    paper = Recipe(
        "AdamW", 1.5e-4, 0.1, batch=4096, epochs=300, warmup_epochs=40, augmentation="moco_v3"
    )

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        projector_dims: Sequence[int] = (4096, 4096, 256),
        predictor_hidden_dim: int = 4096,
        temperature: float = 0.2,
        ema_decay_start: float = 0.99,
        ema_decay_end: float = 1.0,
        frozen_patches: bool | None = None,
        **common: Any,
    ) -> None:
        super().__init__(
            mocov3,
            encoder_name,
            **common,
        )
        transformer = isinstance(self.backbone, VisionTransformer)
        if frozen_patches is None:
            frozen_patches = isinstance(encoder_name, str) and not common.get("pretrained")
        if transformer and frozen_patches:
            freeze_patches(self.backbone)
        projector = mlp_head(self.features, projector_dims, last_norm="no_affine")
        self.predictor = mlp_head(
            projector_dims[-1],
            (predictor_hidden_dim, projector_dims[-1]),
            last_norm="no_affine" if transformer else "none",
        )
        decays = (ema_decay_start, ema_decay_end)
        self.backbone = momentum_pair(self.backbone, *decays)
        self.projector = momentum_pair(projector, *decays)
        self.mocov3_loss = MoCoV3Loss(temperature)


@torch.no_grad()
def freeze_patches(vit: Any) -> None:
    """Fix a transformer's patch projection and its positions, as ``vits.py`` of the official code.

    The projection gets a Xavier initialisation over all three parts of its kernel; the positions are
    2-D sines, the first half of the width for the row, with zeros for the class token.

    Args:
        vit: timm's ``VisionTransformer``, changed in place.
    """
    projection, positions = vit.patch_embed.proj, vit.pos_embed
    nn.init.xavier_uniform_(projection.weight.flatten(1))
    nn.init.zeros_(projection.bias)
    grid = vit.patch_embed.grid_size
    width = positions.shape[-1]
    table = get_sincos_pos_embed(width, grid[0] * grid[1], "2d", grid)
    columns, rows = table.chunk(2, dim=-1)
    prefix = positions.shape[1] - len(table)
    positions.zero_()
    positions[0, prefix:] = torch.cat([rows, columns], dim=-1)
    for parameter in (*projection.parameters(), positions):
        parameter.requires_grad_(False)
