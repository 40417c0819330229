"""Barlow Twins: the cross-correlation of two views towards the identity.

Zbontar et al., "Barlow Twins", ICML 2021. https://arxiv.org/abs/2103.03230; official code
https://github.com/facebookresearch/barlowtwins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spt_losses import BarlowTwinsLoss
from torch import nn

from spt_methods.backbones.heads import mlp_head
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, two_views_of, views_of


def barlow_twins(self: Any, batch: Any, stage: Stage) -> State:
    """Decorrelate dimensions across two views of each image.

    Needs: ``backbone``, ``projector``, ``barlow_loss``.
    Reads: two views, each with ``image`` ``(N, C, H, W)``, in ``fit``; any number elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` and ``label`` to match, if there are labels; in ``fit`` also
    ``projection`` ``(2N, D)`` and ``loss``.
    """
    views = two_views_of(batch, "Barlow Twins") if stage == "fit" else views_of(batch)
    state: State = {"embedding": self.backbone(images_of(views)), **labels_of(batch, views)}
    if stage == "fit":
        state["projection"] = self.projector(state["embedding"])
        state["loss"] = self.barlow_loss(*state["projection"].chunk(2))
    return state


class BarlowTwins(Method):
    """Barlow Twins on a timm encoder, with the projector of the official code.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        projector_dims: Widths of the projector.
        lambd: Weight of the off-diagonal term, lambda.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is LARS at 0.2 for a batch of 256 (0.0048 for biases and norms), decay 1e-6.

    Note:
        The projector's BatchNorm sees both views together (one pass of 2N images); the official
        code normalises each view alone there. The loss standardises each view alone, as the paper.
    """

    paper = Recipe(
        "LARS", 0.2, 1e-6, batch=2048, epochs=1000, warmup_epochs=10, end_factor=1e-3,
        augmentation="barlow_twins",
        options={
            "groups": {kind: {"lr_factor": 0.0048 / 0.2} for kind in ("bias", "norm")}
        },
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        projector_dims: Sequence[int] = (8192, 8192, 8192),
        lambd: float = 5.1e-3,
        **common: Any,
    ) -> None:
        super().__init__(
            barlow_twins,
            encoder_name,
            **common,
        )
        self.projector = mlp_head(self.features, projector_dims)
        self.barlow_loss = BarlowTwinsLoss(lambd)
