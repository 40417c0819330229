"""NNCLR: the nearest neighbour of one view picks the other view's prediction out of the batch.

Dwibedi et al., ICCV 2021. https://arxiv.org/abs/2104.14548
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from spt_jax.backbone.mlp import mlp_head
from spt_jax.losses import NNCLRLoss, nearest_rows
from spt_jax.methods._method import (
    FeatureQueue,
    Method,
    embedded,
    two_views_of,
    views_of,
    weight_of,
)
from spt_jax.module import State


def nnclr(self: Any, batch: Mapping[str, Any], stage: str) -> State:
    """Contrast neighbours of one view's projections with the other view's predictions.

    Neighbours are looked up first; the first view's projections enter the support set afterwards,
    so none is its own neighbour.

    Needs: ``backbone``, ``projector``, ``predictor``, ``queue``, ``nnclr_loss``.
    Reads: ``views``, two of them in ``fit``; any number or a single ``image`` ``(N, H, W, C)`` elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` and ``label`` to match; in ``fit`` also ``projection``,
    ``prediction`` and ``loss``.
    """
    views = two_views_of(batch, "NNCLR") if stage == "fit" else views_of(batch)
    state = embedded(self.backbone, views)
    if stage == "fit":
        state["projection"] = self.projector(state["embedding"])
        state["prediction"] = self.predictor(state["projection"])
        support = self.queue.content()
        z_i, z_j = jnp.split(state["projection"], 2)
        neighbours = nearest_rows(z_i, support), nearest_rows(z_j, support)
        state["loss"] = self.nnclr_loss(*neighbours, *jnp.split(state["prediction"], 2))
        self.queue.push(z_i, weight_of(batch))
    return state


class NNCLR(Method):
    """NNCLR, with its support set in the module's state.

    Args:
        backbone: From images to ``(N, embed_dim)``.
        embed_dim: Width of its output.
        rngs: Where the heads' weights are drawn.
        projector_dims: Widths of the projector; the paper has three layers with BatchNorm after
            each.
        predictor_hidden: Width inside the predictor.
        queue_length: Rows of the support set; the paper's best run has 98304.
        temperature: tau.
        **common: As for :class:`SimCLR`.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        embed_dim: int,
        *,
        rngs: nnx.Rngs,
        projector_dims: Sequence[int] = (2048, 2048, 256),
        predictor_hidden: int = 4096,
        queue_length: int = 16384,
        temperature: float = 0.1,
        **common: Any,
    ) -> None:
        out = projector_dims[-1]
        super().__init__(
            nnclr,
            backbone,
            settings={
                "projector_dims": list(projector_dims),
                "predictor_hidden": predictor_hidden,
                "queue_length": queue_length,
                "temperature": temperature,
            },
            parts={
                "projector": mlp_head(
                    embed_dim, projector_dims, rngs=rngs, hidden_bias=True, last_norm="affine"
                ),
                "predictor": mlp_head(
                    out, (predictor_hidden, out), rngs=rngs, hidden_bias=True, last_bias=True
                ),
                "queue": FeatureQueue(queue_length, out, rngs=rngs),
                "nnclr_loss": NNCLRLoss(temperature),
            },
            **common,
        )
