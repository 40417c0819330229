"""SimSiam: predict the other view's projection, with nothing but a stopped gradient against collapse.

Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021.
https://arxiv.org/abs/2011.10566; official code https://github.com/facebookresearch/simsiam.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from spt_losses import SimSiamLoss
from spt_optim import cosine_value
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from spt_methods.backbones.heads import mlp_head
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.module import Module
from spt_methods.views import Stage, State, images_of, labels_of, two_views_of, views_of


def simsiam(self: Any, batch: Any, stage: Stage) -> State:
    """Predict each view's projection from the other view.

    Needs: ``backbone``, ``projector``, ``predictor``, ``simsiam_loss``.
    Reads: two views, each with ``image`` ``(N, C, H, W)``, in ``fit``; any number elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` and ``label`` to match, if there are labels; in ``fit`` also
    ``projection`` and ``prediction`` ``(2N, D)`` and ``loss``.
    """
    views = two_views_of(batch, "SimSiam") if stage == "fit" else views_of(batch)
    state: State = {"embedding": self.backbone(images_of(views)), **labels_of(batch, views)}
    if stage == "fit":
        state["projection"] = self.projector(state["embedding"])
        state["prediction"] = self.predictor(state["projection"])
        halves = (*state["prediction"].chunk(2), *state["projection"].chunk(2))
        state["loss"] = self.simsiam_loss(*halves)
    return state


def cosine_but_fixed_groups(optimizer: Optimizer, module: Module) -> LambdaLR:
    """A cosine to 0 over the run; groups with ``fixed`` keep their rate, as the official code.

    Args:
        optimizer: Whose groups.
        module: In a run with an end.

    Raises:
        ValueError: If the run has no end.
    """
    total = module.total_steps
    if total is None:
        raise ValueError("SimSiam's cosine needs the run's end: set `max_steps` or `max_epochs`.")
    shapes: list[Any] = [
        (lambda step: 1.0) if group.get("fixed") else partial(_cosine, total=total)
        for group in optimizer.param_groups
    ]
    return LambdaLR(optimizer, shapes)


def _cosine(step: int, total: int) -> float:
    return cosine_value(step, total, 1.0, 0.0)


class SimSiam(Method):
    """SimSiam on a timm encoder, with the heads of the official code.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        projector_dim: Width of the projector's three layers.
        predictor_hidden_dim: Width of the predictor's bottleneck.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is SGD at 0.05 for a batch of 256, decay 1e-4, the predictor's rate constant.

    Note:
        BatchNorm sees both views together (one pass of 2N images); the official code normalises
        each view alone.
    """

    paper = Recipe(
        "SGD", 0.05, 1e-4, batch=512, epochs=100, augmentation="moco_v2",
        settings={"momentum": 0.9},
        options={"groups": {"predictor": {"fixed": True}}, "scheduler": cosine_but_fixed_groups},
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        projector_dim: int = 2048,
        predictor_hidden_dim: int = 512,
        **common: Any,
    ) -> None:
        super().__init__(
            simsiam,
            encoder_name,
            **common,
        )
        self.projector = mlp_head(self.features, [projector_dim] * 3, last_norm="no_affine")
        self.predictor = mlp_head(
            projector_dim, (predictor_hidden_dim, projector_dim), last_bias=True
        )
        self.simsiam_loss = SimSiamLoss()
