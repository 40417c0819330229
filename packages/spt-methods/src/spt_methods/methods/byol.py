"""BYOL: predict a slow teacher's projection of the other view.

Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020. https://arxiv.org/abs/2006.07733; official code
https://github.com/google-deepmind/deepmind-research/tree/master/byol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spt_losses import BYOLLoss
from torch import nn

from spt_methods.backbones.heads import mlp_head
from spt_methods.backbones.teacher import momentum_pair
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, two_views_of, views_of


def byol(self: Any, batch: Any, stage: Stage) -> State:
    """Predict the teacher's projection of each view from the other view.

    Needs: ``backbone`` and ``projector`` (each a ``TeacherStudentWrapper``), ``predictor``, ``byol_loss``.
    Reads: two views, each with ``image`` ``(N, C, H, W)``, in ``fit``; any number elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` of the student and ``label`` to match, if there are labels; in
    ``fit`` also ``prediction`` and ``target`` ``(2N, D)`` and ``loss``, the sum of both directions.
    """
    views = two_views_of(batch, "BYOL") if stage == "fit" else views_of(batch)
    images = images_of(views)
    state: State = {"embedding": self.backbone.forward_student(images), **labels_of(batch, views)}
    if stage == "fit":
        projection = self.projector.forward_student(state["embedding"])
        state["prediction"] = self.predictor(projection)
        features = self.backbone.forward_teacher(images)
        state["target"] = self.projector.forward_teacher(features)
        p_i, p_j = state["prediction"].chunk(2)
        t_i, t_j = state["target"].chunk(2)
        state["loss"] = self.byol_loss(p_i, t_j) + self.byol_loss(p_j, t_i)
    return state


class BYOL(Method):
    """BYOL on a timm encoder; evaluates the student, the paper's online network.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        projector_dims: Widths of the projector; the official code's are (4096, 256).
        predictor_dims: Widths of the predictor; ends in the projector's output width.
        ema_decay_start: tau at the first step: 0.996 for 1000 epochs of ImageNet, 0.99 for 300.
        ema_decay_end: tau at the last step.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is LARS at 0.2 for a batch of 256, decay 1.5e-6.

    Raises:
        ValueError: If projector and predictor differ in their output width.

    Note:
        BatchNorm sees both views together (one pass of 2N images); the official code normalises
        each view alone.
    """

    paper = Recipe(
        "LARS", 0.2, 1.5e-6, batch=4096, epochs=1000, warmup_epochs=10, augmentation="byol"
    )

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        projector_dims: Sequence[int] = (4096, 256),
        predictor_dims: Sequence[int] = (4096, 256),
        ema_decay_start: float = 0.99,
        ema_decay_end: float = 1.0,
        **common: Any,
    ) -> None:
        if projector_dims[-1] != predictor_dims[-1]:
            raise ValueError(
                "The predictor predicts projections: `projector_dims` and `predictor_dims` must end "
                f"alike, got {tuple(projector_dims)} and {tuple(predictor_dims)}."
            )
        super().__init__(
            byol,
            encoder_name,
            **common,
        )
        projector = mlp_head(self.features, projector_dims, hidden_bias=True)
        decays = (ema_decay_start, ema_decay_end)
        self.backbone = momentum_pair(self.backbone, *decays)
        self.projector = momentum_pair(projector, *decays)
        self.predictor = mlp_head(projector_dims[-1], predictor_dims, hidden_bias=True)
        self.byol_loss = BYOLLoss()
