"""DINOv3: DINOv2 with registers and rotary positions; later its patches are held by their Gram matrix.

Simeoni et al., "DINOv3", 2025, section 3 and eq. 2. https://arxiv.org/abs/2508.10104; official code
https://github.com/facebookresearch/dinov3.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import lightning as pl
import torch
from spt_callbacks import ema_update
from spt_losses import DINOv2Loss, GramLoss
from timm.models.eva import Eva
from torch import Tensor, nn
from torch.nn import functional as F

from spt_methods.backbones.prototypes import PrototypeHead
from spt_methods.backbones.rope import DINOv3Rope
from spt_methods.backbones.teacher import TeacherStudentWrapper
from spt_methods.backbones.wrappers import EvalOnly
from spt_methods.freeze import FrozenPrototypes
from spt_methods.gram import GramAnchoring
from spt_methods.masking.blocks import RatioBlockMasking
from spt_methods.methods._class_token import check_class_token
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.methods.dinov2 import embedded_by_teacher, matched_crops
from spt_methods.views import Batch, Stage, State, crops_of, images_of


def dinov3(self: Any, batch: Any, stage: Stage) -> State:
    """DINOv2's objective; once there is a Gram teacher, also the similarities among its patches.

    Needs: as :func:`spt_methods.forward.dinov2`; for Gram anchoring ``gram_teacher`` (a
    :class:`GramTeacher`), ``gram_loss`` and ``gram_loss_weight``.
    Reads: as ``dinov2``; optionally named crops ``gram...`` in ``fit``, the large crops once more for the
    Gram teacher, without distortions or at a higher resolution.
    Writes: as ``dinov2``; with a Gram teacher also ``loss_gram``.
    """
    if stage != "fit":
        return embedded_by_teacher(self, batch)
    state, student = matched_crops(self, batch, "DINOv3", temperature=0.07)
    gram_teacher = getattr(self, "gram_teacher", None)
    if gram_teacher is not None and gram_teacher.refreshes > 0:
        anchor = gram_teacher(images_of(_gram_crops(batch)), student.grid_size)
        state["loss_gram"] = self.gram_loss(student.patches, anchor)
        state["loss"] = state["loss"] + self.gram_loss_weight * state["loss_gram"]
    return state


def _gram_crops(batch: Any) -> list[Batch]:
    """The crops of the Gram teacher, by default the large ones."""
    large, _ = crops_of(batch, "DINOv3")
    named = batch.get("views", batch)
    own = [v for k, v in named.items() if isinstance(v, Mapping) and str(k).startswith("gram")]
    if own and len(own) != len(large):
        raise ValueError(
            f"DINOv3 needs one crop 'gram...' for each of the {len(large)} 'global...', got {len(own)}."
        )
    return own or large


class GramTeacher(nn.Module):
    """The teacher as it was at an earlier step; frozen, and refreshed by :class:`GramAnchoring`.

    Args:
        encoder: A ``ViTTokens``; copied.

    Attributes:
        refreshes: How often it took over the teacher. It is not used before the first time.
    """

    count: Tensor

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = EvalOnly(copy.deepcopy(encoder))
        self.refreshes = 0  # the host's copy of the buffer: read without a sync
        self.register_buffer("count", torch.tensor(0))

    def refresh(self, teacher: nn.Module) -> None:
        """Become the teacher of now."""
        ema_update(self.encoder.backbone, teacher, 0.0)
        self.refreshes += 1
        self.count.fill_(self.refreshes)

    @torch.no_grad()
    def forward(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patches ``(B, N, D)`` of images ``(B, C, H, W)``, resampled to a grid of N patches."""
        tokens = self.encoder(images)
        patches: Tensor = tokens.patches
        if tokens.grid_size != grid:
            maps = patches.mT.unflatten(2, tokens.grid_size)
            patches = F.interpolate(maps, grid, mode="bicubic", align_corners=False).flatten(2).mT
        return patches

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.refreshes = int(self.count)


class DINOv3(Method):
    """DINOv3 on a timm vision transformer with a class token; evaluates the teacher.

    Args:
        encoder_name: A timm transformer, by name or as a module; ``vit_*_dinov3`` have the rotary
            positions and the four registers of the paper.
        n_prototypes: K of class tokens.
        n_patch_prototypes: K of patches, which have a head of their own; ``n_prototypes`` if ``None``.
        mask_ratio: Range of the hidden share of a masked crop's patches.
        mask_probability: Share of the large crops that are masked.
        rope_rescale: Range of the stretch of rotary positions in training; ``None`` for none.
        temperature_student: tau of the student.
        temperature_teacher_warmup: tau of the teacher at first.
        temperature_teacher: tau of the teacher from the last warm-up epoch on.
        warmup_epochs_temperature_teacher: Epochs between them.
        dino_loss_weight: Weight of the term of class tokens.
        ibot_loss_weight: Weight of the term of patches.
        koleo_loss_weight: Weight of KoLeo on each large crop.
        gram_loss_weight: Weight of Gram anchoring.
        gram_start_step: Optimizer step from which it acts, with the teacher of then; ``None``: never.
        gram_update_every: Optimizer steps from one Gram teacher to the next.
        gram_max_updates: How often it is replaced after the first.
        ema_decay_start: m of the teacher at the first step.
        ema_decay_end: m of the teacher at the last step.
        projector_hidden_dim: Width of the heads' hidden layers.
        projector_bottleneck_dim: Width of their unit vectors.
        freeze_last_layer_epochs: Epochs before the prototypes move.
        drop_path_rate: Stochastic depth of the student.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is the paper's, constant after the warm-up: AdamW (0.9, 0.99) at 2e-4 times the
            root of batch / 1024, decay 0.04, layer decay 0.98, a fifth of the rate for the patch
            embedding, gradients clipped at norm 30.

    Raises:
        ValueError: If the encoder does not pool its class token.

    Note:
        Heads and warm-ups have the sizes of the official defaults; those of the 7B model are larger.
        Class tokens of large and of small crops go through one norm, and small crops weigh the same
        all along: the official 7B recipe unties the former and halves the latter for Gram anchoring.
        High-resolution adaptation and distillation, the paper's later phases, are not part of it.
    """

    paper = Recipe(
        "AdamW", 2e-4, 0.04, batch=4096, epochs=1000, warmup_epochs=100, base_batch=1024,
        rule="sqrt", end_factor=1.0, augmentation="dinov2", settings={"betas": (0.9, 0.99)},
        options={"gradient_clip_val": 30.0, "layer_decay": 0.98, "patch_embed_factor": 0.2},
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_dinov3",
        n_prototypes: int = 65536,
        n_patch_prototypes: int | None = None,
        mask_ratio: tuple[float, float] = (0.1, 0.5),
        mask_probability: float = 0.5,
        rope_rescale: float | None = 2.0,
        temperature_student: float = 0.1,
        temperature_teacher_warmup: float = 0.04,
        temperature_teacher: float = 0.07,
        warmup_epochs_temperature_teacher: int = 30,
        dino_loss_weight: float = 1.0,
        ibot_loss_weight: float = 1.0,
        koleo_loss_weight: float = 0.1,
        gram_loss_weight: float = 2.0,
        gram_start_step: int | None = 1_000_000,
        gram_update_every: int = 10_000,
        gram_max_updates: int = 3,
        ema_decay_start: float = 0.994,
        ema_decay_end: float = 0.994,
        projector_hidden_dim: int = 2048,
        projector_bottleneck_dim: int = 256,
        freeze_last_layer_epochs: int = 1,
        drop_path_rate: float = 0.3,
        **common: Any,
    ) -> None:
        named = isinstance(encoder_name, str)
        common["encoder_kwargs"] = {
            **({"init_values": 1e-5, "global_pool": "token"} if named else {}),
            **(common.get("encoder_kwargs") or {}),
        }
        super().__init__(
            dinov3,
            encoder_name,
            crops=True,
            tokens="mask",
            drop_path_rate=drop_path_rate if named else 0.0,
            **common,
        )
        check_class_token(self.backbone, "DINOv3")
        if named:
            _use_rope(self.backbone, rope_rescale)
        self.warmup_temperature_teacher = temperature_teacher_warmup
        self.temperature_teacher = temperature_teacher
        self.warmup_epochs_temperature_teacher = warmup_epochs_temperature_teacher
        self.freeze_last_layer_epochs = freeze_last_layer_epochs
        self.sinkhorn = True
        decays = (ema_decay_start, ema_decay_end)

        def head(prototypes: int) -> TeacherStudentWrapper:
            made = PrototypeHead(
                self.features,
                prototypes,
                hidden_dim=projector_hidden_dim,
                bottleneck_dim=projector_bottleneck_dim,
                gain="none",
            )
            return TeacherStudentWrapper(made, True, *decays)

        self.backbone = TeacherStudentWrapper(self.backbone, True, *decays)
        self.projector = head(n_prototypes)
        self.patch_projector = head(n_patch_prototypes or n_prototypes)
        self.masking = RatioBlockMasking(mask_ratio, mask_probability, "edges")
        self.dinov2_loss = DINOv2Loss(
            dino_loss_weight,
            ibot_loss_weight,
            temperature_student,
            student_temp=temperature_student,
            koleo_loss_weight=koleo_loss_weight,
        )
        self.gram_schedule = (gram_start_step, gram_update_every, gram_max_updates)
        self.gram_loss = GramLoss()
        self.gram_loss_weight = gram_loss_weight
        if gram_start_step is not None:
            self.gram_teacher = GramTeacher(self.backbone.teacher)

    def method_callbacks(self) -> list[pl.Callback]:
        """The teacher's update, the frozen start of the prototypes, and the Gram teacher's update."""
        layers = ("projector.student.last_layer", "patch_projector.student.last_layer")
        callbacks: list[pl.Callback] = [
            *super().method_callbacks(),
            FrozenPrototypes(layers, epochs=self.freeze_last_layer_epochs),
        ]
        start, every, updates = self.gram_schedule
        if start is not None:
            callbacks.append(GramAnchoring(start, every, updates))
        return callbacks


def _use_rope(encoder: Any, rescale: float | None) -> None:
    """Give timm's DINOv3 transformers the augmented positions; others keep their own."""
    own: Any = encoder.vit.rope if isinstance(encoder.vit, Eva) else None
    if hasattr(own, "periods"):  # timm's port of DINOv3's
        encoder.rope = DINOv3Rope(own.dim, own.temperature, rescale=rescale)
