"""RankMe: the effective rank of the embeddings.

Garrido et al., "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
Representations by Their Rank", ICML 2023, eq. 1. https://arxiv.org/abs/2210.02885
"""

from __future__ import annotations

from typing import Any

import lightning as pl
import torch
from torch import Tensor

from spt_callbacks.queue import queues_of


def rankme(embeddings: Tensor, *, epsilon: float = 1e-7) -> Tensor:
    """Exponential of the entropy of the normalised singular values.

    Args:
        embeddings: ``(N, D)``, not centred; computed in float64.
        epsilon: Added to each share, as in eq. 1.

    Returns:
        Scalar between 1 (all rows parallel) and min(N, D).

    Raises:
        ValueError: If the embeddings are not ``(N, D)``.

    Example:
        >>> round(rankme(torch.eye(4)).item(), 3)
        4.0
    """
    if embeddings.ndim != 2:
        raise ValueError(f"`embeddings` must have shape (N, D), got {tuple(embeddings.shape)}.")
    singular = torch.linalg.svdvals(embeddings.double())
    share = singular / singular.sum().clamp(min=torch.finfo(torch.float64).tiny) + epsilon
    return torch.exp(-(share * share.log()).sum())


class RankMe(pl.Callback):
    """Log the effective rank of the newest training embeddings at each validation.

    A falling value warns of dimensional collapse. Logs ``{name}``, the same on all ranks.

    Args:
        name: Key in the logs.
        target: Key of the embeddings ``(N, D)``.
        queue_length: Embeddings kept on each rank; the paper uses 25,600 in all.
        target_shape: Width of the embeddings, checked if given.

    Raises:
        ValueError: At the first validation, if the embeddings have another width.
    """

    def __init__(
        self,
        name: str = "rankme",
        target: str = "embedding",
        queue_length: int = 8192,
        target_shape: int | None = None,
    ) -> None:
        self.name = name
        self.target = target
        self.queue_length = queue_length
        self.target_shape = target_shape

    @property
    def state_key(self) -> str:
        """Distinguishes callbacks of different names."""
        return f"RankMe[name={self.name}]"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Ask for the queue."""
        queues_of(trainer).request((self.target,), self.queue_length, f"RankMe {self.name!r}")

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add this batch's embeddings."""
        queues_of(trainer).append(trainer.fit_loop.total_batch_idx, outputs, batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute and log."""
        found = queues_of(trainer).snapshot((self.target,), self.queue_length)
        if found is None:
            return
        (embeddings,) = found
        if self.target_shape is not None and embeddings.shape[1:] != (self.target_shape,):
            raise ValueError(
                f"RankMe {self.name!r} was told `target_shape={self.target_shape}`, but "
                f"{self.target!r} has rows of shape {tuple(embeddings.shape[1:])}."
            )
        value = rankme(embeddings).float()
        pl_module.log(self.name, value, on_step=False, on_epoch=True)
