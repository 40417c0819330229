"""SwAV: predict the cluster assignment of one view from the others.

Caron et al., NeurIPS 2020. https://arxiv.org/abs/2006.09882; official code
https://github.com/facebookresearch/swav.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spt_jax._compat import read
from spt_jax.backbone.mlp import mlp_head
from spt_jax.losses import swav_loss
from spt_jax.methods._method import Method, crops_of, embedded, images_of, views_of
from spt_jax.module import State


def swav(self: Any, batch: Mapping[str, Any], stage: str) -> State:
    """Predict the codes of the large views from every other view.

    Needs: ``backbone``, ``projector``, ``prototypes``, ``swav_settings``.
    Reads: ``views``, or ``global_views`` and ``local_views``, at least two in ``fit``; any number or a single
    ``image`` ``(N, H, W, C)`` elsewhere.
    Writes: ``embedding`` of the large views and ``label`` to match; in ``fit`` also ``projection``
    ``(V * N, D)`` and ``loss``.
    """
    if stage != "fit":
        return embedded(self.backbone, views_of(batch))
    large, small = crops_of(batch, "SwAV")
    state = embedded(self.backbone, large)
    features = [state["embedding"], *([self.backbone(images_of(small))] if small else [])]
    state["projection"] = self.projector(jnp.concatenate(features))
    settings = dict(self.swav_settings)
    frozen = self.step().number < settings.pop("freeze_prototypes_steps")
    weights = self.prototypes.weights()
    weights = jnp.where(frozen, jax.lax.stop_gradient(weights), weights)
    projections = jnp.split(state["projection"], len(large) + len(small))
    state["loss"] = swav_loss(projections, weights, assigned=len(large), **settings)
    return state


class Prototypes(nnx.Module):
    """Rows that stand for clusters; their length does not matter.

    Args:
        dim: Width.
        number: How many.
        rngs: Where they are drawn.
    """

    def __init__(self, dim: int, number: int, *, rngs: nnx.Rngs) -> None:
        init = nnx.initializers.lecun_normal(in_axis=1, out_axis=0)
        self.kernel = nnx.Param(init(rngs.params(), (number, dim)))

    def weights(self) -> jax.Array:
        """Rows ``(number, dim)``."""
        return read(self.kernel)


class SwAV(Method):
    """SwAV on two views or on many crops.

    Args:
        backbone: From images to ``(N, embed_dim)``; of several sizes if there are small crops.
        embed_dim: Width of its output.
        rngs: Where weights are drawn.
        projector_dims: Widths of the projector.
        n_prototypes: Number of prototypes.
        temperature: tau.
        sinkhorn_iterations: Rounds of the Sinkhorn problem.
        epsilon: Its temperature.
        freeze_prototypes_steps: Steps at the beginning in which prototypes get no gradient; 313 in
            the official code.
        **common: As for :class:`SimCLR`.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        embed_dim: int,
        *,
        rngs: nnx.Rngs,
        projector_dims: Sequence[int] = (2048, 128),
        n_prototypes: int = 3000,
        temperature: float = 0.1,
        sinkhorn_iterations: int = 3,
        epsilon: float = 0.05,
        freeze_prototypes_steps: int = 313,
        **common: Any,
    ) -> None:
        settings = {
            "temperature": temperature,
            "sinkhorn_iterations": sinkhorn_iterations,
            "epsilon": epsilon,
            "freeze_prototypes_steps": freeze_prototypes_steps,
        }
        super().__init__(
            swav,
            backbone,
            settings={
                "projector_dims": list(projector_dims),
                "n_prototypes": n_prototypes,
                **settings,
            },
            parts={
                "projector": mlp_head(
                    embed_dim, projector_dims, rngs=rngs, hidden_bias=True, last_bias=True
                ),
                "prototypes": Prototypes(projector_dims[-1], n_prototypes, rngs=rngs),
                "swav_settings": settings,
            },
            **common,
        )
