"""SimSiam: predict the other view's projection, with nothing but a stopped gradient against collapse.

Chen and He, CVPR 2021. https://arxiv.org/abs/2011.10566; official code
https://github.com/facebookresearch/simsiam.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from spt_jax.backbone.mlp import mlp_head
from spt_jax.losses import SimSiamLoss
from spt_jax.methods._method import Method, embedded, two_views_of, views_of, weight_of
from spt_jax.module import State


def simsiam(self: Any, batch: Mapping[str, Any], stage: str) -> State:
    """Predict each view's projection from the other view.

    Needs: ``backbone``, ``projector``, ``predictor``, ``simsiam_loss``.
    Reads: ``views``, two of them in ``fit``; any number or a single ``image`` ``(N, H, W, C)`` elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` and ``label`` to match; in ``fit`` also ``projection``,
    ``prediction`` and ``loss``.
    """
    views = two_views_of(batch, "SimSiam") if stage == "fit" else views_of(batch)
    state = embedded(self.backbone, views)
    if stage == "fit":
        state["projection"] = self.projector(state["embedding"])
        state["prediction"] = self.predictor(state["projection"])
        halves = (*jnp.split(state["prediction"], 2), *jnp.split(state["projection"], 2))
        state["loss"] = self.simsiam_loss(*halves, weight_of(batch))
    return state


class SimSiam(Method):
    """SimSiam, with the heads of the official code.

    Args:
        backbone: From images to ``(N, embed_dim)``.
        embed_dim: Width of its output.
        rngs: Where the heads' weights are drawn.
        projector_dims: Widths of the projector; its last BatchNorm has no scale and shift.
        predictor_dim: Width of the predictor's bottleneck.
        **common: As for :class:`SimCLR`.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        embed_dim: int,
        *,
        rngs: nnx.Rngs,
        projector_dims: Sequence[int] = (2048, 2048, 2048),
        predictor_dim: int = 512,
        **common: Any,
    ) -> None:
        out = projector_dims[-1]
        super().__init__(
            simsiam,
            backbone,
            settings={"projector_dims": list(projector_dims), "predictor_dim": predictor_dim},
            parts={
                "projector": mlp_head(embed_dim, projector_dims, rngs=rngs, last_norm="no_affine"),
                "predictor": mlp_head(out, (predictor_dim, out), rngs=rngs, last_bias=True),
                "simsiam_loss": SimSiamLoss(),
            },
            **common,
        )
