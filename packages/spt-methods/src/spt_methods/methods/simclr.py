"""SimCLR: contrast two views of each image against all others.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
https://arxiv.org/abs/2002.05709; official code https://github.com/google-research/simclr.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spt_losses import NTXEntLoss
from torch import nn

from spt_methods.backbones.heads import projection_head
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, two_views_of, views_of


def simclr(self: Any, batch: Any, stage: Stage) -> State:
    """Contrast two views of each image against the rest of the batch.

    Needs: ``backbone``, ``projector``, ``simclr_loss``.
    Reads: two views, each with ``image`` ``(N, C, H, W)``, in ``fit``; any number elsewhere, a single
    ``image`` included.
    Writes: ``embedding`` ``(V * N, F)`` and ``label`` to match, if there are labels; in ``fit`` also
    ``projection`` ``(2N, D)`` and ``loss``.
    """
    views = two_views_of(batch, "SimCLR") if stage == "fit" else views_of(batch)
    state: State = {"embedding": self.backbone(images_of(views)), **labels_of(batch, views)}
    if stage == "fit":
        state["projection"] = self.projector(state["embedding"])
        state["loss"] = self.simclr_loss(*state["projection"].chunk(2))
    return state


class SimCLR(Method):
    """SimCLR on a timm encoder, with the projection head of the official code.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        projector_dims: Widths of the projection head.
        temperature: tau of NT-Xent; the paper uses 0.1 on ImageNet and 0.5 on CIFAR-10.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is LARS at 0.3 for a batch of 256, decay 1e-6.

    Note:
        The paper's v1 head has two layers (F, 128); three layers are those of its ImageNet code.
    """

    paper = Recipe(
        "LARS", 0.3, 1e-6, batch=4096, epochs=1000, warmup_epochs=10, augmentation="simclr"
    )

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        projector_dims: Sequence[int] = (2048, 2048, 256),
        temperature: float = 0.5,
        **common: Any,
    ) -> None:
        super().__init__(
            simclr,
            encoder_name,
            **common,
        )
        self.projector = projection_head(self.features, projector_dims)
        self.simclr_loss = NTXEntLoss(temperature)
