"""DINO: a student's view of any crop matches its teacher's view of the large ones.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021,
algorithm 1 and eq. 3.
https://arxiv.org/abs/2104.14294; official code https://github.com/facebookresearch/dino.
"""

from __future__ import annotations

from typing import Any

import lightning as pl
import torch
from spt_losses import DINOv1Loss
from torch import nn

from spt_methods.backbones.prototypes import PrototypeHead
from spt_methods.backbones.teacher import momentum_pair
from spt_methods.freeze import FrozenPrototypes
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.methods._temperature import teacher_temperature
from spt_methods.views import (
    Stage,
    State,
    crops_of,
    embed,
    encode_crops,
    images_of,
    labels_of,
)


def dino(self: Any, batch: Any, stage: Stage) -> State:
    """Match the student's distribution over prototypes on all crops with the teacher's on large ones.

    Needs: ``backbone`` and ``projector`` (each a ``TeacherStudentWrapper``), ``dino_loss``; optionally
    ``temperature_teacher``, ``warmup_temperature_teacher``, ``warmup_epochs_temperature_teacher``.
    Reads: in ``fit`` named crops ``global...`` and ``local...``, each with ``image`` ``(N, C, H, W)``; any
    views elsewhere.
    Writes: ``embedding`` of the teacher and ``label`` to match, if there are labels: of the large crops
    ``(G * N, F)`` in ``fit``, of all views elsewhere; in ``fit`` also ``student_logits`` ``(V, N, K)``,
    ``teacher_logits`` ``(G, N, K)`` and ``loss``.
    """
    if stage != "fit":
        return embed(self.backbone.forward_teacher, batch)
    large, small = crops_of(batch, "DINO")
    crops = [*large, *small]
    state: State = {
        "embedding": self.backbone.forward_teacher(images_of(large)),
        **labels_of(batch, large),
    }
    features = torch.cat(encode_crops(self.backbone.forward_student, crops))
    teacher = self.projector.forward_teacher(state["embedding"])
    state["teacher_logits"] = torch.stack(teacher.chunk(len(large)))
    student = self.projector.forward_student(features)
    state["student_logits"] = torch.stack(student.chunk(len(crops)))
    targets = self.dino_loss.softmax_center_teacher(
        state["teacher_logits"], teacher_temperature(self, 0.07), update_centers=self.training
    )
    state["loss"] = self.dino_loss(state["student_logits"], targets)
    return state


class DINO(Method):
    """DINO on a timm encoder.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        n_prototypes: K.
        temperature_student: tau of the student.
        temperature_teacher_warmup: tau of the teacher at first.
        temperature_teacher: tau of the teacher from the last warm-up epoch on.
        warmup_epochs_temperature_teacher: Epochs between them.
        center_momentum: m of the centre.
        ema_decay_start: m of the teacher at the first step.
        ema_decay_end: m of the teacher at the last step.
        projector_hidden_dim: Width of the head's hidden layers.
        projector_bottleneck_dim: Width of its unit vectors.
        norm_last_layer: Keep the prototypes at length 1; the ViT-S recipe lets them grow.
        freeze_last_layer_epochs: Epochs before the prototypes move.
        drop_path_rate: Stochastic depth of the student.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is AdamW at 5e-4 for a batch of 256, decay 0.04 to 0.4, each gradient clipped at
            norm 3.
    """

    paper = Recipe(
        "AdamW", 5e-4, 0.04, batch=1024, epochs=100, warmup_epochs=10, weight_decay_end=0.4,
        end_lr=1e-6, augmentation="dino",
        options={
            "gradient_clip_val": 3.0, "gradient_clip_algorithm": "norm_per_parameter",
            "groups": {kind: {"weight_decay": 0.0} for kind in ("bias", "norm")},
        },
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        n_prototypes: int = 65536,
        temperature_student: float = 0.1,
        temperature_teacher_warmup: float = 0.04,
        temperature_teacher: float = 0.07,
        warmup_epochs_temperature_teacher: int = 30,
        center_momentum: float = 0.9,
        ema_decay_start: float = 0.996,
        ema_decay_end: float = 1.0,
        projector_hidden_dim: int = 2048,
        projector_bottleneck_dim: int = 256,
        norm_last_layer: bool = True,
        freeze_last_layer_epochs: int = 1,
        drop_path_rate: float = 0.1,
        **common: Any,
    ) -> None:
        super().__init__(
            dino,
            encoder_name,
            crops=True,
            drop_path_rate=drop_path_rate if isinstance(encoder_name, str) else 0.0,
            **common,
        )
        self.warmup_temperature_teacher = temperature_teacher_warmup
        self.temperature_teacher = temperature_teacher
        self.warmup_epochs_temperature_teacher = warmup_epochs_temperature_teacher
        self.freeze_last_layer_epochs = freeze_last_layer_epochs
        head = PrototypeHead(
            self.features,
            n_prototypes,
            hidden_dim=projector_hidden_dim,
            bottleneck_dim=projector_bottleneck_dim,
            gain="fixed" if norm_last_layer else "free",
        )
        decays = (ema_decay_start, ema_decay_end)
        self.backbone = momentum_pair(self.backbone, *decays)
        self.projector = momentum_pair(head, *decays)
        self.dino_loss = DINOv1Loss(temperature_student, center_momentum)

    def method_callbacks(self) -> list[pl.Callback]:
        """The teacher's update, and the frozen start of the prototypes."""
        layers = ("projector.student.last_layer",)
        return [
            *super().method_callbacks(),
            FrozenPrototypes(layers, epochs=self.freeze_last_layer_epochs),
        ]
