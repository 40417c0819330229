"""Barlow Twins: the cross-correlation of two views towards the identity.

Zbontar et al., ICML 2021. https://arxiv.org/abs/2103.03230; official code
https://github.com/facebookresearch/barlowtwins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from spt_jax.backbone.mlp import mlp_head
from spt_jax.losses import BarlowTwinsLoss
from spt_jax.methods._method import Method, embedded, two_views_of, views_of
from spt_jax.module import State


def barlow_twins(self: Any, batch: Mapping[str, Any], stage: str) -> State:
    """Decorrelate dimensions across two views of each image.

    Needs: ``backbone``, ``projector``, ``barlow_loss``.
    Reads: ``views``, two of them in ``fit``; any number or a single ``image`` ``(N, H, W, C)`` elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` and ``label`` to match; in ``fit`` also ``projection`` and ``loss``.
    """
    views = two_views_of(batch, "Barlow Twins") if stage == "fit" else views_of(batch)
    state = embedded(self.backbone, views)
    if stage == "fit":
        state["projection"] = self.projector(state["embedding"])
        state["loss"] = self.barlow_loss(*jnp.split(state["projection"], 2))
    return state


class BarlowTwins(Method):
    """Barlow Twins, with the projector of the official code.

    Args:
        backbone: From images to ``(N, embed_dim)``.
        embed_dim: Width of its output.
        rngs: Where the projector's weights are drawn.
        projector_dims: Widths of the projector, without biases.
        lambd: Weight of the off-diagonal term; the official code uses 0.0051.
        **common: As for :class:`SimCLR`.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        embed_dim: int,
        *,
        rngs: nnx.Rngs,
        projector_dims: Sequence[int] = (2048, 2048, 2048),
        lambd: float = 5e-3,
        **common: Any,
    ) -> None:
        super().__init__(
            barlow_twins,
            backbone,
            settings={"projector_dims": list(projector_dims), "lambd": lambd},
            parts={
                "projector": mlp_head(embed_dim, projector_dims, rngs=rngs),
                "barlow_loss": BarlowTwinsLoss(lambd),
            },
            **common,
        )
