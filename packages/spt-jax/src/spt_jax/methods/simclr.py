"""SimCLR: contrast two views of each image against all others.

Chen et al., ICML 2020. https://arxiv.org/abs/2002.05709; official code
https://github.com/google-research/simclr.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from spt_jax.backbone.mlp import mlp_head
from spt_jax.losses import NTXEntLoss
from spt_jax.methods._method import Method, embedded, two_views_of, views_of
from spt_jax.module import State


def simclr(self: Any, batch: Mapping[str, Any], stage: str) -> State:
    """Contrast two views of each image against the rest of the batch.

    Needs: ``backbone``, ``projector``, ``simclr_loss``.
    Reads: ``views``, two of them in ``fit``; any number or a single ``image`` ``(N, H, W, C)`` elsewhere.
    Writes: ``embedding`` ``(V * N, F)`` and ``label`` to match; in ``fit`` also ``projection`` and ``loss``.
    """
    views = two_views_of(batch, "SimCLR") if stage == "fit" else views_of(batch)
    state = embedded(self.backbone, views)
    if stage == "fit":
        state["projection"] = self.projector(state["embedding"])
        state["loss"] = self.simclr_loss(*jnp.split(state["projection"], 2))
    return state


class SimCLR(Method):
    """SimCLR, with the projection head of the official code.

    Args:
        backbone: From images to ``(N, embed_dim)``.
        embed_dim: Width of its output.
        rngs: Where the projector's weights are drawn.
        projector_dims: Widths of the projector; BatchNorm after each layer, the last one's without
            shift.
        temperature: tau of NT-Xent.
        **common: ``optim``, ``transform``, ``eval_transform``, ``aug_seed``, ``hparams``, ``dtype`` of
            :class:`Method`.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        embed_dim: int,
        *,
        rngs: nnx.Rngs,
        projector_dims: Sequence[int] = (2048, 2048, 256),
        temperature: float = 0.5,
        **common: Any,
    ) -> None:
        super().__init__(
            simclr,
            backbone,
            settings={"projector_dims": list(projector_dims), "temperature": temperature},
            parts={
                "projector": mlp_head(embed_dim, projector_dims, rngs=rngs, last_norm="no_shift"),
                "simclr_loss": NTXEntLoss(temperature),
            },
            **common,
        )
