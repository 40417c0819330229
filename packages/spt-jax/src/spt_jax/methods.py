"""Method classes: a module with the right parts, using the public forward functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import nnx

from spt_jax.backbone import MLP
from spt_jax.forward import simclr
from spt_jax.losses import NTXEntLoss
from spt_jax.module import Module


class SimCLR(Module):
    """SimCLR (https://arxiv.org/abs/2002.05709) on any encoder.

    Args:
        backbone: From images to ``(N, embed_dim)``.
        embed_dim: Width of its output.
        rngs: Where the projector's weights are drawn.
        projector_dims: Widths of the projector, with BatchNorm between its layers.
        temperature: tau of NT-Xent.
        optim: As for :class:`Module`.
        transform: ``(key, batch) -> batch`` that makes two views.
        hparams: Further hyper-parameters to record.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        embed_dim: int,
        *,
        rngs: nnx.Rngs,
        projector_dims: Sequence[int] = (2048, 2048, 256),
        temperature: float = 0.5,
        optim: Any = "adamw",
        transform: Callable[..., Any] | None = None,
        hparams: Mapping[str, Any] | None = None,
    ) -> None:
        recorded = {
            "method": "simclr",
            "projector_dims": list(projector_dims),
            "temperature": temperature,
            **(hparams or {}),
        }
        super().__init__(
            forward=simclr,
            backbone=backbone,
            projector=MLP(embed_dim, projector_dims, rngs=rngs, batch_norm=True),
            simclr_loss=NTXEntLoss(temperature),
            optim=optim,
            transform=transform,
            hparams=recorded,
        )
