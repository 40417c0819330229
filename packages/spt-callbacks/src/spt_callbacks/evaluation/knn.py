"""Weighted k-nearest-neighbour classification against a queue of training features.

Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
section 3.4 (https://arxiv.org/abs/1805.01978); the same vote in DINO (https://arxiv.org/abs/2104.14294).
"""

from __future__ import annotations

from typing import Any

import lightning as pl
import torch
from loguru import logger
from torch import Tensor
from torch.nn import functional as F

from spt_callbacks.keys import check_rows, look_up
from spt_callbacks.metrics import StageMetrics
from spt_callbacks.queue import queues_of


def knn_vote(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk_size: int = -1,
) -> Tensor:
    """Scores of each class by the nearest features, weighted by ``exp(cosine / temperature)``.

    Args:
        bank: Features ``(N, D)``.
        labels: Their classes, int64 ``(N,)``.
        queries: Features ``(M, D)``.
        num_classes: C.
        k: Neighbours that vote; all of the bank if it is smaller.
        temperature: tau.
        chunk_size: Rows of the bank compared at once; -1 for all. Bounds the memory; the
            result does not depend on it.

    Returns:
        Scores ``(M, C)``, each row summing to 1.
    """
    queries = F.normalize(queries.float(), dim=1)
    step = len(bank) if chunk_size == -1 else chunk_size
    similarity = queries.new_empty(len(queries), 0)
    voters = labels.new_empty(len(queries), 0)
    for part, classes in zip(bank.split(step), labels.split(step), strict=True):
        scores = queries @ F.normalize(part.float(), dim=1).T  # (M, chunk)
        similarity = torch.cat([similarity, scores], dim=1)
        voters = torch.cat([voters, classes.expand(len(queries), -1)], dim=1)
        similarity, index = similarity.topk(min(k, similarity.shape[1]), dim=1)
        voters = voters.gather(1, index)
    weights = (similarity / temperature).softmax(dim=1)
    return weights.new_zeros(len(queries), num_classes).scatter_add_(1, voters, weights)


class OnlineKNN(pl.Callback):
    """Classify validation features by their nearest training features, without any training.

    The bank is a queue of the newest training features of all ranks. Logs
    ``eval/{name}_{metric}``, ``eval/{name}_acc`` by default, and ``test/...`` in testing.

    Args:
        name: Name in the logs.
        input: Key of the features ``(N, D)``.
        target: Key of the classes ``(N,)``.
        queue_length: Features kept on each rank.
        metrics: torchmetrics metrics of scores ``(N, C)``; accuracy by default.
        input_dim: Width of the features, checked if given.
        target_dim: Accepted for compatibility; targets are ``(N,)``.
        num_classes: C; by default that of the metrics, else the largest class in the bank plus
            one. A class that the bank has never seen counts as a miss.
        k: Neighbours that vote.
        temperature: tau of the vote.
        chunk_size: Rows of the bank compared at once; -1 for all.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        name: str = "knn",
        input: str = "embedding",
        target: str = "label",
        queue_length: int = 8192,
        metrics: Any = None,
        input_dim: int | None = None,
        target_dim: int | None = None,
        num_classes: int | None = None,
        k: int = 20,
        temperature: float = 0.07,
        chunk_size: int = -1,
    ) -> None:
        for label, value in (
            ("k", k),
            ("temperature", temperature),
            ("queue_length", queue_length),
        ):
            if not value > 0:
                raise ValueError(f"`{label}` of OnlineKNN {name!r} must be > 0, got {value}.")
        if chunk_size != -1 and chunk_size < 1:
            raise ValueError(f"`chunk_size` must be -1 or >= 1, got {chunk_size}.")
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"`num_classes` must be >= 1, got {num_classes}.")
        self.name = name
        self.input = input
        self.target = target
        self.queue_length = queue_length
        self.input_dim = input_dim
        self.num_classes = num_classes
        self.k = k
        self.temperature = temperature
        self.chunk_size = chunk_size
        self.metrics = StageMetrics(metrics)
        self.bank: tuple[Tensor, ...] | None = None
        self._classes = 0

    @property
    def state_key(self) -> str:
        """Distinguishes callbacks of different names."""
        return f"OnlineKNN[name={self.name}]"

    @property
    def caller(self) -> str:
        """How messages call this callback."""
        return f"OnlineKNN {self.name!r}"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Ask for the queues."""
        queues_of(trainer).request((self.input, self.target), self.queue_length, self.caller)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add this batch to the bank."""
        self._rows(outputs, batch)
        queues_of(trainer).append(trainer.fit_loop.total_batch_idx, outputs, batch)

    def _rows(self, outputs: Any, batch: Any) -> tuple[Tensor, Tensor]:
        features = look_up(self.input, outputs, batch, self.caller)
        targets = look_up(self.target, outputs, batch, self.caller)
        check_rows(features, targets, (self.input, self.target), self.caller)
        if self.input_dim is not None and features.shape[1:] != (self.input_dim,):
            raise ValueError(
                f"{self.caller} was told `input_dim={self.input_dim}`, but {self.input!r} has shape "
                f"{tuple(features.shape)}."
            )
        return features, targets

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bank."""
        self.bank = queues_of(trainer).snapshot((self.input, self.target), self.queue_length)
        if self.bank is not None:
            seen = int(self.bank[1].max()) + 1
            self._classes = self.num_classes or self._told() or seen
            if seen > self._classes:
                raise ValueError(
                    f"{self.caller} was told {self._classes} classes, but {self.target!r} holds the "
                    f"label {seen - 1}."
                )
        elif not trainer.sanity_checking:
            logger.warning(f"{self.caller} has no training features yet and reports nothing.")

    on_test_epoch_start = on_validation_epoch_start

    def _told(self) -> int:
        """The number of classes that a given metric knows; 0 if none does."""
        counts = (getattr(metric, "num_classes", None) for metric in self.metrics.metrics.values())
        return next((int(count) for count in counts if count), 0)

    @torch.no_grad()
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Vote on this batch."""
        if self.bank is None:
            return
        features, targets = self._rows(outputs, batch)
        bank, labels = (part.to(features.device) for part in self.bank)
        with torch.autocast(features.device.type, enabled=False):
            scores = knn_vote(
                bank,
                labels,
                features,
                num_classes=self._classes,
                k=self.k,
                temperature=self.temperature,
                chunk_size=self.chunk_size,
            )
        self.metrics.update(scores, targets)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of the epoch and drop the bank."""
        self.metrics.log(pl_module, f"eval/{self.name}")
        self.bank = None

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of the test and drop the bank."""
        self.metrics.log(pl_module, f"test/{self.name}")
        self.bank = None
