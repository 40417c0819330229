"""MoCo v2: contrast a query with its momentum key and a queue of earlier keys.

He et al., "Momentum Contrast", CVPR 2020, and Chen et al., "Improved Baselines with Momentum
Contrastive Learning", 2020. https://arxiv.org/abs/2003.04297; official code
https://github.com/facebookresearch/moco.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spt_losses import MoCoLoss
from torch import nn

from spt_methods.backbones.heads import mlp_head
from spt_methods.backbones.shuffle import BatchShuffle
from spt_methods.backbones.teacher import momentum_pair
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import Stage, State, images_of, labels_of, two_views_of, views_of


def mocov2(self: Any, batch: Any, stage: Stage) -> State:
    """Contrast queries of the first view with keys of the second and with the queue.

    Needs: ``backbone`` and ``projector`` (each a ``TeacherStudentWrapper``), ``shuffle``, ``moco_loss``.
    Reads: two views, each with ``image`` ``(N, C, H, W)``, in ``fit``; any number elsewhere.
    Writes: ``embedding`` of the student and ``label`` to match, if there are labels: of the first view
    ``(N, F)`` in ``fit``, of all views elsewhere; in ``fit`` also ``queries`` and ``keys`` ``(N, D)`` and
    ``loss``. The keys enter the queue after the loss.
    """
    views = two_views_of(batch, "MoCo v2") if stage == "fit" else views_of(batch)
    seen = views[:1] if stage == "fit" else views
    state: State = {
        "embedding": self.backbone.forward_student(images_of(seen)),
        **labels_of(batch, seen),
    }
    if stage == "fit":
        state["queries"] = self.projector.forward_student(state["embedding"])
        state["keys"] = self.shuffle(
            lambda images: self.projector.forward_teacher(self.backbone.forward_teacher(images)),
            views[1]["image"],
        )
        state["loss"] = self.moco_loss(state["queries"], state["keys"])
    return state


class MoCov2(Method):
    """MoCo v2 on a timm encoder.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        projector_dims: Widths of the head; the official code's are (F, 128).
        queue_length: Keys in the queue.
        temperature: tau.
        ema_decay_start: m at the first step; the paper keeps it.
        ema_decay_end: m at the last step.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is SGD at 0.03 for a batch of 256, decay 1e-4.
    """

    paper = Recipe(
        "SGD", 0.03, 1e-4, batch=256, epochs=800, augmentation="moco_v2",
        settings={"momentum": 0.9},
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        projector_dims: Sequence[int] = (2048, 128),
        queue_length: int = 65536,
        temperature: float = 0.2,
        ema_decay_start: float = 0.999,
        ema_decay_end: float = 0.999,
        **common: Any,
    ) -> None:
        super().__init__(
            mocov2,
            encoder_name,
            **common,
        )
        head = mlp_head(self.features, projector_dims, norm=False, last_bias=True)
        decays = (ema_decay_start, ema_decay_end)
        self.backbone = momentum_pair(self.backbone, *decays)
        self.projector = momentum_pair(head, *decays)
        self.shuffle = BatchShuffle()
        self.moco_loss = MoCoLoss(queue_length, projector_dims[-1], temperature)
