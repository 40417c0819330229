"""SwAV: predict the cluster codes of large crops from all other crops.

Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", NeurIPS
2020. https://arxiv.org/abs/2006.09882; official code https://github.com/facebookresearch/swav.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning as pl
import torch
import torch.distributed as dist
from spt_losses import FeatureQueue, SwAVLoss
from torch import Tensor, nn

from spt_methods.backbones.heads import mlp_head
from spt_methods.epochs import epoch_of
from spt_methods.freeze import FrozenPrototypes
from spt_methods.methods._method import Method
from spt_methods.methods._recipe import Recipe
from spt_methods.views import (
    Batch,
    Stage,
    State,
    crops_of,
    embed,
    encode_crops,
    labels_of,
    views_of,
)


def swav(self: Any, batch: Any, stage: Stage) -> State:
    """Assign codes to the two large crops and predict them from every other crop.

    Needs: ``backbone``, ``projector``, ``prototypes`` (linear without bias), ``swav_loss``; optionally
    ``code_queues``, a :class:`CodeQueues`.
    Reads: in ``fit`` named crops ``global...`` (two) and ``local...``, or a list of two large views and
    any number of small ones, each with ``image`` ``(N, C, H, W)``; any views elsewhere.
    Writes: ``embedding`` and ``label`` to match, if there are labels: of the large crops ``(2N, F)`` in
    ``fit``, of all views elsewhere; in ``fit`` also ``projection`` ``(2N, D)`` and ``loss``.
    """
    if stage != "fit":
        return embed(self.backbone, batch)
    large, small = _crops(batch)
    embeddings = encode_crops(self.backbone, [*large, *small])
    projections = self.projector(torch.cat(embeddings)).chunk(len(embeddings))
    queues = getattr(self, "code_queues", None)
    earlier = None
    if queues is not None:
        epoch = epoch_of(self, "The start of the queues") if queues.start_epoch else 0
        earlier = queues.rows(epoch)
    loss = self.swav_loss(*projections[:2], self.prototypes, earlier, crops=projections[2:])
    if queues is not None and self.training:
        queues.push(projections[:2], epoch)
    return {
        "embedding": torch.cat(embeddings[:2]),
        "projection": torch.cat(projections[:2]),
        "loss": loss,
        **labels_of(batch, large),
    }


def _crops(batch: Any) -> tuple[list[Batch], list[Batch]]:
    held = batch.get("views") if isinstance(batch, Mapping) else batch
    if isinstance(held, (list, tuple)):
        views = views_of(batch)
        large, small = views[:2], views[2:]
    else:
        large, small = crops_of(batch, "SwAV")
    if len(large) != 2:
        raise ValueError(f"SwAV assigns codes to two large crops, got {len(large)}.")
    return large, small


class CodeQueues(nn.Module):
    """Earlier projections that take part in the assignment: one queue per large crop.

    For batches small beside the number of prototypes. A queue begins to fill in an epoch and is used
    once it is full.

    Args:
        length: Rows per queue, over all ranks.
        dim: Width of the projections.
        start_epoch: When filling begins; 15 in the paper.
    """

    filled: Tensor

    def __init__(self, length: int, dim: int, start_epoch: int = 15) -> None:
        super().__init__()
        self.start_epoch = start_epoch
        self.length = length
        self.queues = nn.ModuleList(FeatureQueue(length, dim, seed=seed) for seed in range(2))
        self._filled = 0  # the host's copy of the buffer: read without a sync
        self.register_buffer("filled", torch.tensor(0))

    def rows(self, epoch: int) -> list[Tensor] | None:
        """This rank's share of each queue, ``(length / ranks, D)``; ``None`` until they are full."""
        if epoch < self.start_epoch or self._filled < self.length:
            return None
        rank, world = _place()
        return [queue.rows[rank::world] for queue in self.queues]  # type: ignore[index]

    def push(self, projections: Sequence[Tensor], epoch: int) -> None:
        """Take in the projections ``(N, D)`` of the two large crops."""
        if epoch < self.start_epoch:
            return
        for queue, rows in zip(self.queues, projections, strict=True):
            queue.push(rows)  # type: ignore[operator]
        self._filled = min(self._filled + len(projections[0]) * _place()[1], self.length)
        self.filled.fill_(self._filled)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._filled = int(self.filled)


def _place() -> tuple[int, int]:
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class SwAV(Method):
    """SwAV on a timm encoder, with multi-crop, frozen prototypes at the start, and optional queues.

    Args:
        encoder_name: A timm model, or a module with ``num_features`` that returns ``(N, F)``.
        projector_dims: Widths of the projector.
        n_prototypes: K.
        temperature: tau.
        sinkhorn_iterations: Rounds of the Sinkhorn problem.
        epsilon: Its temperature.
        queue_length: Rows per queue, 3840 in the paper; 0 for no queues.
        start_queue_at_epoch: When they begin to fill.
        freeze_prototypes_steps: Optimizer steps before prototypes move; 313 in the official code.
        dynamic_img_size: Let a transformer see crops of several sizes.
        **common: Encoder and recipe settings of :class:`Method`: ``batch_size``, ``image_size``,
            ``low_resolution``, ``in_chans``, ``optim`` and others.
            The recipe is LARS at 0.3 for a batch of 256 (4.8 at 4096) down to a thousandth, decay 1e-6.
    """

    paper = Recipe(
        "LARS", 0.3, 1e-6, batch=4096, epochs=800, warmup_epochs=10, end_factor=1e-3,
        augmentation="swav",
    )  # fmt: skip

    def __init__(
        self,
        encoder_name: str | nn.Module = "vit_small_patch16_224",
        projector_dims: Sequence[int] = (2048, 128),
        n_prototypes: int = 3000,
        temperature: float = 0.1,
        sinkhorn_iterations: int = 3,
        epsilon: float = 0.05,
        queue_length: int = 0,
        start_queue_at_epoch: int = 15,
        freeze_prototypes_steps: int = 313,
        dynamic_img_size: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(
            swav,
            encoder_name,
            crops=dynamic_img_size,
            **common,
        )
        width = projector_dims[-1]
        self.freeze_prototypes_steps = freeze_prototypes_steps
        self.projector = mlp_head(self.features, projector_dims, hidden_bias=True, last_bias=True)
        self.prototypes = nn.Linear(width, n_prototypes, bias=False)
        self.swav_loss = SwAVLoss(temperature, sinkhorn_iterations, epsilon)
        if queue_length:
            self.code_queues = CodeQueues(queue_length, width, start_queue_at_epoch)

    def method_callbacks(self) -> list[pl.Callback]:
        """The frozen start of the prototypes."""
        return [FrozenPrototypes(("prototypes",), steps=self.freeze_prototypes_steps)]
