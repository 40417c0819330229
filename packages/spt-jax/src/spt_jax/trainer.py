"""The training loop around the compiled steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from loguru import logger as log

from spt_jax.callbacks.base import Callback
from spt_jax.engine import Engine, State
from spt_jax.module import Module
from spt_jax.optim import create_optimizer


class Trainer:
    """Train a module, with callbacks fused into its steps.

    Logged scalars stay on the device until ``log_every_n_steps`` steps have passed and then
    come over in one transfer. A last training batch that is shorter than the first is left
    out (a contrastive loss has no mask); a last validation batch is padded and masked.

    Args:
        max_epochs: Passes over the training batches.
        callbacks: Evaluation callbacks.
        max_steps: Most optimizer steps; ``None`` for no limit.
        logger: A logger, or several, with ``log_hyperparams``, ``log_metrics``, ``save`` and
            ``finalize``.
        log_every_n_steps: Steps between transfers of logged scalars.
        seed: Of the training transform.
        progress: Print a line after each epoch.

    Attributes:
        callback_metrics: Latest value of each metric.
        current_epoch: Finished epochs.
        epoch_batches: Batches of the current epoch that were seen.
        global_step: Finished steps.
    """

    def __init__(
        self,
        max_epochs: int = 1,
        callbacks: Sequence[Callback] = (),
        max_steps: int | None = None,
        logger: Any = None,
        log_every_n_steps: int = 10,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        if max_epochs < 1 or log_every_n_steps < 1:
            raise ValueError(
                "`max_epochs` and `log_every_n_steps` must be >= 1, got "
                f"{max_epochs} and {log_every_n_steps}."
            )
        self.max_epochs = max_epochs
        self.callbacks = list(callbacks)
        self.max_steps = max_steps
        many = isinstance(logger, (list, tuple))
        self.loggers: list[Any] = list(logger) if many else [logger] if logger is not None else []
        self.log_every_n_steps = log_every_n_steps
        self.seed = seed
        self.progress = progress
        self.callback_metrics: dict[str, float] = {}
        self.current_epoch = 0
        self.global_step = 0
        self.epoch_batches = 0
        self._told_short = False
        self.engine: Engine | None = None
        self.state: State | None = None
        self.on_epoch_end: list[Callable[[Trainer], None]] = []
        self._waiting: list[tuple[int, dict[str, jax.Array]]] = []

    def fit(
        self,
        module: Module,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None = None,
        restore: Callable[[State], tuple[State, int, int]] | None = None,
    ) -> Module:
        """Train; the module holds the new weights afterwards.

        Args:
            module: What to train.
            train_loader: Batches; asked for again each epoch. ``set_epoch`` is called if present.
            val_loader: Batches to evaluate on after each epoch.
            restore: From the first state to the one to go on from, its finished epochs, and the
                batches of the next epoch that it has seen.

        Raises:
            TypeError: If the training loader can be used only once.
            ValueError: If the training loader is empty.
        """
        if iter(train_loader) is train_loader:
            raise TypeError(
                f"The training loader is a {type(train_loader).__name__}, which can be used only "
                "once; give a list, an ArrayLoader or a DataLoader."
            )
        first = next(iter(train_loader), None)
        if first is None:
            raise ValueError("The training loader gave no batch.")
        self._rows = rows_of(first)
        tx = None
        if module.settings.optim is not None:
            tx = create_optimizer(module.settings.optim, total_steps=self._total(train_loader))
        self.engine = Engine(module, tx, self.callbacks, self.seed)
        self.state = self.engine.init(arrays_of(first))
        if restore is not None:
            self.state, self.current_epoch, self.epoch_batches = restore(self.state)
            self.global_step = int(self.state["step"])
            self.engine.update(module, self.state)
        for logger in self.loggers:
            logger.log_hyperparams(module.settings.hparams)
        status = "failed"
        try:
            while not self.done:
                self._epoch(module, train_loader, val_loader)
            status = "success"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            for logger in self.loggers:
                logger.save()
                logger.finalize(status)
        return module

    def _total(self, loader: Any) -> int | None:
        if self.max_steps is not None:
            return self.max_steps
        per_epoch = whole_batches(loader)
        return None if per_epoch is None else per_epoch * self.max_epochs

    @property
    def done(self) -> bool:
        """Whether all epochs or all steps are finished."""
        return self.current_epoch >= self.max_epochs or self._no_more_steps()

    def _no_more_steps(self) -> bool:
        return self.max_steps is not None and self.global_step >= self.max_steps

    def _epoch(self, module: Module, train_loader: Any, val_loader: Any) -> None:
        started = time.perf_counter()
        assert self.engine is not None
        if hasattr(train_loader, "set_epoch"):
            train_loader.set_epoch(self.current_epoch)
        whole = False
        for i, batch in enumerate(train_loader):
            if i < self.epoch_batches:
                continue  # seen before the run was stopped
            if self._no_more_steps():
                break
            self.epoch_batches = i + 1
            if rows_of(batch) != self._rows:
                self._tell_short(rows_of(batch))
                continue
            self.state, logs = self.engine.train(self.state, arrays_of(batch))
            self.global_step += 1
            self._waiting.append((self.global_step, logs))
            if len(self._waiting) >= self.log_every_n_steps:
                self._fetch()
        else:
            whole = True
        self._fetch()
        if val_loader is not None:
            self.validate(val_loader)
        if whole:
            self.current_epoch, self.epoch_batches = self.current_epoch + 1, 0
        assert self.state is not None
        self.engine.update(module, self.state)
        for hook in self.on_epoch_end:
            hook(self)
        if self.progress:
            self._print(time.perf_counter() - started)

    def _tell_short(self, rows: int) -> None:
        if not self._told_short:
            log.warning(
                f"The last training batch has {rows} rows instead of {self._rows} and is left out in "
                "every epoch."
            )
            self._told_short = True

    def validate(self, val_loader: Iterable[Any]) -> dict[str, float]:
        """Evaluate the current weights; returns and logs the metrics."""
        assert self.engine is not None
        assert self.state is not None
        for batch in val_loader:
            padded, mask = pad(arrays_of(batch), self._rows)
            for part, rows in zip(padded, mask, strict=True):
                self.state, _ = self.engine.evaluate(self.state, part, rows)
        metrics: dict[str, float] = {}
        states = []
        for callback, own in zip(self.callbacks, self.state["callbacks"], strict=True):
            own, found = callback.finish(own)
            states.append(own)
            metrics.update(found)
        self.state = {**self.state, "callbacks": states}
        self._log({**metrics, "epoch": float(self.current_epoch)}, self.global_step)
        return metrics

    def _fetch(self) -> None:
        """Bring the waiting scalars over in one transfer."""
        fetched = jax.device_get([logs for _, logs in self._waiting])
        for (step, _), logs in zip(self._waiting, fetched, strict=True):
            self._log({name: float(value) for name, value in logs.items()}, step)
        self._waiting = []

    def _log(self, metrics: dict[str, float], step: int) -> None:
        self.callback_metrics.update(metrics)
        for logger in self.loggers:
            logger.log_metrics(metrics, step=step)

    def _print(self, seconds: float) -> None:
        shown = (f"{name} {value:.4g}" for name, value in sorted(self.callback_metrics.items()))
        head = f"epoch {self.current_epoch}/{self.max_epochs}  step {self.global_step}"
        print("  ".join([head, *shown, f"[{seconds:.0f} s]"]), flush=True)


def whole_batches(loader: Any) -> int | None:
    """Batches of full size in an epoch, as far as the loader tells."""
    rows = getattr(loader, "rows", None)
    if rows is None and hasattr(loader, "dataset") and hasattr(loader.dataset, "__len__"):
        rows = len(loader.dataset)
    size = getattr(loader, "batch_size", None)
    if rows is not None and size:
        return max(int(rows) // int(size), 1)
    return len(loader) if hasattr(loader, "__len__") else None


def arrays_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a batch, at any depth; what cannot be an array of numbers is left out.

    Raises:
        TypeError: If the batch is no mapping.
    """
    if not isinstance(batch, Mapping):
        raise TypeError(f"A batch must be a dict, got {type(batch).__name__}.")
    out: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, Mapping):
            out[name] = arrays_of(value)
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            out[name] = [arrays_of(item) for item in value]
        else:
            array = np.asarray(value)
            if array.dtype.kind in "biuf":
                out[name] = array
    return out


def rows_of(batch: Any) -> int:
    """Rows of a batch."""
    return len(jax.tree.leaves(arrays_of(batch))[0])


def pad(batch: dict[str, Any], rows: int) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Cut a batch into parts of one size, the last one filled up, with masks of real rows."""
    n = len(jax.tree.leaves(batch)[0])
    parts, masks = [], []
    for start in range(0, n, rows):
        real = min(rows, n - start)

        def part(x: np.ndarray, start: int = start, real: int = real) -> np.ndarray:
            filling = np.repeat(x[start : start + 1], rows - real, axis=0)
            return np.concatenate([x[start : start + real], filling])

        parts.append(jax.tree.map(part, batch))
        masks.append((np.arange(rows) < real).astype(np.float32))
    return parts, masks
