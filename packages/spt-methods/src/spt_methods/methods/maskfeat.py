"""MaskFeat: predict the oriented gradients of hidden patches.

Wei et al., "Masked Feature Prediction for Self-Supervised Visual Pre-Training", CVPR 2022,
section 3.2.
https://arxiv.org/abs/2112.09133; the authors' code is part of
https://github.com/facebookresearch/SlowFast.
"""

from __future__ import annotations

from typing import Any

from spt_losses import MaskFeatLoss
from torch import nn

from spt_methods.masking.blocks import BlockMasking
from spt_methods.methods._groups import UNDECAYED
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, views_of


def maskfeat(self: Any, batch: Any, stage: Stage) -> State:
    """Predict the histograms of oriented gradients of hidden blocks.

    Needs: ``backbone`` (a ``ViTTokens`` with a mask token), ``decoder``, ``maskfeat_loss``, ``masking``.
    Reads: any views, each with ``image`` ``(N, C, H, W)``.
    Writes: ``embedding`` ``(V * N, F)``, of the masked image in ``fit``, and ``label`` to match, if there are
    labels; in ``fit`` also ``predictions`` ``(V * N, P, 9 * cells * C)``, ``mask`` ``(V * N, P)`` and ``loss``.
    """
    views = views_of(batch)
    images = images_of(views)
    if stage != "fit":
        return {"embedding": self.backbone(images).embedding, **labels_of(batch, views)}
    mask = self.masking(len(images), self.backbone.grid_of(images), images.device)
    tokens = self.backbone(images, mask=mask)
    state: State = {"embedding": tokens.embedding, "mask": mask, **labels_of(batch, views)}
    state["predictions"] = self.decoder(tokens.patches)
    state["loss"] = self.maskfeat_loss(state["predictions"], images, mask)
    return state


class MaskFeat(Method):
    """MaskFeat on a timm vision transformer.

    Args:
        encoder_name: A timm transformer, by name or as a module.
        mask_ratio: Share of hidden patches.
        n_hog_bins: Directions of a histogram.
        hog_cell: Side of a cell of gradients in pixels; it divides the patch's.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``in_chans``, ``optim`` and others.
            The recipe is AdamW at 2e-4 for a batch of 256, decay 0.05, gradients clipped at 0.02.

    Note:
        The histograms are those of the released models: cells of 8 pixels, no Gaussian window.
    """

    paper = Recipe(
        "AdamW", 2e-4, 0.05, batch=2048, epochs=300, warmup_epochs=30, end_lr=1e-6,
        augmentation="mae", options={**UNDECAYED, "gradient_clip_val": 0.02},
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_base_patch16_224",
        mask_ratio: float = 0.4,
        n_hog_bins: int = 9,
        hog_cell: int = 8,
        **common: Any,
    ) -> None:
        super().__init__(
            maskfeat,
            encoder_name,
            tokens="mask",
            **common,
        )
        encoder: Any = self.backbone
        side = encoder.square_patch
        self.masking = BlockMasking(mask_ratio, min_patches=None)
        self.maskfeat_loss = MaskFeatLoss(side, n_hog_bins, hog_cell)
        values = encoder.in_chans * n_hog_bins * (side // hog_cell) ** 2
        self.decoder = nn.Linear(encoder.embed_dim, values)
        nn.init.trunc_normal_(self.decoder.weight, std=0.02)
        nn.init.zeros_(self.decoder.bias)
