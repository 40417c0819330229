"""BYOL: predict a slow teacher's projection of the other view.

Grill et al., NeurIPS 2020. https://arxiv.org/abs/2006.07733; official code
https://github.com/google-deepmind/deepmind-research/tree/master/byol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from spt_jax.backbone.mlp import mlp_head
from spt_jax.losses import BYOLLoss
from spt_jax.methods._method import (
    Method,
    embedded,
    images_of,
    two_views_of,
    views_of,
    weight_of,
)
from spt_jax.module import State
from spt_jax.teacher import TeacherStudentWrapper


def byol(self: Any, batch: Mapping[str, Any], stage: str) -> State:
    """Predict the teacher's projection of each view from the other view.

    Needs: ``backbone`` and ``projector`` (each a ``TeacherStudentWrapper``), ``predictor``, ``byol_loss``.
    Reads: ``views``, two of them in ``fit``; any number or a single ``image`` ``(N, H, W, C)`` elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` of the student and ``label`` to match; in ``fit`` also
    ``prediction``, ``target`` and ``loss``, the sum of both directions.
    """
    views = two_views_of(batch, "BYOL") if stage == "fit" else views_of(batch)
    state = embedded(self.backbone.forward_student, views)
    if stage == "fit":
        state["prediction"] = self.predictor(self.projector.forward_student(state["embedding"]))
        features = self.backbone.forward_teacher(images_of(views))
        state["target"] = self.projector.forward_teacher(features)
        p_i, p_j = jnp.split(state["prediction"], 2)
        t_i, t_j = jnp.split(state["target"], 2)
        weight = weight_of(batch)
        state["loss"] = self.byol_loss(p_i, t_j, weight) + self.byol_loss(p_j, t_i, weight)
    return state


class BYOL(Method):
    """BYOL; evaluates the student, the paper's online network. Brings its teacher's update along.

    Args:
        backbone: From images to ``(N, embed_dim)``.
        embed_dim: Width of its output.
        rngs: Where the heads' weights are drawn.
        projector_dims: Widths of the projector; the official code's are (4096, 256).
        predictor_hidden: Width inside the predictor.
        base_ema: tau at the first step: 0.996 for 1000 epochs of ImageNet, 0.99 for 300.
        final_ema: tau at the last step.
        **common: As for :class:`SimCLR`.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        embed_dim: int,
        *,
        rngs: nnx.Rngs,
        projector_dims: Sequence[int] = (4096, 256),
        predictor_hidden: int = 4096,
        base_ema: float = 0.996,
        final_ema: float = 1.0,
        **common: Any,
    ) -> None:
        out = projector_dims[-1]
        projector = mlp_head(embed_dim, projector_dims, rngs=rngs, hidden_bias=True)
        super().__init__(
            byol,
            TeacherStudentWrapper(backbone, base_ema, final_ema),
            settings={
                "projector_dims": list(projector_dims),
                "predictor_hidden": predictor_hidden,
                "base_ema": base_ema,
                "final_ema": final_ema,
            },
            parts={
                "projector": TeacherStudentWrapper(projector, base_ema, final_ema),
                "predictor": mlp_head(out, (predictor_hidden, out), rngs=rngs, hidden_bias=True),
                "byol_loss": BYOLLoss(),
            },
            **common,
        )
