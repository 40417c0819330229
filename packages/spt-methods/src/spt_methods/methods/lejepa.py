"""LeJEPA: every view near the centre of the large ones, features spread like a Gaussian.

Balestriero and LeCun, "LeJEPA", 2025. https://arxiv.org/abs/2511.08544; official code
https://github.com/rbalestr-lab/lejepa.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from spt_losses import LeJEPALoss
from torch import nn

from spt_methods.backbones.heads import mlp_head
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import (
    Stage,
    State,
    crops_of,
    embed,
    encode_crops,
    labels_of,
)


def lejepa(self: Any, batch: Any, stage: Stage) -> State:
    """Pull all crops to the centre of the large ones and make each view's features Gaussian.

    Needs: ``backbone``, ``projector``, ``lejepa_loss``.
    Reads: in ``fit`` named crops ``global...`` and ``local...`` (none, or more), each with ``image``
    ``(N, C, H, W)``; any views elsewhere.
    Writes: ``embedding`` and ``label`` to match, if there are labels: of the large crops ``(G * N, F)`` in
    ``fit``, of all views elsewhere; in ``fit`` also ``projection`` ``(V, N, D)``, ``inv_loss``,
    ``sigreg_loss`` and ``loss``.
    """
    if stage != "fit":
        return embed(self.backbone, batch)
    large, small = crops_of(batch, "LeJEPA")
    embeddings = encode_crops(self.backbone, [*large, *small])
    projections = self.projector(torch.cat(embeddings)).chunk(len(embeddings))
    state: State = {
        "embedding": torch.cat(embeddings[: len(large)]),
        "projection": torch.stack(projections),
        **labels_of(batch, large),
    }
    invariance, spread = self.lejepa_loss.terms(state["projection"], n_global=len(large))
    lamb = self.lejepa_loss.lamb
    state["loss"] = (1 - lamb) * invariance + lamb * spread
    state.update(inv_loss=invariance.detach(), sigreg_loss=spread.detach())
    return state


class LeJEPA(Method):
    """LeJEPA on a timm encoder.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        projector: Projector of its own; by default an MLP of ``projector_dims``.
        n_slices: Random directions per step.
        t_max: End of the statistic's integral.
        n_points: Its nodes, odd.
        lamb: lambda.
        drop_path_rate: Stochastic depth of a named encoder.
        projector_dims: Widths of the default projector, BatchNorm after all but the last.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is AdamW at 5e-4, decay 0.05.
    """

    paper = Recipe(
        "AdamW", 5e-4, 0.05, batch=256, epochs=100, warmup_epochs=10, rule="none",
        end_factor=1e-3, augmentation="lejepa",
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_base_patch16_224",
        projector: nn.Module | None = None,
        n_slices: int = 1024,
        t_max: float = 3.0,
        n_points: int = 17,
        lamb: float = 0.02,
        drop_path_rate: float = 0.1,
        projector_dims: Sequence[int] = (512, 2048, 2048, 512),
        **common: Any,
    ) -> None:
        super().__init__(
            lejepa,
            encoder_name,
            crops=True,
            drop_path_rate=drop_path_rate if isinstance(encoder_name, str) else 0.0,
            **common,
        )
        head = mlp_head(self.features, projector_dims, hidden_bias=True, last_bias=True)
        self.projector = head if projector is None else projector
        self.lejepa_loss = LeJEPALoss(lamb, n_slices, t_max, n_points)
