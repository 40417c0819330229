"""Linear probes for many learning rates, layers and token poolings at once; the best is logged.

What DINOv2 does after training (Oquab et al., 2023, section 7.1, https://arxiv.org/abs/2304.07193),
while the model trains.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import lightning as pl
import torch
from torch import Tensor, nn

from spt_callbacks.distributed import largest_of_ranks, sum_over_ranks, world_size
from spt_callbacks.evaluation._batched_heads import BatchedHeads, BatchedSGD, loss_of_each
from spt_callbacks.evaluation._batches import rows_that_count
from spt_callbacks.evaluation._isolation import isolated
from spt_callbacks.evaluation.pooling import Pooling, check_pooling, pool_tokens
from spt_callbacks.keys import Key, check_rows, look_up, look_up_float
from spt_callbacks.metrics import task_of
from spt_callbacks.named import NamedCallback

RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
"""The 13 base learning rates of DINOv2, for 256 samples a step."""


class OnlineProbeSweep(NamedCallback):
    """Train a linear head per learning rate, layer and pooling, as one batched matmul; log the best.

    Logs ``train/{name}_loss`` of the best head and ``eval/{name}_acc`` of the best in validation
    (``test/...`` in testing); for targets that are not classes ``eval/{name}_loss``. Which head is
    best is in :attr:`best`. Heads are trained by SGD with a cosine schedule and no decay.

    Args:
        name: Name in the logs and in checkpoints.
        input: Keys to probe. A feature is ``(B, D)``, tokens ``(B, T, D)``, or a map
            ``(B, C, H, W)``, which is averaged. A tuple of keys of tokens is one input: the class
            tokens of these blocks side by side.
        target: Key of the targets.
        num_outputs: Classes, labels or values to predict.
        loss: From outputs ``(N, C)`` and targets to a scalar, by operations that
            ``torch.func.vmap`` knows; cross-entropy by default.
        rates: Base learning rates, for 256 samples of all ranks together.
        poolings: How tokens become a vector: ``"cls"``, ``"mean"``, ``"cls_mean"``.
        num_prefix_tokens: Tokens before the patches.
        momentum: Of SGD.
        weight_decay: Of SGD.
        log_all: Log each head too, as ``eval/{name}_acc/{head}``.

    Raises:
        ValueError: If a setting is out of range.

    Attributes:
        best: Name of the best head at the last evaluation, such as ``"embedding/lr=0.01"``.
    """

    is_stateful = True

    def __init__(
        self,
        name: str = "sweep",
        input: Key | Sequence[Key | tuple[Key, ...]] = "embedding",
        target: Key = "label",
        *,
        num_outputs: int,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        rates: Sequence[float] = RATES,
        poolings: Sequence[Pooling] = ("cls", "cls_mean"),
        num_prefix_tokens: int = 1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        log_all: bool = False,
    ) -> None:
        if num_outputs < 1:
            raise ValueError(f"`num_outputs` must be >= 1, got {num_outputs}.")
        if not rates or min(rates) < 0:
            raise ValueError(f"`rates` must be learning rates >= 0, got {list(rates)}.")
        for pooling in poolings:
            check_pooling(pooling)
        inputs = [input] if isinstance(input, str) or callable(input) else list(input)
        self.name = name
        self.inputs = [keys if isinstance(keys, tuple) else (keys,) for keys in inputs]
        self.target = target
        self.num_outputs = num_outputs
        self.loss = loss if loss is not None else nn.CrossEntropyLoss()
        self.rates = tuple(rates)
        self.poolings = tuple(poolings)
        self.num_prefix_tokens = num_prefix_tokens
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.log_all = log_all
        self.best: str | None = None
        self.heads: BatchedHeads | None = None
        self.names: list[str] = []
        self._sgd: BatchedSGD | None = None
        self._steps = 0
        self._total = 0
        self._sums: Tensor | None = None
        self._training_sums: Tensor | None = None
        self._classes = True
        self._saved: dict[str, Any] = {}
        self._trainer: weakref.ref[pl.Trainer] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Weights, momentum and counters."""
        if self.heads is None or self._sgd is None:
            return dict(self._saved)
        return {
            "heads": self.heads.state_dict(),
            "velocity": self._sgd.velocity,
            "steps": self._steps,
            "widths": self.heads.widths,
            "rates": self._sgd.rates,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the device is known."""
        self._saved = dict(state_dict)
        self.heads = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Learn how long the run is; a new Trainer's run begins without momentum."""
        if self._trainer is None or self._trainer() is not trainer:
            self._trainer = weakref.ref(trainer)
            if self._sgd is not None and not self._saved:
                self._steps = 0
                torch._foreach_zero_(self._sgd.velocity)
        total = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches
        self._total = 0 if math.isinf(total) else int(total)
        self._sums = None

    def _features(self, outputs: Any, batch: Any) -> tuple[list[Tensor], list[str]]:
        """The vectors to probe and their names."""
        found, names = [], []
        for keys in self.inputs:
            blocks = [look_up_float(key, outputs, batch, self.caller) for key in keys]
            label = "+".join(key if isinstance(key, str) else repr(key) for key in keys)
            if blocks[0].ndim == 3:
                for pooling in self.poolings:
                    found.append(
                        pool_tokens(blocks, pooling, num_prefix_tokens=self.num_prefix_tokens)
                    )
                    names.append(f"{label}/{pooling}")
            else:
                flat = [x.mean((2, 3)) if x.ndim == 4 else x.flatten(1) for x in blocks]
                found.append(torch.cat(flat, dim=1))
                names.append(label)
        return found, names

    def _rows(self, outputs: Any, batch: Any) -> tuple[list[Tensor], list[str], Tensor]:
        features, names = self._features(outputs, batch)
        targets = look_up(self.target, outputs, batch, self.caller)
        check_rows(features[0], targets, (self.inputs[0][0], self.target), self.caller)
        self._classes = task_of(targets, self.loss) == "classification"
        return features, names, targets

    def _make(self, features: list[Tensor], names: list[str]) -> BatchedHeads:
        """The heads for these features, with what a checkpoint held."""
        device, rows = features[0].device, len(features[0])
        with torch.inference_mode(False), isolated(device, self.caller, 0):
            widths = [x.shape[1] for x in features]
            self.heads = BatchedHeads(widths, len(self.rates), self.num_outputs).to(device)
            scale = rows * world_size() / 256
            scaled = [rate * scale for rate in self.rates]
            self._sgd = BatchedSGD(self.heads, scaled, self.momentum, self.weight_decay)
            self.names = [f"{name}/lr={rate:g}" for name in names for rate in self.rates]
            if self._saved:
                self.heads.load_state_dict(self._saved["heads"])
                self._sgd.velocity = [v.to(device) for v in self._saved["velocity"]]
                self._sgd.rates = self._saved["rates"].to(device)
                self._steps = self._saved["steps"]
                self._saved = {}
        return self.heads

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Train all heads on this batch."""
        features, names, targets = self._rows(outputs, batch)
        heads = self.heads or self._make(features, names)
        assert self._sgd is not None
        with torch.enable_grad(), isolated(features[0].device, self.caller, self._steps):
            losses = loss_of_each(self.loss, heads(features), targets)  # (V, L)
            self._sgd.step(losses.sum(), self._factor())
        self._steps += 1
        self._add(losses.detach() * len(targets), len(targets))

    def _factor(self) -> float:
        if not self._total:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min(self._steps / self._total, 1.0)))

    def _add(self, values: Tensor, rows: int) -> None:
        """Add values of the heads, already summed over rows, to the sums of the epoch."""
        sums = torch.cat([values.flatten(), values.new_full((1,), float(rows))]).double()
        self._sums = sums if self._sums is None else self._sums + sums

    def _means(self, pl_module: pl.LightningModule) -> Tensor | None:
        """The means of all ranks since the last call, a value a head."""
        sums, self._sums = self._sums, None
        size = largest_of_ranks(0 if sums is None else len(sums), pl_module.device)
        if not size:
            return None
        if sums is None:  # this rank had nothing to judge
            sums = torch.zeros(size, dtype=torch.float64, device=pl_module.device)
        sums = sum_over_ranks(sums)
        return (sums[:-1] / sums[-1]).float()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the loss of the best head."""
        means = self._means(pl_module)
        if means is not None:
            pl_module.log(f"train/{self.name}_loss", means.min(), sync_dist=True)

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
        """Judge all heads on this batch."""
        if self.heads is None and not self._saved:
            return
        features, names, targets = self._rows(outputs, batch)
        heads = self.heads or self._make(features, names)
        n = rows_that_count(trainer, batch_idx, dataloader_idx, len(targets))
        if not n:
            return
        targets = targets[:n]
        with isolated(features[0].device, self.caller, self._steps):
            predictions = heads([x[:n] for x in features])
            if self._classes:
                self._add((predictions.argmax(-1) == targets).sum(-1), n)
            else:
                self._add(loss_of_each(self.loss, predictions, targets) * n, n)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the sums of the training epoch aside."""
        self._training_sums, self._sums = self._sums, None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the best head."""
        self._log(pl_module, f"eval/{self.name}")
        self._sums = self._training_sums

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the best head."""
        self._log(pl_module, f"test/{self.name}")

    def _log(self, pl_module: pl.LightningModule, prefix: str) -> None:
        means = self._means(pl_module)
        if means is None:
            return
        key = f"{prefix}_acc" if self._classes else f"{prefix}_loss"
        index = int(means.argmax() if self._classes else means.argmin())
        self.best = self.names[index]
        values = {key: means[index]}
        if self.log_all:
            values |= {f"{key}/{name}": mean for name, mean in zip(self.names, means, strict=True)}
        pl_module.log_dict(values, on_step=False, on_epoch=True, sync_dist=True)

    def best_head(self) -> nn.Linear:
        """The best head of the last evaluation, as a layer of its own.

        Raises:
            RuntimeError: If there was no evaluation yet.
        """
        if self.heads is None or self.best is None:
            raise RuntimeError(f"{self.caller} has judged no head yet; validate first.")
        return self.heads.linear(*divmod(self.names.index(self.best), len(self.rates)))
