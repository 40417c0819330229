"""W-MSE: whiten each view, then match the views.

Ermolov et al., "Whitening for Self-Supervised Representation Learning", ICML 2021.
https://arxiv.org/abs/2007.06346; official code https://github.com/htdt/self-supervised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spt_losses import WMSELoss
from torch import nn

from spt_methods.backbones.heads import mlp_head
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, two_views_of, views_of


def wmse(self: Any, batch: Any, stage: Stage) -> State:
    """Match two views after whitening each on random parts of the batch.

    Needs: ``backbone``, ``projector``, ``wmse_loss``.
    Reads: two views, each with ``image`` ``(N, C, H, W)``, in ``fit``; any number elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` and ``label`` to match, if there are labels; in ``fit`` also
    ``projection`` ``(2N, D)`` and ``loss``.
    """
    views = two_views_of(batch, "W-MSE") if stage == "fit" else views_of(batch)
    state: State = {"embedding": self.backbone(images_of(views)), **labels_of(batch, views)}
    if stage == "fit":
        state["projection"] = self.projector(state["embedding"])
        state["loss"] = self.wmse_loss(*state["projection"].chunk(2))
    return state


class WMSE(Method):
    """W-MSE on a timm encoder, with the head of the official code.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        projector_dims: Widths of the head; the last is to be well below ``w_size``.
        eps: Share of the identity in the covariance; 0 in the official code. Projections whose
            variance falls below it are hardly whitened, so that dimensions can be lost; 0 in turn
            makes a singular covariance an error.
        w_size: Rows whitened together, two to four times the last width.
        w_iter: Random divisions of the batch that are averaged.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is Adam at 3e-3, decay 1e-6.

    Note:
        BatchNorm sees both views together (one pass of 2N images); the official code normalises
        each view alone.
    """

    paper = Recipe(
        "Adam", 3e-3, 1e-6, batch=512, epochs=1000, warmup_epochs=5, base_batch=512, rule="none",
        augmentation="simclr",
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        projector_dims: Sequence[int] = (1024, 64),
        eps: float = 1e-3,
        w_size: int = 128,
        w_iter: int = 1,
        **common: Any,
    ) -> None:
        super().__init__(
            wmse,
            encoder_name,
            **common,
        )
        self.projector = mlp_head(self.features, projector_dims, hidden_bias=True, last_bias=True)
        self.wmse_loss = WMSELoss(w_size, w_iter, eps)
