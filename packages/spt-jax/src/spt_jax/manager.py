"""The Manager: a run directory, checkpoints, exact resume, preemption and the registry around a Trainer."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax
from loguru import logger as log
from spt_registry import RunWriter
from spt_registry.run import (
    PreemptionGuard,
    RunDir,
    open_run_dir,
    requeue,
    resolve_identity,
    slot_in_job,
)

from spt_jax.callbacks.base import Callback
from spt_jax.checkpoint import Checkpoints
from spt_jax.engine import State
from spt_jax.module import Module
from spt_jax.placement import any_process
from spt_jax.rows import count_rows, keep_rows
from spt_jax.trainer import Trainer

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What schedulers and submitit send before they end a job."""

TRY_AGAIN = 75
"""Exit code of a preempted run (``EX_TEMPFAIL``), as the torch side's."""


class Preempted(SystemExit):
    """A run was asked to stop by the scheduler, and did so with a checkpoint.

    A program that does not catch it ends with the exit code 75, and 0 in processes other than the
    first: launchers take any other code of a single one for a crash.
    """

    def __init__(self) -> None:
        super().__init__(TRY_AGAIN if jax.process_index() == 0 else 0)

    def __str__(self) -> str:
        return "The run was preempted and can be continued."


class Manager:
    """Run a training that is recorded and goes on exactly where it was.

    A run called again with its ``run_id``, or started again by SLURM, continues from its newest
    checkpoint: killed at any step, it ends with the same weights, metrics and random state. While
    it runs, SIGTERM, SIGUSR1 and SIGUSR2 ask for a stop: after the current step, the run is saved, marked as
    ``preempted``, and SLURM is asked to start it again.

    Args:
        trainer: The training loop.
        module: What to train.
        train_loader: Training batches. Exactly the rest of an epoch follows if the loader has
            ``state_dict`` and ``load_state_dict``, or gives the same batches for the same ``set_epoch``,
            or always; a plain torch ``DataLoader`` that shuffles does not, which is warned of.
        val_loader: Validation batches.
        run_dir: The run's directory; found by its identity under ``cache_dir`` by default.
        save_every_n_epochs: Epochs between checkpoints.
        save_every_n_steps: Steps between further checkpoints; ``None`` for none.
        keep: How many of the newest checkpoints are kept.
        cache_dir: Root of the runs; that of ``spt.set(cache_dir=...)`` or the environment variable
            ``SPT_CACHE_DIR`` by default. Without one, and without ``run_dir``, nothing is recorded.
        run_id: Id of the run; by default SLURM's, torchrun's, or a random one.

    Attributes:
        run_dir: The run's directory, once it has started.
        ckpt_path: Folder of its checkpoints.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: Module,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None = None,
        run_dir: str | Path | None = None,
        save_every_n_epochs: int = 1,
        *,
        save_every_n_steps: int | None = None,
        keep: int = 2,
        cache_dir: str | Path | None = None,
        run_id: str | None = None,
    ) -> None:
        for name, value in (
            ("save_every_n_epochs", save_every_n_epochs),
            ("save_every_n_steps", save_every_n_steps),
        ):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be >= 1, got {value}.")
        self.trainer = trainer
        self.module = module
        self.train_loader = train_loader
        self.val_loader = val_loader
        self.save_every_n_epochs = save_every_n_epochs
        self.save_every_n_steps = save_every_n_steps
        self.keep = keep
        self.cache_dir = cache_dir or default_cache_dir()
        self.identity = resolve_identity(run_id=run_id)
        self.run_dir = None if run_dir is None else Path(run_dir).absolute()

    @property
    def ckpt_path(self) -> Path | None:
        """Folder of the run's checkpoints."""
        return None if self.run_dir is None else self.run_dir / "checkpoints"

    def __call__(self) -> Trainer:
        """Train, from the beginning or from the newest checkpoint.

        Raises:
            Preempted: If the scheduler asked for a stop; the run can be continued.
        """
        if self.cache_dir is None and self.run_dir is None:
            self.trainer.fit(self.module, self.train_loader, self.val_loader)
            return self.trainer
        place = self._place()
        self.run_dir = place.path
        first = jax.process_index() == 0
        if first:
            warn_if_inexact(self.train_loader)
            log.info(
                f"Run {place.run_id} {'goes on' if place.resumed else 'starts'} in {place.path}"
            )
        tags = ["jax", *self.identity.tags]
        writer = RunWriter(place.path, place.run_id, tags=tags, enabled=first)
        with guard() as signals:
            recorder = Recorder(self, writer, signals)
            self._run(recorder, writer)
        if self.trainer.stop_reason == "preempted":
            self._ask_again()
            raise Preempted
        return self.trainer

    def _place(self) -> RunDir:
        """The run's directory; the first process decides for all."""
        if self.run_dir is not None:
            return RunDir(self.run_dir, self.run_dir.name, resumed=self.run_dir.is_dir())
        assert self.cache_dir is not None
        identity = self.identity
        if identity.launcher in ("slurm", "torchrun"):
            identity = dataclasses.replace(identity, slot=slot_in_job())
        if jax.process_count() == 1:
            return open_run_dir(self.cache_dir, identity)
        return shared_run_dir(self.cache_dir, identity)

    def _run(self, recorder: Recorder, writer: RunWriter) -> None:
        """Fit with the registry's writer and the checkpoints attached, and detach them."""
        trainer = self.trainer
        if jax.process_index() == 0:
            for logger in trainer.loggers:
                if hasattr(logger, "attach"):  # a tracker, which keeps one identity in this place
                    logger.attach(writer.run_dir, writer.run_id)
        trainer.loggers.insert(0, writer)
        trainer.recorder = recorder
        try:
            trainer.fit(self.module, self.train_loader, self.val_loader, recorder.restore)
        except KeyboardInterrupt:
            raise  # the Trainer has told the loggers
        except Exception:
            writer.finalize("failed", error=traceback.format_exc())
            raise
        finally:
            recorder.checkpoints.close()
            trainer.loggers.remove(writer)
            trainer.recorder = None

    def _ask_again(self) -> None:
        if jax.process_index() == 0:
            reason = requeue()
            if reason is None:
                log.info("The run was preempted; SLURM was asked to start it again.")
            else:
                log.warning(f"The run was preempted and is not queued again. {reason}")


class Recorder(Callback):
    """Saves the run at the right moments, and stops it when the scheduler asks.

    Args:
        manager: Whose run it is.
        writer: The run's record.
        signals: What the scheduler said.
    """

    name = "recorder"

    def __init__(self, manager: Manager, writer: RunWriter, signals: PreemptionGuard) -> None:
        assert manager.ckpt_path is not None
        self.manager = manager
        self.writer = writer
        self.signals = signals
        self.metrics = manager.ckpt_path.parent / "metrics.csv"
        self.checkpoints = Checkpoints(manager.ckpt_path, manager.keep)
        self._evaluated = 0

    def restore(self, state: State) -> tuple[State, dict[str, Any]] | None:
        """The newest checkpoint; rows that were logged after it are cut off."""
        found = self.checkpoints.restore(state)
        rows = 0 if found is None else found[1].pop("rows")
        if jax.process_index() == 0:
            keep_rows(self.metrics, rows)
        return found

    def on_boundary(self, trainer: Any, module: Any) -> None:
        """Save if it is time; stop if the scheduler asks."""
        training = trainer.training
        every = self.manager.save_every_n_steps
        if self._asked(trainer):
            trainer.stop("preempted")
            if training:
                self.save(trainer)
        elif training and every and trainer.global_step % every == 0:
            self.save(trainer)

    def _asked(self, trainer: Any) -> bool:
        """Whether any process was asked; several agree every ``log_every_n_steps`` batches."""
        if jax.process_count() == 1:
            return self.signals.requested
        self._evaluated += not trainer.training
        count = trainer.global_step if trainer.training else self._evaluated
        return count % trainer.log_every_n_steps == 0 and any_process(self.signals.requested)

    def on_validation_stopped(self, trainer: Any) -> None:
        """The run was stopped inside a validation: save what was before it."""
        self.save(trainer)

    def on_epoch_end(self, trainer: Any, module: Any) -> None:
        """Save after the validation, if it is time, and at the end."""
        if trainer.done or trainer.current_epoch % self.manager.save_every_n_epochs == 0:
            self.save(trainer)

    def save(self, trainer: Any) -> None:
        """Write a checkpoint in the background."""
        state, record = trainer.snapshot()
        self.writer.save()
        record["rows"] = count_rows(self.metrics)
        path = self.checkpoints.replace(trainer.global_step, state, record)
        if path is not None:
            trainer.log_checkpoint_path(path)


def warn_if_inexact(loader: Any) -> None:
    """Say so if a run that goes on inside an epoch may not get the batches that are left of it."""
    kept = hasattr(loader, "state_dict") or hasattr(loader, "set_epoch")
    if not kept and not isinstance(loader, Sequence):
        log.warning(
            f"The training loader, a {type(loader).__name__}, has neither `state_dict` and `load_state_dict` nor "
            "`set_epoch`. A run that is stopped inside an epoch skips as many batches of a new "
            "iteration: exact only if each iteration gives the same ones, and not if they are shuffled. "
            "Give an ArrayLoader, or torchdata's StatefulDataLoader."
        )


def guard() -> AbstractContextManager[PreemptionGuard]:
    """Watch the signals; outside the main thread, where Python cannot, watch nothing."""
    if threading.current_thread() is threading.main_thread():
        return PreemptionGuard(SIGNALS)
    return nullcontext(PreemptionGuard(SIGNALS))


def default_cache_dir() -> str | None:
    """What ``spt.set(cache_dir=...)`` or the environment says.

    The shared settings are the torch side's: they are loaded already where they were set.
    """
    config = sys.modules.get("spt_manager.config")
    shared: str | None = None if config is None else config.get_config().cache_dir
    return shared or os.environ.get("SPT_CACHE_DIR")


def shared_run_dir(cache_dir: str | Path, identity: Any) -> RunDir:
    """The directory that the first process opens, told to the others."""
    import numpy as np
    from jax.experimental import multihost_utils

    text, resumed = "", False
    if jax.process_index() == 0:
        place = open_run_dir(cache_dir, identity)
        text, resumed = f"{place.run_id}\n{place.path}", place.resumed
    buffer = np.zeros(4096, np.uint8)
    content = np.frombuffer(text.encode(), np.uint8)
    buffer[: len(content)] = content
    # before 0.7 JAX adds the processes' arrays as wider numbers
    told, resumed = multihost_utils.broadcast_one_to_all((buffer, np.asarray(resumed)))
    run_id, path = bytes(np.asarray(told, np.uint8)).rstrip(b"\0").decode().split("\n")
    return RunDir(Path(path), run_id, resumed=bool(resumed))
