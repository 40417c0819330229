"""LeJEPA: views agree, and their features are distributed as a standard Gaussian.

Balestriero and LeCun, 2025. https://arxiv.org/abs/2511.08544
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spt_jax.backbone.mlp import mlp_head
from spt_jax.losses import lejepa_loss
from spt_jax.methods._method import Method, crops_of, embedded, images_of, views_of
from spt_jax.module import State


def lejepa(self: Any, batch: Mapping[str, Any], stage: str) -> State:
    """Pull views to the centre of the large ones, under SIGReg with new directions in each step.

    Needs: ``backbone``, ``projector``, ``lejepa_settings``.
    Reads: ``global_views`` and ``local_views``, or ``views``, in ``fit``; any number or a single ``image``
    elsewhere.
    Writes: ``embedding`` of the large views and ``label`` to match; in ``fit`` also ``projection``
    ``(V, N, D)`` and ``loss``.
    """
    if stage != "fit":
        return embedded(self.backbone, views_of(batch))
    large, small = crops_of(batch, "LeJEPA")
    state = embedded(self.backbone, large)
    features = [state["embedding"], *([self.backbone(images_of(small))] if small else [])]
    z = self.projector(jnp.concatenate(features))
    state["projection"] = z.reshape(len(large) + len(small), -1, z.shape[-1])
    settings = dict(self.lejepa_settings)
    shape = (z.shape[-1], settings.pop("n_slices"))
    directions = jax.random.normal(self.step_key(), shape)
    state["loss"] = lejepa_loss(state["projection"], directions, n_global=len(large), **settings)
    return state


class LeJEPA(Method):
    """LeJEPA on two views or on many crops.

    Args:
        backbone: From images to ``(N, embed_dim)``; of several sizes if there are small crops.
        embed_dim: Width of its output.
        rngs: Where the projector's weights are drawn.
        projector_dims: Widths of the projector, with BatchNorm between its layers.
        n_slices: Directions of SIGReg in each step.
        t_max: End of its integral.
        n_points: Its nodes, odd.
        lamb: Weight of SIGReg; the invariance has the rest.
        **common: As for :class:`SimCLR`.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        embed_dim: int,
        *,
        rngs: nnx.Rngs,
        projector_dims: Sequence[int] = (512, 2048, 2048, 512),
        n_slices: int = 1024,
        t_max: float = 3.0,
        n_points: int = 17,
        lamb: float = 0.02,
        **common: Any,
    ) -> None:
        settings = {"n_slices": n_slices, "t_max": t_max, "n_points": n_points, "lamb": lamb}
        super().__init__(
            lejepa,
            backbone,
            settings={"projector_dims": list(projector_dims), **settings},
            parts={
                "projector": mlp_head(
                    embed_dim, projector_dims, rngs=rngs, hidden_bias=True, last_bias=True
                ),
                "lejepa_settings": settings,
            },
            **common,
        )
