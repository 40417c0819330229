"""VICReg: two views alike, each dimension spread out, dimensions uncorrelated.

Bardes, Ponce and LeCun, ICLR 2022. https://arxiv.org/abs/2105.04906; official code
https://github.com/facebookresearch/vicreg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from spt_jax.backbone.mlp import mlp_head
from spt_jax.losses import VICRegLoss
from spt_jax.methods._method import Method, embedded, two_views_of, views_of
from spt_jax.module import State


def vicreg(self: Any, batch: Mapping[str, Any], stage: str) -> State:
    """Match two views under a variance and a covariance term.

    Needs: ``backbone``, ``projector``, ``vicreg_loss``.
    Reads: ``views``, two of them in ``fit``; any number or a single ``image`` ``(N, H, W, C)`` elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` and ``label`` to match; in ``fit`` also ``projection`` and ``loss``.
    """
    views = two_views_of(batch, "VICReg") if stage == "fit" else views_of(batch)
    state = embedded(self.backbone, views)
    if stage == "fit":
        state["projection"] = self.projector(state["embedding"])
        state["loss"] = self.vicreg_loss(*jnp.split(state["projection"], 2))
    return state


class VICReg(Method):
    """VICReg, with the expander of the official code.

    Args:
        backbone: From images to ``(N, embed_dim)``.
        embed_dim: Width of its output.
        rngs: Where the expander's weights are drawn.
        projector_dims: Widths of the expander, with BatchNorm between its layers.
        sim_coeff: Weight of the invariance term.
        std_coeff: Weight of the variance term.
        cov_coeff: Weight of the covariance term.
        **common: As for :class:`SimCLR`.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        embed_dim: int,
        *,
        rngs: nnx.Rngs,
        projector_dims: Sequence[int] = (2048, 2048, 2048),
        sim_coeff: float = 25.0,
        std_coeff: float = 25.0,
        cov_coeff: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(
            vicreg,
            backbone,
            settings={
                "projector_dims": list(projector_dims),
                "sim_coeff": sim_coeff,
                "std_coeff": std_coeff,
                "cov_coeff": cov_coeff,
            },
            parts={
                "projector": mlp_head(embed_dim, projector_dims, rngs=rngs, hidden_bias=True),
                "vicreg_loss": VICRegLoss(sim_coeff, std_coeff, cov_coeff),
            },
            **common,
        )
