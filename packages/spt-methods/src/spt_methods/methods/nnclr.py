"""NNCLR: the nearest neighbour of one view picks the other view's prediction out of the batch.

Dwibedi et al., "With a Little Help from My Friends", ICCV 2021, algorithm 1.
https://arxiv.org/abs/2104.14548; no official code; pseudo-code in the paper (heads as in
https://github.com/google-research/simclr).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spt_losses import NNCLRLoss
from torch import nn

from spt_methods.backbones.heads import mlp_head
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, two_views_of, views_of


def nnclr(self: Any, batch: Any, stage: Stage) -> State:
    """Contrast neighbours of each view's projections with the other view's predictions.

    Needs: ``backbone``, ``projector``, ``predictor``, ``nnclr_loss`` (which holds the support set).
    Reads: two views, each with ``image`` ``(N, C, H, W)``, in ``fit``; any number elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` and ``label`` to match, if there are labels; in ``fit`` also
    ``projection`` and ``prediction`` ``(2N, D)`` and ``loss``. The first view's projections enter the
    support set after the loss.
    """
    views = two_views_of(batch, "NNCLR") if stage == "fit" else views_of(batch)
    state: State = {"embedding": self.backbone(images_of(views)), **labels_of(batch, views)}
    if stage == "fit":
        state["projection"] = self.projector(state["embedding"])
        state["prediction"] = self.predictor(state["projection"])
        halves = (*state["projection"].chunk(2), *state["prediction"].chunk(2))
        state["loss"] = self.nnclr_loss(*halves)
    return state


class NNCLR(Method):
    """NNCLR on a timm encoder, with the heads of the paper.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        projector_dims: Widths of the projector, every layer with BatchNorm.
        predictor_hidden_dim: Width of the predictor's hidden layer.
        queue_length: Rows of the support set; the paper's best run has 98304.
        temperature: tau.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is LARS at 0.3 for a batch of 256, decay 1e-6.

    Note:
        Projections get no gradient through the look-up; they are trained through the predictions.
    """

    paper = Recipe(
        "LARS", 0.3, 1e-6, batch=4096, epochs=1000, warmup_epochs=10, augmentation="simclr"
    )

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        projector_dims: Sequence[int] = (2048, 2048, 256),
        predictor_hidden_dim: int = 4096,
        queue_length: int = 16384,
        temperature: float = 0.1,
        **common: Any,
    ) -> None:
        super().__init__(
            nnclr,
            encoder_name,
            **common,
        )
        width = projector_dims[-1]
        self.projector = mlp_head(
            self.features, projector_dims, hidden_bias=True, last_bias=True, last_norm="affine"
        )
        self.predictor = mlp_head(
            width, (predictor_hidden_dim, width), hidden_bias=True, last_bias=True
        )
        self.nnclr_loss = NNCLRLoss(queue_length, width, temperature)
