"""iBOT: DINO on class tokens, and its own teacher as the tokenizer of hidden patches.

Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", ICLR 2022, eqs. 2
and 3.
https://arxiv.org/abs/2111.07832; official code https://github.com/bytedance/ibot.
"""

from __future__ import annotations

from typing import Any

import lightning as pl
import torch
from spt_losses import DINOv1Loss, iBOTPatchLoss
from torch import nn

from spt_methods.backbones.prototypes import PrototypeHead
from spt_methods.backbones.teacher import TeacherStudentWrapper
from spt_methods.freeze import FrozenPrototypes
from spt_methods.masking.blocks import RatioBlockMasking
from spt_methods.masking.places import hide
from spt_methods.methods._groups import UNDECAYED
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


def ibot(self: Any, batch: Any, stage: Stage) -> State:
    """Match class tokens across crops, and hidden patches with the teacher's view of them.

    Needs: ``backbone`` and ``projector`` (each a ``TeacherStudentWrapper``; of a ``ViTTokens`` with a mask
    token, and of a ``PrototypeHead``), ``dino_loss``, ``ibot_loss``, ``masking``, ``patch_loss_weight``;
    optionally DINO's temperatures, and ``temperature_patch_teacher`` with
    ``warmup_temperature_patch_teacher`` for those of patches.
    Reads: in ``fit`` named crops ``global...`` and, if wanted, ``local...``, each with ``image``
    ``(N, C, H, W)``; any views elsewhere.
    Writes: ``embedding`` of the teacher and ``label`` to match, if there are labels: of the large crops
    ``(G * N, F)`` in ``fit``, of all views elsewhere; in ``fit`` also ``student_logits`` ``(V, N, K)``,
    ``teacher_logits`` ``(G, N, K)``, ``mask`` ``(G * N, P)``, ``loss_cls``, ``loss_patch`` and ``loss``.
    """
    if stage != "fit":
        return embed(lambda images: self.backbone.forward_teacher(images).embedding, batch)
    large, small = crops_of(batch, "iBOT")
    images = images_of(large)
    hidden = hide(self.masking, len(images), self.backbone.teacher.grid_of(images), images.device)
    teacher = self.backbone.forward_teacher(images)
    student = self.backbone.forward_student(images, mask=hidden.mask)
    state: State = {
        "embedding": teacher.embedding,
        "mask": hidden.mask,
        **labels_of(batch, large),
    }
    locals_ = encode_crops(lambda x: self.backbone.forward_student(x).embedding, small)
    logits = self.projector.forward_student(torch.cat([student.embedding, *locals_]))
    state["student_logits"] = torch.stack(logits.chunk(len(large) + len(small)))
    shown = self.projector.forward_teacher(teacher.embedding)
    state["teacher_logits"] = torch.stack(shown.chunk(len(large)))
    temperature, update = teacher_temperature(self, 0.07), self.training
    targets = self.dino_loss.softmax_center_teacher(state["teacher_logits"], temperature, update)
    state["loss_cls"] = self.dino_loss(state["student_logits"], targets)
    with torch.no_grad():
        patches = self.projector.teacher.forward_patches(hidden.of(teacher.patches))
        temperature = teacher_temperature(self, temperature, "patch_teacher")
        targets = self.ibot_loss.softmax_center_teacher(patches, temperature, update)
    patches = self.projector.student.forward_patches(hidden.of(student.patches))
    state["loss_patch"] = self.ibot_loss(patches, targets, hidden.mask)
    state["loss"] = state["loss_cls"] + self.patch_loss_weight * state["loss_patch"]
    return state


class iBOT(Method):
    """iBOT on a timm vision transformer.

    Args:
        encoder_name: A timm transformer, by name or as a module.
        n_cls_prototypes: K of class tokens.
        n_patch_prototypes: K of patches; they share the prototypes of class tokens if ``None``, as in
            the paper's best setting.
        mask_ratio: Range of the hidden share of a masked crop's patches.
        mask_probability: Probability of a large crop to be masked.
        patch_loss_weight: Weight of the term of patches.
        temperature_student: tau of the student.
        temperature_teacher_warmup: tau of the teacher at first.
        temperature_teacher: tau of the teacher from the last warm-up epoch on.
        warmup_epochs_temperature_teacher: Epochs between them, for patches too.
        temperature_patch_teacher_warmup: tau of the teacher's patches at first.
        temperature_patch_teacher: tau of the teacher's patches from the last warm-up epoch on.
        center_momentum: m of both centres.
        ema_decay_start: m of the teacher at the first step.
        ema_decay_end: m of the teacher at the last step.
        projector_hidden_dim: Width of the head's hidden layers.
        projector_bottleneck_dim: Width of its unit vectors.
        norm_last_layer: Keep the prototypes at length 1; the ViT-S recipe lets them grow.
        freeze_last_layer_epochs: Epochs before the prototypes move.
        drop_path_rate: Stochastic depth of the student.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is AdamW at 5e-4 for a batch of 256, decay 0.04 to 0.4, each gradient clipped at
            norm 3.
    """

    paper = Recipe(
        "AdamW", 5e-4, 0.04, batch=1024, epochs=800, warmup_epochs=10, weight_decay_end=0.4,
        end_lr=1e-6, augmentation="dino",
        options={
            **UNDECAYED, "gradient_clip_val": 3.0, "gradient_clip_algorithm": "norm_per_parameter",
        },
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        n_cls_prototypes: int = 8192,
        n_patch_prototypes: int | None = None,
        mask_ratio: tuple[float, float] = (0.1, 0.5),
        mask_probability: float = 0.5,
        patch_loss_weight: float = 1.0,
        temperature_student: float = 0.1,
        temperature_teacher_warmup: float = 0.04,
        temperature_teacher: float = 0.07,
        warmup_epochs_temperature_teacher: int = 30,
        temperature_patch_teacher_warmup: float = 0.04,
        temperature_patch_teacher: float = 0.07,
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
            ibot,
            encoder_name,
            crops=True,
            tokens="mask",
            drop_path_rate=drop_path_rate if isinstance(encoder_name, str) else 0.0,
            **common,
        )
        self.warmup_temperature_teacher = temperature_teacher_warmup
        self.temperature_teacher = temperature_teacher
        self.warmup_temperature_patch_teacher = temperature_patch_teacher_warmup
        self.temperature_patch_teacher = temperature_patch_teacher
        self.warmup_epochs_temperature_teacher = warmup_epochs_temperature_teacher
        self.freeze_last_layer_epochs = freeze_last_layer_epochs
        self.patch_loss_weight = patch_loss_weight
        self.masking = RatioBlockMasking(mask_ratio, mask_probability, "independent")
        head = PrototypeHead(
            self.features,
            n_cls_prototypes,
            hidden_dim=projector_hidden_dim,
            bottleneck_dim=projector_bottleneck_dim,
            gain="fixed" if norm_last_layer else "free",
            n_patch_prototypes=n_patch_prototypes,
        )
        decays = (ema_decay_start, ema_decay_end)
        self.backbone = TeacherStudentWrapper(self.backbone, True, *decays)
        self.projector = TeacherStudentWrapper(head, True, *decays)
        self.dino_loss = DINOv1Loss(temperature_student, center_momentum)
        self.ibot_loss = iBOTPatchLoss(temperature_student, center_momentum)

    def method_callbacks(self) -> list[pl.Callback]:
        """The teacher's update, and the frozen start of the prototypes."""
        layers = ["projector.student.last_layer"]
        if self.projector.student.patch_layer is not None:
            layers.append("projector.student.patch_layer")
        return [
            *super().method_callbacks(),
            FrozenPrototypes(tuple(layers), epochs=self.freeze_last_layer_epochs),
        ]
