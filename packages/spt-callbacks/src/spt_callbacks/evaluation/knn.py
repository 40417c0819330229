"""Live weighted k-nearest-neighbour classification.

Wu et al., CVPR 2018, section 3.4 (https://arxiv.org/abs/1805.01978); the same vote in DINO
(https://arxiv.org/abs/2104.14294).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lightning as pl
import torch
from loguru import logger
from torch import Tensor

from spt_callbacks.distributed import gather_rows
from spt_callbacks.evaluation._batches import unrepeated_rows
from spt_callbacks.evaluation.nearest import Bank, Distance, check_chunk_size, check_metric, vote
from spt_callbacks.keys import Key, check_rows, check_width, expose, look_up
from spt_callbacks.metrics import StageMetrics
from spt_callbacks.queue import queues_of
from spt_callbacks.queue_reader import QueueReader

Encode = Callable[[pl.LightningModule, Any], Any]


class OnlineKNN(QueueReader):
    """Classify validation features by their nearest training features, without any training.

    The bank is a queue of the newest training features of all ranks; or, with ``bank_loader``, the
    features of that loader by the model as it is now. Logs ``eval/{name}_{metric}``,
    ``eval/{name}_acc`` (and ``top5``) by default, and ``test/...`` in testing. The scores are put
    into the step's dict as ``{name}_preds``.

    Args:
        name: Name in the logs.
        input: Key of the features ``(N, D)``.
        target: Key of the classes ``(N,)``.
        queue_length: Features kept on each rank.
        metrics: torchmetrics metrics of scores ``(N, C)``.
        input_dim: Shape of a feature, checked if given; several dimensions are flattened.
        target_dim: Accepted for compatibility; targets are ``(N,)``.
        num_classes: C; by default ``num_classes`` of the metrics, of the data module or of the
            module. If none of them says, the classes of the bank; a class that it has never seen
            then counts as a miss.
        k: Neighbours that vote.
        temperature: tau of the vote.
        chunk_size: Rows of the bank compared at once; -1 for what suits the device.
        distance_metric: ``"cosine"`` with weights exp(s / tau), or ``"euclidean"``,
            ``"squared_euclidean"``, ``"manhattan"`` with weights 1 / (d + tau).
        verbose: Also log ``eval/{name}_bank_age``, the age in training batches of the oldest row.
        save_queues: Keep the bank in checkpoints.
        bank_loader: Batches to encode at the start of each validation, in evaluation mode, in
            place of the queue; with several ranks each brings its share.
        encode: From the module and a batch to what a step returns; ``module.predict_step``
            by default.

    Raises:
        ValueError: If a setting is out of range; in validation, if a label is beyond the classes.
    """

    def __init__(
        self,
        name: str = "knn",
        input: Key = "embedding",
        target: Key = "label",
        queue_length: int = 8192,
        metrics: Any = None,
        input_dim: int | tuple[int, ...] | None = None,
        target_dim: int | None = None,
        num_classes: int | None = None,
        k: int = 20,
        temperature: float = 0.07,
        chunk_size: int = -1,
        distance_metric: Distance = "cosine",
        verbose: bool | None = None,
        *,
        save_queues: bool = False,
        bank_loader: Iterable[Any] | None = None,
        encode: Encode | None = None,
    ) -> None:
        for label, value in (("k", k), ("temperature", temperature)):
            if not value > 0:
                raise ValueError(f"`{label}` of OnlineKNN {name!r} must be > 0, got {value}.")
        check_chunk_size(chunk_size)
        check_metric(distance_metric)
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"`num_classes` must be >= 1, got {num_classes}.")
        super().__init__(name, (input, target), queue_length, save_queues, shape=input_dim)
        self.input = input
        self.target = target
        self.input_dim = input_dim
        self.num_classes = num_classes
        self.k = k
        self.temperature = temperature
        self.chunk_size = chunk_size
        self.distance_metric = distance_metric
        self.verbose = verbose
        self.bank_loader = bank_loader
        self.encode = encode or (lambda module, batch: module.predict_step(batch, 0))
        self.metrics = StageMetrics(metrics)
        self.bank: Bank | None = None
        self._labels: Tensor | None = None
        self._classes = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Ask for the queues."""
        self.bank = None
        if self.bank_loader is None:
            super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add this batch to the bank."""
        if self.bank_loader is None:
            self._rows(outputs, batch)
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _rows(self, outputs: Any, batch: Any) -> tuple[Tensor, Tensor]:
        features = look_up(self.input, outputs, batch, self.caller)
        targets = look_up(self.target, outputs, batch, self.caller)
        check_rows(features, targets, (self.input, self.target), self.caller)
        check_width(features, self.input_dim, "input_dim", self.input, self.caller)
        return features, targets

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bank, and learn how many classes there are."""
        found = self.recent(trainer) if self.bank_loader is None else self._encoded(pl_module)
        if found is None:
            if not trainer.sanity_checking:
                logger.warning(f"{self.caller} has no training features yet and reports nothing.")
            return
        features, labels = (part.to(pl_module.device) for part in found)
        self.bank = Bank(features, self.distance_metric, self.chunk_size)
        self._labels = labels.long()
        seen = int(labels.max()) + 1
        self._classes = self.num_classes or self._told(trainer, pl_module) or seen
        if seen > self._classes:
            raise ValueError(
                f"{self.caller} was told {self._classes} classes, but {self.target!r} holds the "
                f"label {seen - 1}."
            )

    on_test_epoch_start = on_validation_epoch_start

    def _told(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> int:
        """The number of classes that a metric, the data or the module knows; 0 if none does."""
        known = [*self.metrics.metrics.values(), getattr(trainer, "datamodule", None), pl_module]
        counts = (getattr(source, "num_classes", None) for source in known)
        return next((count for count in counts if isinstance(count, int) and count > 0), 0)

    @torch.no_grad()
    def _encoded(self, pl_module: pl.LightningModule) -> tuple[Tensor, Tensor]:
        """Features and classes of the loader, of all ranks."""
        assert self.bank_loader is not None
        modes = [(module, module.training) for module in pl_module.modules()]
        pl_module.eval()
        rows = []
        for index, batch in enumerate(self.bank_loader):
            moved = pl_module._apply_batch_transfer_handler(batch, device=pl_module.device)
            with pl_module.trainer.precision_plugin.forward_context():
                outputs = self.encode(pl_module, moved)
            features, targets = self._rows(outputs, moved)
            n = unrepeated_rows(self.bank_loader, index, len(features))
            rows.append((features[:n], targets[:n]))
        for module, training in modes:
            module.training = training
        features, labels = (torch.cat(parts) for parts in zip(*rows, strict=True))
        return gather_rows(features), gather_rows(labels)

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
        if self.bank is None or self._labels is None:
            return
        features, targets = self._rows(outputs, batch)
        closeness, index = self.bank.nearest(features, self.k)
        scores = vote(
            closeness,
            self._labels[index],
            num_classes=self._classes,
            temperature=self.temperature,
            metric=self.distance_metric,
        )
        expose(outputs, f"{self.name}_preds", scores, self.caller)
        self.metrics.judge(trainer, scores, targets, batch_idx, dataloader_idx)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of the epoch and drop the bank."""
        self._finish(trainer, pl_module, f"eval/{self.name}")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics of the test and drop the bank."""
        self._finish(trainer, pl_module, f"test/{self.name}")

    def _finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, prefix: str) -> None:
        if self.verbose and self.bank is not None and self.bank_loader is None:
            age = queues_of(trainer).rings[self.input].age(self.queue_length)
            pl_module.log(f"{prefix}_bank_age", float(age), on_step=False, on_epoch=True)
        self.bank = self._labels = None
        self.metrics.log(pl_module, prefix)
