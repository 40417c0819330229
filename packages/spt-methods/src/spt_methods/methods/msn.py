"""MSN: masked views are assigned to prototypes as the teacher assigns the whole image.

Assran et al., "Masked Siamese Networks for Label-Efficient Learning", ECCV 2022,
eq. 1.
https://arxiv.org/abs/2204.07141; official code https://github.com/facebookresearch/msn.
"""

from __future__ import annotations

from typing import Any

import torch
from spt_losses import MSNLoss
from torch import Tensor, nn

from spt_methods.backbones.teacher import TeacherStudentWrapper
from spt_methods.masking.patches import PatchMasking
from spt_methods.methods._groups import UNDECAYED
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import (
    Stage,
    State,
    crops_of,
    embed,
    encode_crops,
    labels_of,
)


def msn(self: Any, batch: Any, stage: Stage) -> State:
    """Match the assignments of masked and of small crops with the teacher's of the first large one.

    Needs: ``backbone`` (a ``TeacherStudentWrapper`` of a ``ViTTokens``), ``projector`` (one of a head),
    ``prototypes`` ``(K, D)``, ``msn_loss``, ``masking``.
    Reads: in ``fit`` named crops: ``global...``, of which the first is the teacher's and the others are
    masked, and ``local...``, which are not, each with ``image`` ``(N, C, H, W)``; any views elsewhere.
    Writes: ``embedding`` of the teacher and ``label`` to match, if there are labels: of the first large
    crop ``(N, F)`` in ``fit``, of all views elsewhere; in ``fit`` also ``anchors`` ``(A * N, D)``, ``targets``
    ``(N, D)`` and ``loss``.

    Raises:
        ValueError: If there is one crop alone.
    """
    if stage != "fit":
        return embed(lambda images: self.backbone.forward_teacher(images).embedding, batch)
    large, small = crops_of(batch, "MSN")
    if len(large) + len(small) < 2:
        raise ValueError("MSN compares a 'global...' crop with at least one more crop, got 1.")
    whole = self.backbone.forward_teacher(large[0]["image"])
    state: State = {"embedding": whole.embedding, **labels_of(batch, large[:1])}
    features = encode_crops(self.encode_masked, large[1:])
    features += encode_crops(lambda x: self.backbone.forward_student(x).embedding, small)
    state["anchors"] = self.projector.forward_student(torch.cat(features))
    state["targets"] = self.projector.forward_teacher(whole.embedding)
    state["loss"] = self.msn_loss(state["anchors"], state["targets"], self.prototypes)
    return state


def msn_head(in_channels: int, hidden_dim: int, out_dim: int) -> nn.Sequential:
    """Two hidden layers with BatchNorm and GELU."""
    return nn.Sequential(
        nn.Linear(in_channels, hidden_dim),
        nn.BatchNorm1d(hidden_dim),
        nn.GELU(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.BatchNorm1d(hidden_dim),
        nn.GELU(),
        nn.Linear(hidden_dim, out_dim),
    )


class MSN(Method):
    """MSN on a timm vision transformer; evaluates the teacher.

    Args:
        encoder_name: A timm ``VisionTransformer``, by name or as a module.
        n_prototypes: K.
        mask_ratio: Share of patches dropped from the masked crops: 0.15 for ViT-S, 0.7 for ViT-L/7.
        temperature_student: tau of the anchors.
        temperature_teacher: tau of the targets after sharpening, tau T in the paper.
        me_max_weight: Weight of the mean-entropy term.
        ema_decay_start: m of the teacher at the first step.
        ema_decay_end: m of the teacher at the last step.
        projector_hidden_dim: Width of the head's hidden layers.
        projector_dim: Width of the prototypes.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is AdamW at 1e-3 for a batch of 1024, decay 0.04 to 0.4, gradients clipped at
            norm 3.

    Note:
        Each image loses patches of its own; the official code drops the same from the whole batch.
        m rises over the whole run, in the official code over a quarter more.
    """

    paper = Recipe(
        "AdamW", 1e-3, 0.04, batch=1024, epochs=800, warmup_epochs=15, rule="none",
        weight_decay_end=0.4, start_lr=2e-4, end_lr=1e-6,
        options={**UNDECAYED, "gradient_clip_val": 3.0},
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        n_prototypes: int = 1024,
        mask_ratio: float = 0.15,
        temperature_student: float = 0.1,
        temperature_teacher: float = 0.025,
        me_max_weight: float = 1.0,
        ema_decay_start: float = 0.996,
        ema_decay_end: float = 1.0,
        projector_hidden_dim: int = 2048,
        projector_dim: int = 256,
        **common: Any,
    ) -> None:
        super().__init__(
            msn,
            encoder_name,
            crops=True,
            tokens=True,
            **common,
        )
        head = msn_head(self.features, projector_hidden_dim, projector_dim)
        bound = projector_dim**-0.5
        prototypes = torch.empty(n_prototypes, projector_dim).uniform_(-bound, bound)
        self.prototypes = nn.Parameter(prototypes)
        self.masking = PatchMasking(mask_ratio)
        decays = (ema_decay_start, ema_decay_end)
        self.backbone = TeacherStudentWrapper(self.backbone, True, *decays, schedule="linear")
        self.projector = TeacherStudentWrapper(
            head, True, *decays, buffers="keep", teacher_training_mode=True, schedule="linear"
        )
        self.msn_loss = MSNLoss(
            temperature_student,
            sharpen=temperature_teacher / temperature_student,
            memax_weight=me_max_weight,
        )

    def encode_masked(self, images: Tensor) -> Tensor:
        """The student's embedding of what the masking leaves of images ``(B, C, H, W)``."""
        encoder: Any = self.backbone.student
        masking: Any = self.masking
        rows, columns = encoder.grid_of(images)
        kept = masking(images.new_empty(len(images), rows * columns, 0), rows, columns)
        out: Tensor = encoder(images, ids_keep=kept.ids_keep).embedding
        return out
