"""TiCo: agree with a momentum encoder while avoiding the directions in which features pile up.

Zhu et al., "TiCo: Transformation Invariance and Covariance Contrast", 2022, algorithm 1.
https://arxiv.org/abs/2206.10698; no official code; a port in https://github.com/lightly-ai/lightly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spt_losses import TiCoLoss
from torch import nn

from spt_methods.backbones.heads import mlp_head
from spt_methods.backbones.teacher import momentum_pair
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, two_views_of, views_of


def tico(self: Any, batch: Any, stage: Stage) -> State:
    """Match the first view with the momentum encoder's second, under a covariance contrast.

    Needs: ``backbone`` and ``projector`` (each a ``TeacherStudentWrapper``), ``tico_loss``.
    Reads: two views, each with ``image`` ``(N, C, H, W)``, in ``fit``; any number elsewhere.
    Writes: ``embedding`` of the student and ``label`` to match, if there are labels: of the first view
    ``(N, F)`` in ``fit``, of all views elsewhere; in ``fit`` also ``projection`` and ``target``
    ``(N, D)`` and ``loss``.
    """
    views = two_views_of(batch, "TiCo") if stage == "fit" else views_of(batch)
    seen = views[:1] if stage == "fit" else views
    state: State = {
        "embedding": self.backbone.forward_student(images_of(seen)),
        **labels_of(batch, seen),
    }
    if stage == "fit":
        state["projection"] = self.projector.forward_student(state["embedding"])
        features = self.backbone.forward_teacher(views[1]["image"])
        state["target"] = self.projector.forward_teacher(features)
        state["loss"] = self.tico_loss(state["projection"], state["target"])
    return state


class TiCO(Method):
    """TiCo on a timm encoder.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        projector_dims: Widths of the projector.
        beta: Weight of the past in the covariance.
        rho: Weight of the contrast; 8 in the paper, 20 in its first ports.
        ema_decay_start: m at the first step.
        ema_decay_end: m at the last step.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is LARS at 0.2 for a batch of 256, decay 1.5e-6.
    """

    paper = Recipe(
        "LARS", 0.2, 1.5e-6, batch=4096, epochs=1000, warmup_epochs=10, augmentation="byol"
    )

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        projector_dims: Sequence[int] = (2048, 256),
        beta: float = 0.9,
        rho: float = 8.0,
        ema_decay_start: float = 0.99,
        ema_decay_end: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(
            tico,
            encoder_name,
            **common,
        )
        decays = (ema_decay_start, ema_decay_end)
        self.backbone = momentum_pair(self.backbone, *decays)
        self.projector = momentum_pair(mlp_head(self.features, projector_dims), *decays)
        self.tico_loss = TiCoLoss(beta, rho)
