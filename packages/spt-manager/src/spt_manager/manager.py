"""The Manager: a thin call around a Lightning training that gives it a place on disk."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as pl
from loguru import logger
from rich.console import Console
from spt_registry import RegistryLogger
from spt_registry.run import (
    RunDir,
    RunIdentity,
    open_run_dir,
    requeue,
    resolve_identity,
    slot_in_job,
)
from spt_registry.run.files import flatten

from spt_manager.build import build, build_trainer, callbacks_of_module, check_form
from spt_manager.checkpointing import AtomicCheckpointIO, newest_good
from spt_manager.checkpointing.files import sweep
from spt_manager.config import Settings, get_config
from spt_manager.connect import (
    connect_run_dir,
    exclude_bias_norm,
    is_unasked,
    make_exact,
    refuse_taken,
)
from spt_manager.defaults import add_teacher_update, callbacks_of, insert_before_savers
from spt_manager.place import shared_place
from spt_manager.preemption import Stopped, StopRequests, let_through
from spt_manager.record import snapshot
from spt_manager.resume.rows import keep_rows
from spt_manager.status import RunStatus, end_as_failed, ending_of, leave_failed
from spt_manager.trackers import Trackers
from spt_manager.trackers.connect import upload_checkpoint


class Manager:
    """Run a training with a run directory, atomic checkpoints, resume and the registry.

    With ``spt.set(cache_dir=...)`` every run gets ``{cache_dir}/runs/{date}/{time}/{run_id}``; its
    checkpoints, metrics and status are kept there. Calling again goes on from
    ``checkpoints/last.ckpt``: the same Manager, a Manager with the same ``run_id``, or a job that
    SLURM or torchrun has started again. Without a cache directory it is ``trainer.fit``.

    Args:
        trainer: A ``lightning.Trainer``, a mapping with ``_target_``, or a function that makes one.
        module: A ``LightningModule``, in the same forms; built after seeding.
        data: A ``LightningDataModule``, in the same forms.
        seed: Seeds Python, NumPy and torch before anything is built.
        ckpt_path: Checkpoint to start from, for loading only; ignored when the run resumes.
        weights_only: Refuse to unpickle arbitrary objects from checkpoints.
        compile: Compile the module in place.
        run_id: Id of the run; by default the launcher's, or a random one.
        config: The whole configuration, for the record; by default those of the three parts. Secrets
            in it are masked.

    Raises:
        FileNotFoundError: If there is no file at ``ckpt_path``.
        TypeError: If an argument is of the wrong kind.
    """

    def __init__(
        self,
        trainer: Any,
        module: Any,
        data: Any = None,
        seed: int | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool = True,
        compile: bool = False,
        *,
        run_id: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        check_form("trainer", trainer, pl.Trainer)
        check_form("module", module, pl.LightningModule)
        if data is not None:
            check_form("data", data, pl.LightningDataModule)
        if ckpt_path is not None and not Path(ckpt_path).expanduser().exists():
            raise FileNotFoundError(f"There is no checkpoint at `ckpt_path` {str(ckpt_path)!r}.")
        self.seed = seed
        self.ckpt_path = None if ckpt_path is None else Path(ckpt_path).expanduser()
        self.weights_only = weights_only
        self.compile = compile
        self._given = {"trainer": trainer, "module": module, "data": data}
        self._config = snapshot(self._given if config is None else config)
        self._identity = resolve_identity(run_id=run_id)
        self._built = False
        self._stops = StopRequests()
        self._place: RunDir | None = None
        self._trackers: Trackers | None = None
        self._runs = 0
        self._calling = False

    @property
    def run_dir(self) -> Path | None:
        """The run's directory, once it has started with a cache directory."""
        return None if self._place is None else self._place.path

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._identity.run_id if self._place is None else self._place.run_id

    @property
    def instantiated_module(self) -> pl.LightningModule:
        """The module; built at the first access or by the run, and one object from then on."""
        self._build()
        return self.module

    @property
    def instantiated_data(self) -> Any:
        """The data; built at the first access or by the run, and one object from then on."""
        self._build()
        return self.data

    def __call__(self) -> None:
        """Train, from the beginning or from where the run stopped.

        Raises:
            Stopped: If the run was preempted or interrupted; uncaught, it is the exit code.
        """
        self._run("fit")

    def validate(self) -> Any:
        """Run ``trainer.validate``."""
        return self._run("validate")

    def test(self) -> Any:
        """Run ``trainer.test``."""
        return self._run("test")

    def predict(self) -> Any:
        """Run ``trainer.predict``."""
        return self._run("predict")

    def save_checkpoint(
        self, path: str | Path | None = None, upload_wandb: bool = False, verbose: bool = True
    ) -> Path:
        """Save the state of the trainer.

        Args:
            path: Where; ``checkpoints/checkpoint.ckpt`` in the run directory by default.
            upload_wandb: Log it to W&B too, as the artifact ``requeue_checkpoint``.
            verbose: Say where it is.

        Raises:
            RuntimeError: If the Manager was not called yet.
            ValueError: If there is neither a path nor a run directory, or no W&B logger.
        """
        if self._runs == 0:
            raise RuntimeError("There is nothing to save yet: call the Manager first.")
        if path is None:
            if self.run_dir is None:
                raise ValueError("Give `path`: without a cache directory there is no default.")
            path = self.run_dir / "checkpoints" / "checkpoint.ckpt"
        try:
            self._save(Path(path), upload_wandb)
        finally:
            if self._trackers is not None and not self._calling:
                self._trackers.end(failed=False)  # saving has opened them again
        if verbose and self.trainer.is_global_zero:
            logger.info(f"The checkpoint {path} is saved.")
        return Path(path)

    def _save(self, path: Path, upload_wandb: bool) -> None:
        self.trainer.save_checkpoint(path)
        io = self.trainer.strategy.checkpoint_io
        if isinstance(io, AtomicCheckpointIO):
            io.wait()
            if io.error is not None:
                raise io.error
        if upload_wandb:
            upload_checkpoint(self.trainer, path)

    def _run(self, what: str) -> Any:
        """Build the parts once, take the directory, connect them, and call the trainer."""
        settings = get_config()
        with self._stops.watch() if settings.cache_dir is not None else let_through():
            self._build_trainer()
            with self._placed(settings, what):
                self._build_rest(settings)
                ckpt_path = self._starting_point(what)
                self._runs += what == "fit"
                return self._call(what, ckpt_path)

    def _build(self) -> None:
        self._build_trainer()
        self._build_rest(get_config())

    def _build_trainer(self) -> None:
        if self._built:
            return
        if self.seed is not None:
            pl.seed_everything(self.seed, workers=True, verbose=False)
        self.trainer: pl.Trainer
        self.trainer, self._waiting = build_trainer(self._given["trainer"])
        self._root = str(self.trainer.default_root_dir)

    def _build_rest(self, settings: Settings) -> None:
        if self._built:
            return
        self.module: pl.LightningModule = build("module", self._given["module"], pl.LightningModule)
        self.data: Any = self._given["data"]
        if self.data is not None:
            self.data = build("data", self.data, pl.LightningDataModule)
        if settings.exclude_bias_norm:
            exclude_bias_norm(self.module)
        insert_before_savers(self.trainer, callbacks_of_module(self._waiting, self.module))
        add_teacher_update(self.trainer, self.module)
        if self.compile:
            self.module.compile()
        self._built = True

    @contextmanager
    def _placed(self, settings: Settings, what: str) -> Iterator[None]:
        """Hold the run's directory, if there is a cache directory."""
        cache_dir = settings.cache_dir
        if cache_dir is None:
            yield
            return
        known = self._place

        def find() -> RunDir:
            return known or open_run_dir(cache_dir, self._in_job())

        with shared_place(self.trainer, find) as place:
            self._place = place
            if self.trainer.is_global_zero:
                for folder in (place.path, place.path / "checkpoints"):
                    sweep(folder)
                verb = "goes on" if place.resumed or known else "starts"
                Console(soft_wrap=True).print(f"Run {place.run_id} {verb} in {place.path}")
            if known is None:
                refuse_taken(self.trainer)
                connect_run_dir(self.trainer, place.path, settings)
                make_exact(self.trainer, place.path, self._stops, settings)
            with self._failures_recorded(place):
                self._connect_registry(settings, what)
                self._connect_trackers(place, new=known is None)
                yield

    @contextmanager
    def _failures_recorded(self, place: RunDir) -> Iterator[None]:
        """End a run that fails where the Trainer does not see it, with its traceback."""
        try:
            yield
        except Exception as error:
            if self.trainer.is_global_zero and ending_of(place.path) in (None, "running"):
                end_as_failed(self.trainer, error)
            raise

    def _in_job(self) -> RunIdentity:
        if self._identity.launcher in ("slurm", "torchrun"):
            return dataclasses.replace(self._identity, slot=slot_in_job())
        return self._identity

    def _connect_registry(self, settings: Settings, what: str) -> None:
        assert self._place is not None
        found = [entry for entry in self.trainer.loggers if isinstance(entry, RegistryLogger)]
        if not found and not settings.default_loggers.get("registry", True):
            return
        registry = found[0] if found else RegistryLogger()
        before = ending_of(self._place.path)
        if registry.run_dir not in (None, self._place.path):
            logger.warning(
                f"The registry writes to {self._place.path} instead of {registry.run_dir}."
            )
            registry.run_dir = self._place.path
        registry.attach(self._place.path, self.run_id, self._identity.tags)
        if what != "fit":  # being judged does not complete a run
            registry.outcome = "interrupted" if before == "running" else before
        registry.config = self._config
        # our files replace what Lightning writes unasked
        kept = [
            e for e in self.trainer.loggers if e is not registry and not is_unasked(e, self._root)
        ]
        self.trainer.loggers = [registry, *kept]
        if registry.config and self.trainer.is_global_zero:
            registry.log_hyperparams(flatten(registry.config))
        callbacks = callbacks_of(self.trainer)
        if not any(isinstance(entry, RunStatus) for entry in callbacks):
            callbacks.insert(0, RunStatus(registry, self._place.path))

    def _connect_trackers(self, place: RunDir, new: bool) -> None:
        if new:
            self._trackers = Trackers(flatten(self._config))
            callbacks_of(self.trainer).append(self._trackers)
            if self.trainer.is_global_zero:
                self._trackers.connect(self.trainer, place.path, place.run_id)

    def _starting_point(self, what: str) -> Path | None:
        """The checkpoint to load: the run's own when it goes on, else the user's."""
        if self._place is not None and (self._place.resumed or self._runs > 0):
            own = newest_good(self._place.path / "checkpoints")
            if own is not None:
                logger.info(f"The run goes on from {own}.")
                return own
            if what == "fit" and self.trainer.is_global_zero:  # it died before its first checkpoint
                keep_rows(self._place.path / "metrics.csv", 0)
        return self.ckpt_path

    def _call(self, what: str, ckpt_path: Path | None) -> Any:
        method = getattr(self.trainer, what)
        options: dict[str, Any] = {"ckpt_path": None if ckpt_path is None else str(ckpt_path)}
        if "weights_only" in inspect.signature(method).parameters:
            options["weights_only"] = self.weights_only
        failed = self._calling = True
        try:
            found = method(self.module, datamodule=self.data, **options)
            failed = False
            return found
        except Stopped as stopped:
            failed = False
            self._end_trackers(failed)  # before SLURM ends this job to start it again
            if stopped.reason == "preempted" and self.trainer.is_global_zero:
                logger.info(requeue() or "SLURM was asked to start this job again.")
            raise
        except Exception as error:
            if not self.trainer.is_global_zero and self.run_dir is not None:
                leave_failed(self.run_dir, error)
            raise
        finally:
            self._calling = False
            self._end_trackers(failed)

    def _end_trackers(self, failed: bool) -> None:
        if self._trackers is not None:
            self._trackers.end(failed)
