"""VICReg: two views alike, each dimension spread out, dimensions uncorrelated.

Bardes, Ponce and LeCun, "VICReg", ICLR 2022. https://arxiv.org/abs/2105.04906; official code
https://github.com/facebookresearch/vicreg.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spt_losses import VICRegLoss
from torch import nn

from spt_methods.backbones.heads import mlp_head
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, two_views_of, views_of


def vicreg(self: Any, batch: Any, stage: Stage) -> State:
    """Match two views under a variance and a covariance term.

    Needs: ``backbone``, ``projector``, ``vicreg_loss``.
    Reads: two views, each with ``image`` ``(N, C, H, W)``, in ``fit``; any number elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` and ``label`` to match, if there are labels; in ``fit`` also
    ``projection`` ``(2N, D)`` and ``loss``.
    """
    views = two_views_of(batch, "VICReg") if stage == "fit" else views_of(batch)
    state: State = {"embedding": self.backbone(images_of(views)), **labels_of(batch, views)}
    if stage == "fit":
        state["projection"] = self.projector(state["embedding"])
        state["loss"] = self.vicreg_loss(*state["projection"].chunk(2))
    return state


class VICReg(Method):
    """VICReg on a timm encoder, with the expander of the official code.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        projector_dims: Widths of the expander.
        sim_coeff: Weight of the invariance term, lambda.
        std_coeff: Weight of the variance term, mu.
        cov_coeff: Weight of the covariance term, nu.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is LARS at 0.2 for a batch of 256, decay 1e-6.

    Note:
        BatchNorm sees both views together (one pass of 2N images); the official code normalises
        each view alone.
    """

    paper = Recipe(
        "LARS", 0.2, 1e-6, batch=2048, epochs=1000, warmup_epochs=10, end_factor=1e-3,
        augmentation="vicreg",
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        projector_dims: Sequence[int] = (8192, 8192, 8192),
        sim_coeff: float = 25.0,
        std_coeff: float = 25.0,
        cov_coeff: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(
            vicreg,
            encoder_name,
            **common,
        )
        self.projector = mlp_head(self.features, projector_dims, hidden_bias=True)
        self.vicreg_loss = VICRegLoss(sim_coeff, std_coeff, cov_coeff)
