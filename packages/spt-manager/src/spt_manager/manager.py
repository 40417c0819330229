"""The Manager: a thin call around a Lightning training that gives it a place on disk."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path
from typing import Any

import lightning as pl
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from loguru import logger
from rich.console import Console
from spt_callbacks import LoggingCallback
from spt_registry import RegistryLogger
from spt_registry.run import RunDir, open_run_dir, resolve_identity
from spt_registry.run.files import flatten

from spt_manager.boundaries import Boundaries, EvaluationStops
from spt_manager.build import build, check_form, snapshot
from spt_manager.checkpointing import AtomicCheckpointIO, LastCheckpoint, newest_good
from spt_manager.config import Settings, get_config
from spt_manager.preemption import OurSignals, Stopped, StopRequests, requeue
from spt_manager.resume import ExactState, install_exact_loops


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
        self._identity = resolve_identity(run_id=run_id)
        self._built = False
        self._stops = StopRequests()
        self._place: RunDir | None = None
        self._runs = 0

    @property
    def run_dir(self) -> Path | None:
        """The run's directory, once it has started with a cache directory."""
        return None if self._place is None else self._place.path

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._identity.run_id

    def __call__(self) -> None:
        """Train, from the beginning or from where the run stopped."""
        self._prepare()
        ckpt_path = self._starting_point()
        self._runs += 1
        self._call("fit", ckpt_path)

    def validate(self) -> Any:
        """Run ``trainer.validate``."""
        self._prepare()
        return self._call("validate", self._starting_point())

    def test(self) -> Any:
        """Run ``trainer.test``."""
        self._prepare()
        return self._call("test", self._starting_point())

    def predict(self) -> Any:
        """Run ``trainer.predict``."""
        self._prepare()
        return self._call("predict", self._starting_point())

    def save_checkpoint(self, path: str | Path | None = None) -> Path:
        """Save the state of the trainer.

        Args:
            path: Where; ``checkpoints/checkpoint.ckpt`` in the run directory by default.

        Raises:
            ValueError: If there is neither a path nor a run directory.
        """
        if path is None:
            if self.run_dir is None:
                raise ValueError("Give `path`: without a cache directory there is no default.")
            path = self.run_dir / "checkpoints" / "checkpoint.ckpt"
        self.trainer.save_checkpoint(path)
        return Path(path)

    def _prepare(self) -> None:
        """Find the directory, build the parts once, and connect them."""
        settings = get_config()
        if settings.cache_dir is not None and self._place is None:
            self._place = open_run_dir(settings.cache_dir, self._identity)
            Console(soft_wrap=True).print(
                f"Run {self.run_id} {'goes on' if self._place.resumed else 'starts'} in {self.run_dir}"
            )
        if not self._built:
            self._build()
            if self._place is not None:
                connect_run_dir(self.trainer, self._place.path, settings)
                self._make_exact(settings)
            self._built = True
        if self._place is not None:
            self._connect_registry(settings)

    def _build(self) -> None:
        if self.seed is not None:
            pl.seed_everything(self.seed, workers=True, verbose=False)
        root = {} if self.run_dir is None else {"default_root_dir": str(self.run_dir)}
        self.trainer: pl.Trainer = build("trainer", self._given["trainer"], pl.Trainer, **root)
        self.module: pl.LightningModule = build("module", self._given["module"], pl.LightningModule)
        self.data: Any = self._given["data"]
        if self.data is not None:
            self.data = build("data", self.data, pl.LightningDataModule)
        if self.compile:
            self.module.compile()

    def _make_exact(self, settings: Settings) -> None:
        assert self.run_dir is not None
        state, saver = ExactState(self.run_dir / "metrics.csv"), None
        callbacks = callbacks_of(self.trainer)
        if settings.requeue_checkpoint:
            steps = settings.requeue_checkpoint_every_n_steps
            saver = LastCheckpoint(self.run_dir / "checkpoints", steps)
            callbacks.append(saver)
        boundaries = Boundaries(state, self._stops, saver)
        callbacks += [state, EvaluationStops(boundaries)]
        install_exact_loops(self.trainer, state, boundaries)
        self.trainer._signal_connector = OurSignals(self.trainer)

    def _connect_registry(self, settings: Settings) -> None:
        assert self._place is not None
        found = [entry for entry in self.trainer.loggers if isinstance(entry, RegistryLogger)]
        if not found and not settings.default_loggers.get("registry", True):
            return
        registry = found[0] if found else RegistryLogger()
        registry.attach(self._place.path, self.run_id, self._identity.tags)
        registry.config = snapshot(**self._given)
        # our files replace what Lightning writes unasked
        kept = [e for e in self.trainer.loggers if e is not registry and not is_unasked(e)]
        self.trainer.loggers = [registry, *kept]
        if registry.config and self.trainer.is_global_zero:
            registry.log_hyperparams(flatten(registry.config))
        callbacks = callbacks_of(self.trainer)
        if not any(isinstance(entry, RunStatus) for entry in callbacks):
            callbacks.insert(0, RunStatus(registry))

    def _starting_point(self) -> Path | None:
        """The checkpoint to load: the run's own when it goes on, else the user's."""
        if self._place is not None and (self._place.resumed or self._runs > 0):
            own = newest_good(self._place.path / "checkpoints")
            if own is not None:
                logger.info(f"The run goes on from {own}.")
                return own
        return self.ckpt_path

    def _call(self, what: str, ckpt_path: Path | None) -> Any:
        method = getattr(self.trainer, what)
        options: dict[str, Any] = {"ckpt_path": None if ckpt_path is None else str(ckpt_path)}
        if "weights_only" in inspect.signature(method).parameters:
            options["weights_only"] = self.weights_only
        try:
            with self._stops.watch():
                return method(self.module, datamodule=self.data, **options)
        except Stopped as stopped:
            if stopped.reason == "preempted" and self.trainer.is_global_zero:
                requeue()
            raise


class RunStatus(pl.Callback):
    """Tells the registry how a run ended, before Lightning closes its loggers.

    Args:
        registry: The run's logger.
    """

    def __init__(self, registry: RegistryLogger) -> None:
        self.registry = registry

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Record the error, and whether it was the user who stopped."""
        if isinstance(exception, Stopped):
            self.registry.outcome = exception.reason
            return
        stopped = isinstance(exception, KeyboardInterrupt)
        self.registry.outcome = "interrupted" if stopped else "failed"
        self.registry.error = "".join(traceback.format_exception(exception))


def is_unasked(entry: Any) -> bool:
    """Whether Lightning made this logger because none was given."""
    if type(entry) is CSVLogger:
        return True
    return type(entry) is TensorBoardLogger and entry.name == "lightning_logs"


def callbacks_of(trainer: pl.Trainer) -> list[Any]:
    """The trainer's own list of callbacks, in the order in which they are called."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def connect_run_dir(trainer: pl.Trainer, run_dir: Path, settings: Settings) -> None:
    """Send what a trainer writes into the run's directory.

    Args:
        trainer: Made by the user or from a configuration.
        run_dir: The run's directory.
        settings: Which savers and callbacks to add.
    """
    folder = run_dir / "checkpoints"
    trainer._default_root_dir = str(run_dir)  # type: ignore[attr-defined]
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    callbacks = callbacks_of(trainer)
    for saver in callbacks:
        if isinstance(saver, ModelCheckpoint):
            if saver.dirpath is not None and Path(saver.dirpath) != folder:
                logger.warning(f"Checkpoints go to {folder} instead of {saver.dirpath}.")
            saver.dirpath = str(folder)
    if settings.default_callbacks.get("logging", True) and not any(
        isinstance(entry, LoggingCallback) for entry in callbacks
    ):
        first_saver = [i for i, entry in enumerate(callbacks) if isinstance(entry, Checkpoint)]
        callbacks.insert(first_saver[0] if first_saver else len(callbacks), LoggingCallback())
