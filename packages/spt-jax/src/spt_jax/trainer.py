"""The Trainer: settings, state, and the entry points ``fit``, ``validate``, ``test`` and ``predict``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
from loguru import logger as log

from spt_jax.batches import arrays_of, rows_of
from spt_jax.callbacks.base import Callback
from spt_jax.engine import Engine, Plan, State
from spt_jax.feed import batches_of, check_limit
from spt_jax.loader_state import decoded, encoded
from spt_jax.loops import evaluation_loop, predict_loop, training_loop
from spt_jax.module import Module, Stage
from spt_jax.optim import build_optimizer
from spt_jax.placement import Placement
from spt_jax.precision import Precision, check_precision
from spt_jax.progress import RunProgress

STATUSES = ("preempted", "interrupted", "failed")
"""Reasons of a stop that are a run's status for loggers."""

Limit = int | float | None
Restore = Callable[[State], "tuple[State, dict[str, Any]] | None"]


class Trainer:
    """Train a module, with callbacks fused into its steps.

    Logged scalars are summed on the device and come over in one transfer every
    ``log_every_n_steps`` steps. All steps have the shape of the first batch: a ragged last batch is
    completed with rows of the first one, which have the weight 0 in ``batch["sample_weight"]``; losses
    of single rows, callbacks and metrics leave them out.

    Args:
        max_epochs: Passes over the training batches.
        callbacks: Evaluation callbacks and hooks.
        max_steps: Most optimizer steps; ``None`` or a number below 1 for no limit.
        enable_validation: Evaluate on the validation loader, if there is one.
        data_parallel: Split each batch over all visible devices, those of other processes included
            (after ``jax.distributed.initialize()``; each process loads its own part of the batch).
        logger: A logger, or several, with ``log_hyperparams``, ``log_metrics``, ``save`` and
            ``finalize``.
        precision: ``"f32"``, or ``"bf16"``: activations in bfloat16, weights, statistics and losses
            in float32.
        accumulate_grad_batches: Batches of an optimizer step.
        gradient_clip_val: Largest norm of all gradients together.
        check_val_every_n_epoch: Epochs between validations.
        limit_train_batches: Batches of an epoch: a number, or a fraction as a float.
        limit_val_batches: The same for validation.
        limit_test_batches: The same for testing.
        limit_predict_batches: The same for prediction.
        log_every_n_steps: Steps between transfers of logged scalars.
        seed: Of the training transform, together with the module's ``aug_seed``.
        progress: Show the progress.

    Attributes:
        callback_metrics: Latest value of each metric.
        current_epoch: Finished epochs.
        epoch_batches: Batches of the current epoch that were used.
        global_step: Finished optimizer steps.
        should_stop: Set it to end the run after the current step.
        stop_reason: Why, such as ``"preempted"``.
    """

    def __init__(
        self,
        max_epochs: int = 1,
        callbacks: Sequence[Callback] = (),
        max_steps: int | None = None,
        enable_validation: bool = True,
        data_parallel: bool = False,
        logger: Any = None,
        *,
        precision: Precision = "f32",
        accumulate_grad_batches: int = 1,
        gradient_clip_val: float | None = None,
        check_val_every_n_epoch: int = 1,
        limit_train_batches: Limit = None,
        limit_val_batches: Limit = None,
        limit_test_batches: Limit = None,
        limit_predict_batches: Limit = None,
        log_every_n_steps: int = 10,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        for name, value in (
            ("max_epochs", max_epochs),
            ("accumulate_grad_batches", accumulate_grad_batches),
            ("check_val_every_n_epoch", check_val_every_n_epoch),
            ("log_every_n_steps", log_every_n_steps),
        ):
            if value < 1:
                raise ValueError(f"`{name}` must be >= 1, got {value}.")
        if gradient_clip_val is not None and not gradient_clip_val > 0:
            raise ValueError(f"`gradient_clip_val` must be > 0 or None, got {gradient_clip_val}.")
        check_precision(precision)
        self.limits: dict[str, Limit] = {
            "fit": limit_train_batches,
            "validate": limit_val_batches,
            "test": limit_test_batches,
            "predict": limit_predict_batches,
        }
        for name, limit in zip(
            ("train", "val", "test", "predict"), self.limits.values(), strict=True
        ):
            check_limit(f"limit_{name}_batches", limit)
        self.max_epochs = max_epochs
        self.callbacks = list(callbacks)
        self.max_steps = max_steps if max_steps is not None and max_steps > 0 else None
        self.enable_validation = enable_validation
        self.data_parallel = data_parallel
        many = isinstance(logger, (list, tuple))
        self.loggers: list[Any] = list(logger) if many else [logger] if logger is not None else []
        self.precision = precision
        self.accumulate_grad_batches = accumulate_grad_batches
        self.gradient_clip_val = gradient_clip_val
        self.check_val_every_n_epoch = check_val_every_n_epoch
        self.log_every_n_steps = log_every_n_steps
        self.seed = seed
        self.bar = RunProgress(max_epochs, enabled=progress and jax_process_is_first())
        self.callback_metrics: dict[str, float] = {}
        self.current_epoch = self.epoch_batches = self.global_step = 0
        self.train_epoch_ended = False  # this epoch's `on_train_epoch_end` has run
        self.loader_state: Any = None
        self.should_stop = False
        self.stop_reason: str | None = None
        self.engine: Engine | None = None
        self.state: State | None = None
        self.first: dict[str, Any] = {}
        self.rows = 0
        self._module: Module | None = None
        self._fitting = False
        self.placement: Placement | None = None
        self.recorder: Any = None  # the Manager's, for the time of a run
        self.training = False

    def fit(
        self,
        module: Module,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None = None,
        resume_from: str | Path | Restore | None = None,
    ) -> Module:
        """Train; the module holds the new weights afterwards.

        Args:
            module: What to train.
            train_loader: Batches; asked for again each epoch. ``set_epoch`` is called if present, and
                ``state_dict`` and ``load_state_dict`` if both are.
            val_loader: Batches to evaluate on.
            resume_from: A folder of checkpoints to go on from, or a function from the first state
                to the one to go on from and its record (``None`` to begin anew).

        Raises:
            FileNotFoundError: If ``resume_from`` holds no checkpoint.
            TypeError: If the training loader can be used only once.
            ValueError: If a loader is empty.
        """
        status = "failed"
        try:
            self.hook("setup", module, "fit")
            self._begin(module, train_loader, resume_from)
            self._fitting = True
            for logger in self.loggers:
                logger.log_hyperparams(module.settings.hparams)
            self.hook("on_fit_start", module)
            training_loop(self, module, train_loader, val_loader)
            self.write_back(module)
            self.hook("on_fit_end", module)
            status = self.stop_reason if self.stop_reason in STATUSES else "success"
        except KeyboardInterrupt:
            status = "interrupted"
            self._keep_weights(module)
            raise
        finally:
            self._fitting = False
            self.bar.close()
            for logger in self.loggers:
                logger.save()
                logger.finalize(status)
        return module

    def _begin(
        self, module: Module, train_loader: Any, resume_from: str | Path | Restore | None
    ) -> None:
        """Compile nothing yet: the first state, or the one of a checkpoint."""
        check_reusable(train_loader)
        if hasattr(train_loader, "set_epoch"):
            train_loader.set_epoch(0)
        self.should_stop, self.stop_reason = False, None
        self._start(module, train_loader, "fit")
        if resume_from is None:
            return
        assert self.state is not None
        if callable(resume_from):
            found = resume_from(self.state)
        else:
            from spt_jax.checkpoint import resume

            found = resume(resume_from, self.state)
        if found is not None:
            self._restore(*found)
            self.write_back(module)

    def _keep_weights(self, module: Module) -> None:
        """Write the weights of an interrupted run back, unless they were donated to a step."""
        held = jax.tree.leaves(self.state)
        if self._fitting and not any(leaf.is_deleted() for leaf in held):
            self.write_back(module)

    def _start(self, module: Module, loader: Any, stage: Stage) -> None:
        """Build the engine for a module and the shape of a loader's first batch."""
        first = next(iter(loader), None)
        if first is None:
            kind = "training" if stage == "fit" else stage
            raise ValueError(f"The {kind} loader gave no batch.")
        self.first = arrays_of(first)
        self.rows = rows_of(self.first)
        steps = self.steps_per_epoch(loader) if stage == "fit" else None
        total = self._total_steps(steps)
        optimizer = build_optimizer(
            module.settings.optim if stage == "fit" else None,
            total_steps=total,
            steps_per_epoch=steps,
            gradient_clip_val=self.gradient_clip_val,
        )
        plan = Plan(
            tx=optimizer.tx,
            rate=optimizer.rate,
            total_steps=total,
            accumulate=self.accumulate_grad_batches,
            precision=self.precision,
            seed=self.seed + module.settings.aug_seed,
            wants_outputs=any(c.reads_outputs("train") for c in self.callbacks),
            wants_eval_outputs=any(c.reads_outputs("val") for c in self.callbacks),
        )
        self.placement = Placement(self.data_parallel)
        self.placement.check_rows(self.rows)
        # a prediction runs no callback: its data need not have what they read
        callbacks = [] if stage == "predict" else self.callbacks
        self.engine = Engine(module, callbacks, self.placement, plan)
        weighted = self.placement.batch(with_weight(self.first, self.rows))
        self.state = self.engine.init(weighted, stage)
        self._module = module
        self.current_epoch = self.epoch_batches = self.global_step = 0
        self.train_epoch_ended = False
        self.loader_state = None

    def steps_per_epoch(self, loader: Any) -> int | None:
        """Optimizer steps of an epoch, as far as the loader tells."""
        batches = batches_of(loader, self.limits["fit"])
        return None if batches is None else -(-batches // self.accumulate_grad_batches)

    def _total_steps(self, steps_per_epoch: int | None) -> int | None:
        totals = [self.max_steps] if self.max_steps is not None else []
        if steps_per_epoch is not None:
            totals.append(steps_per_epoch * self.max_epochs)
        return min(totals) if totals else None

    def snapshot(self) -> tuple[State, dict[str, Any]]:
        """The arrays of the run, and its record: everything that an exact continuation needs."""
        assert self.state is not None
        record = {
            "current_epoch": self.current_epoch,
            "epoch_batches": self.epoch_batches,
            "global_step": self.global_step,
            "train_epoch_ended": self.train_epoch_ended,
            "loader": encoded(self.loader_state),
            "callback_metrics": self.callback_metrics,
            "callbacks": [callback.state_dict() for callback in self.callbacks],
        }
        return self.state, record

    def _restore(self, state: State, record: dict[str, Any]) -> None:
        assert self.placement is not None
        self.state = self.placement.state(state)
        self.current_epoch = record["current_epoch"]
        self.epoch_batches = record["epoch_batches"]
        self.global_step = record["global_step"]
        self.train_epoch_ended = record.get("train_epoch_ended", False)
        self.loader_state = decoded(record["loader"])
        self.callback_metrics = dict(record["callback_metrics"])
        for callback, own in zip(self.callbacks, record["callbacks"], strict=True):
            callback.load_state_dict(own)
        log.info(f"The run goes on at epoch {self.current_epoch}, step {self.global_step}.")

    @property
    def done(self) -> bool:
        """Whether all epochs or all steps are finished, or a stop was asked for."""
        return self.should_stop or self.current_epoch >= self.max_epochs or self.no_more_steps

    @property
    def no_more_steps(self) -> bool:
        """Whether ``max_steps`` is reached."""
        return self.max_steps is not None and self.global_step >= self.max_steps

    def validate(self, module: Module, loader: Iterable[Any]) -> dict[str, float]:
        """Evaluate the module's current weights; returns and logs the metrics.

        After ``fit`` with the same module the callbacks are those of the run: its probes and banks.
        """
        return self._evaluate(module, loader, "validate")

    def test(self, module: Module, loader: Iterable[Any]) -> dict[str, float]:
        """As :meth:`validate`; metrics are named ``test/...``."""
        return self._evaluate(module, loader, "test")

    def _evaluate(self, module: Module, loader: Iterable[Any], stage: Stage) -> dict[str, float]:
        self._ready(module, loader, stage)
        metrics = evaluation_loop(self, module, loader, stage) or {}
        self.log_metrics(metrics)
        self.hook("on_validation_epoch_end", module)
        return metrics

    def predict(self, module: Module, loader: Iterable[Any]) -> list[dict[str, Any]]:
        """The forward function's dict of each batch, as NumPy arrays of the batch's own rows."""
        self._ready(module, loader, "predict")
        return predict_loop(self, loader)

    def _ready(self, module: Module, loader: Iterable[Any], stage: Stage) -> None:
        """Use the run's engine for its module, or build one without an optimizer."""
        self.hook("setup", module, stage)
        engine = self.engine
        complete = engine is not None and (
            stage == "predict" or len(engine.callbacks) == len(self.callbacks)
        )
        if engine is None or self._module is not module or not complete:
            self._start(module, loader, stage)
        elif not self._fitting:  # inside of fit the newest weights are the state's
            assert self.state is not None
            self.state = engine.with_weights_of(module, self.state)

    def write_back(self, module: Module | None = None) -> None:
        """Copy the current weights into the live module."""
        module = module or self._module
        assert self.engine is not None
        assert self.state is not None
        assert module is not None
        self.engine.update(module, self.state)

    def log(self, name: str, value: float) -> None:
        """Log one number now, for hooks."""
        self.log_metrics({name: float(value)})

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Give numbers to the loggers at the current step, and keep them in ``callback_metrics``."""
        self.callback_metrics.update(metrics)
        row = {**metrics, "epoch": float(self.current_epoch)}
        for logger in self.loggers:
            logger.log_metrics(row, step=self.global_step)

    def log_checkpoint_path(self, path: str | Path) -> None:
        """Tell loggers that have ``log_checkpoint`` or ``after_save_checkpoint`` where the newest is."""
        for logger in self.loggers:
            if hasattr(logger, "log_checkpoint"):
                logger.log_checkpoint(last=str(path))
            elif hasattr(logger, "after_save_checkpoint"):
                logger.after_save_checkpoint(SavedCheckpoint(str(path)))

    def stop(self, reason: str | None = None) -> None:
        """Ask the run to end after the current step.

        Args:
            reason: Kept as ``stop_reason``. ``"preempted"``, ``"interrupted"`` and ``"failed"`` are told to
                the loggers as the run's status; after any other the run is a ``success``.
        """
        self.should_stop, self.stop_reason = True, reason

    def hook(self, name: str, module: Module, *more: Any) -> None:
        """Call a hook of every callback, in their order."""
        for callback in (
            self.callbacks if self.recorder is None else [*self.callbacks, self.recorder]
        ):
            getattr(callback, name)(self, module, *more)


class SavedCheckpoint:
    """What loggers of the torch side read after a save.

    Args:
        path: The newest checkpoint.
    """

    def __init__(self, path: str) -> None:
        self.last_model_path = path
        self.best_model_path: str | None = None


def check_reusable(loader: Any) -> None:
    """Refuse a loader that can be used only once.

    Raises:
        TypeError: If it is its own iterator.
    """
    if iter(loader) is loader:
        raise TypeError(
            f"The training loader is a {type(loader).__name__}, which can be used only "
            "once; give a list, an ArrayLoader or a DataLoader."
        )


def with_weight(arrays: dict[str, Any], rows: int) -> dict[str, Any]:
    """A whole batch with its row weights."""
    from spt_jax.batches import filled

    return filled(arrays, rows, arrays)


def jax_process_is_first() -> bool:
    """Whether this is the process that talks; asks the environment, not a device."""
    from spt_registry.run import is_global_zero

    return is_global_zero()
