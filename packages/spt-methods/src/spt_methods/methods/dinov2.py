"""DINOv2: DINO on class tokens, iBOT on masked patches, KoLeo on features.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024,
section 4.
https://arxiv.org/abs/2304.07193; official code https://github.com/facebookresearch/dinov2.
"""

from __future__ import annotations

from typing import Any

import lightning as pl
import torch
from spt_losses import DINOv2Loss
from torch import Tensor, nn

from spt_methods.backbones.prototypes import PrototypeHead
from spt_methods.backbones.teacher import TeacherStudentWrapper
from spt_methods.backbones.vit_tokens import Tokens
from spt_methods.freeze import FrozenPrototypes
from spt_methods.masking.blocks import RatioBlockMasking
from spt_methods.masking.places import hide
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


def dinov2(self: Any, batch: Any, stage: Stage) -> State:
    """Match class tokens as DINO, and masked patches of large crops with the teacher's patches.

    Needs: ``backbone`` (a ``TeacherStudentWrapper`` of a ``ViTTokens`` with a mask token), ``projector``
    (one of a head), ``dinov2_loss``, ``masking`` (``RatioBlockMasking``); optionally ``patch_projector``
    (without it patches share the head), ``sinkhorn`` (instead of the centre), and DINO's temperatures (else 0.04, where the
    official warm-up starts).
    Reads: in ``fit`` named crops ``global...`` and ``local...``, each with ``image`` ``(N, C, H, W)``; any
    views elsewhere.
    Writes: ``embedding`` of the teacher and ``label`` to match, if there are labels: of the large crops
    ``(G * N, F)`` in ``fit``, of all views elsewhere; in ``fit`` also ``student_logits`` ``(V, N, K)``,
    ``teacher_logits`` ``(G, N, K)``, ``mask`` ``(G * N, P)`` and ``loss``.
    """
    if stage != "fit":
        return embedded_by_teacher(self, batch)
    state, _ = matched_crops(self, batch, "DINOv2", temperature=0.04)
    return state


def embedded_by_teacher(self: Any, batch: Any) -> State:
    """``embedding`` of all views by the teacher, and ``label``."""
    return embed(lambda images: self.backbone.forward_teacher(images).embedding, batch)


def matched_crops(self: Any, batch: Any, caller: str, temperature: float) -> tuple[State, Tokens]:
    """The training state of :func:`dinov2`, and the student's tokens of the masked large crops.

    ``temperature`` is the teacher's where the module does not have DINO's three.
    """
    temperature = teacher_temperature(self, temperature)
    large, small = crops_of(batch, caller)
    images = images_of(large)
    hidden = hide(self.masking, len(images), self.backbone.student.grid_of(images), images.device)
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
    targets = self.projector.forward_teacher(teacher.embedding)
    state["teacher_logits"] = torch.stack(targets.chunk(len(large)))
    heads = getattr(self, "patch_projector", None) or self.projector
    guessed = heads.forward_student(hidden.of(student.patches))
    shown = heads.forward_teacher(hidden.of(teacher.patches))
    state["loss"] = self.dinov2_loss(
        state["student_logits"],
        _targets(self, self.dinov2_loss.dino_loss, state["teacher_logits"], temperature),
        guessed,
        _targets(self, self.dinov2_loss.ibot_loss, shown, temperature),
        hidden.mask,
        torch.stack(student.embedding.chunk(len(large))),
    )
    return state, student


def _targets(self: Any, loss: Any, logits: Tensor, temperature: float) -> Tensor:
    if getattr(self, "sinkhorn", False):
        out: Tensor = loss.sinkhorn_knopp_teacher(logits, temperature)
    else:
        out = loss.softmax_center_teacher(logits, temperature, update_centers=self.training)
    return out


class DINOv2(Method):
    """DINOv2 on a timm vision transformer, by default with the short recipe's settings.

    Args:
        encoder_name: A timm ``VisionTransformer``, by name or as a module.
        n_prototypes: K; 131072 in the large recipe.
        separate_heads: Give patches a head of their own, as the large recipe.
        mask_ratio: Range of the hidden share of a masked crop's patches.
        mask_probability: Share of the large crops that are masked.
        temperature_student: tau of the student.
        temperature_teacher_warmup: tau of the teacher at first.
        temperature_teacher: tau of the teacher from the last warm-up epoch on.
        warmup_epochs_temperature_teacher: Epochs between them.
        sinkhorn: Balance the targets by Sinkhorn-Knopp instead of centring, as the large recipe.
        center_momentum: m of the centres.
        dino_loss_weight: Weight of the term of class tokens.
        ibot_loss_weight: Weight of the term of patches.
        koleo_loss_weight: Weight of KoLeo on each large crop.
        ema_decay_start: m of the teacher at the first step.
        ema_decay_end: m of the teacher at the last step.
        projector_hidden_dim: Width of the heads' hidden layers.
        projector_bottleneck_dim: Width of their unit vectors.
        freeze_last_layer_epochs: Epochs before the prototypes move.
        drop_path_rate: Stochastic depth of the student.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is AdamW at 4e-3 times the root of batch / 1024, decay 0.04 to 0.4, layer decay
            0.9, a fifth of the rate for the patch embedding, gradients clipped at norm 3.
    """

    paper = Recipe(
        "AdamW", 4e-3, 0.04, batch=2048, epochs=100, warmup_epochs=10, base_batch=1024, rule="sqrt",
        weight_decay_end=0.4, end_lr=1e-6, augmentation="dinov2",
        options={"gradient_clip_val": 3.0, "layer_decay": 0.9, "patch_embed_factor": 0.2},
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        n_prototypes: int = 65536,
        separate_heads: bool = False,
        mask_ratio: tuple[float, float] = (0.1, 0.5),
        mask_probability: float = 0.5,
        temperature_student: float = 0.1,
        temperature_teacher_warmup: float = 0.04,
        temperature_teacher: float = 0.07,
        warmup_epochs_temperature_teacher: int = 30,
        sinkhorn: bool = False,
        center_momentum: float = 0.9,
        dino_loss_weight: float = 1.0,
        ibot_loss_weight: float = 1.0,
        koleo_loss_weight: float = 0.1,
        ema_decay_start: float = 0.992,
        ema_decay_end: float = 1.0,
        projector_hidden_dim: int = 2048,
        projector_bottleneck_dim: int = 256,
        freeze_last_layer_epochs: int = 1,
        drop_path_rate: float = 0.3,
        **common: Any,
    ) -> None:
        named = isinstance(encoder_name, str)
        common["encoder_kwargs"] = {
            **({"init_values": 1e-5} if named else {}),  # LayerScale
            **(common.get("encoder_kwargs") or {}),
        }
        super().__init__(
            dinov2,
            encoder_name,
            crops=True,
            tokens="mask",
            drop_path_rate=drop_path_rate if named else 0.0,
            **common,
        )
        self.warmup_temperature_teacher = temperature_teacher_warmup
        self.temperature_teacher = temperature_teacher
        self.warmup_epochs_temperature_teacher = warmup_epochs_temperature_teacher
        self.freeze_last_layer_epochs = freeze_last_layer_epochs
        self.sinkhorn = sinkhorn
        decays = (ema_decay_start, ema_decay_end)

        def head() -> TeacherStudentWrapper:
            made = PrototypeHead(
                self.features,
                n_prototypes,
                hidden_dim=projector_hidden_dim,
                bottleneck_dim=projector_bottleneck_dim,
                gain="free",
            )
            return TeacherStudentWrapper(made, True, *decays)

        self.backbone = TeacherStudentWrapper(self.backbone, True, *decays)
        self.projector = head()
        if separate_heads:
            self.patch_projector = head()
        self.masking = RatioBlockMasking(mask_ratio, mask_probability, "strata")
        self.dinov2_loss = DINOv2Loss(
            dino_loss_weight,
            ibot_loss_weight,
            temperature_student,
            center_momentum,
            temperature_student,
            koleo_loss_weight=koleo_loss_weight,
        )

    def method_callbacks(self) -> list[pl.Callback]:
        """The teacher's update, and the frozen start of the prototypes."""
        heads = [name for name in ("projector", "patch_projector") if hasattr(self, name)]
        layers = tuple(f"{name}.student.last_layer" for name in heads)
        return [
            *super().method_callbacks(),
            FrozenPrototypes(layers, epochs=self.freeze_last_layer_epochs),
        ]
