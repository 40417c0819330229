"""MoCo v3: predictions of one view pick the other view's momentum keys out of the batch.

Chen, Xie and He, ICCV 2021. https://arxiv.org/abs/2104.02057; official code
https://github.com/facebookresearch/moco-v3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from spt_jax.backbone.mlp import LastNorm, mlp_head
from spt_jax.losses import MoCoV3Loss
from spt_jax.methods._method import Method, embedded, images_of, two_views_of, views_of
from spt_jax.module import State
from spt_jax.teacher import TeacherStudentWrapper, freeze


def moco_v3(self: Any, batch: Mapping[str, Any], stage: str) -> State:
    """Contrast predictions with the momentum keys of the other view.

    Needs: ``backbone`` and ``projector`` (each a ``TeacherStudentWrapper``), ``predictor``, ``moco_loss``.
    Reads: ``views``, two of them in ``fit``; any number or a single ``image`` ``(N, H, W, C)`` elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` of the student and ``label`` to match; in ``fit`` also
    ``prediction``, ``target`` and ``loss``.
    """
    views = two_views_of(batch, "MoCo v3") if stage == "fit" else views_of(batch)
    state = embedded(self.backbone.forward_student, views)
    if stage == "fit":
        state["prediction"] = self.predictor(self.projector.forward_student(state["embedding"]))
        features = self.backbone.forward_teacher(images_of(views))
        state["target"] = self.projector.forward_teacher(features)
        halves = (*jnp.split(state["prediction"], 2), *jnp.split(state["target"], 2))
        state["loss"] = self.moco_loss(*halves)
    return state


class MoCoV3(Method):
    """MoCo v3, with the heads of the official code; brings its momentum encoder's update along.

    Args:
        backbone: From images to ``(N, embed_dim)``.
        embed_dim: Width of its output.
        rngs: Where the heads' weights are drawn.
        projector_dims: Widths of the projector, which ends in BatchNorm without scale and shift.
        predictor_hidden: Width inside the predictor.
        predictor_norm: End the predictor in such a BatchNorm, too; the official code does for
            transformers, not for ResNets.
        temperature: tau.
        base_ema: m at the first step.
        final_ema: m at the last step.
        freeze_patch_embed: Keep a transformer's patch projection as it was drawn, which steadies
            training; by default if the backbone has a ``patch_embed``.
        **common: As for :class:`SimCLR`.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        embed_dim: int,
        *,
        rngs: nnx.Rngs,
        projector_dims: Sequence[int] = (4096, 4096, 256),
        predictor_hidden: int = 4096,
        predictor_norm: bool = True,
        temperature: float = 0.2,
        base_ema: float = 0.99,
        final_ema: float = 1.0,
        freeze_patch_embed: bool | None = None,
        **common: Any,
    ) -> None:
        patch = getattr(backbone, "patch_embed", None)
        if patch is not None and freeze_patch_embed is not False:
            freeze(patch)
        out = projector_dims[-1]
        projector = mlp_head(embed_dim, projector_dims, rngs=rngs, last_norm="no_affine")
        last: LastNorm = "no_affine" if predictor_norm else "none"
        super().__init__(
            moco_v3,
            TeacherStudentWrapper(backbone, base_ema, final_ema),
            settings={
                "projector_dims": list(projector_dims),
                "predictor_hidden": predictor_hidden,
                "temperature": temperature,
                "base_ema": base_ema,
                "final_ema": final_ema,
            },
            parts={
                "projector": TeacherStudentWrapper(projector, base_ema, final_ema),
                "predictor": mlp_head(out, (predictor_hidden, out), rngs=rngs, last_norm=last),
                "moco_loss": MoCoV3Loss(temperature),
            },
            **common,
        )
