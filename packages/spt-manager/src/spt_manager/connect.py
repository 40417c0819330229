"""What the Manager changes in a Trainer: where it writes, its loops, its loggers and callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as pl
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.data import _auto_add_worker_init_fn
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from loguru import logger

from spt_manager.boundaries import Boundaries, EvaluationStops
from spt_manager.checkpointing import AtomicCheckpointIO, LastCheckpoint
from spt_manager.config import Settings
from spt_manager.defaults import add_default_callbacks, callbacks_of
from spt_manager.preemption import OurSignals, StopRequests
from spt_manager.resume import ExactFitLoop, ExactState, install_exact_loops
from spt_manager.workers import quieten


def is_unasked(entry: Any, root: str) -> bool:
    """Whether Lightning made this logger because none was given.

    Args:
        entry: A logger of the trainer.
        root: The trainer's ``default_root_dir`` when it was made, where such a logger writes.
    """
    if type(entry) is CSVLogger:
        return True
    by_default = type(entry) is TensorBoardLogger and entry.name == "lightning_logs"
    return by_default and str(entry.save_dir) == root


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
        trainer.strategy.checkpoint_io = AtomicCheckpointIO(
            background=settings.background_checkpoint, go_on=True
        )
    for saver in callbacks_of(trainer):
        if isinstance(saver, ModelCheckpoint):
            if saver.dirpath is not None and Path(saver.dirpath) != folder:
                logger.warning(f"Checkpoints go to {folder} instead of {saver.dirpath}.")
            saver.dirpath = str(folder)
    add_default_callbacks(trainer, settings)


def refuse_taken(trainer: pl.Trainer) -> None:
    """Refuse a Trainer that another Manager has connected to its own run.

    Raises:
        RuntimeError: If it is one.
    """
    if isinstance(trainer.fit_loop, ExactFitLoop):
        raise RuntimeError(
            f"This Trainer belongs to another Manager, whose run is in {trainer.default_root_dir}; make "
            "a Trainer for each Manager."
        )


def make_exact(trainer: pl.Trainer, run_dir: Path, stops: StopRequests, settings: Settings) -> None:
    """Let a trainer stop and go on at any batch.

    Args:
        trainer: Its loops and signal handlers are replaced.
        run_dir: The run's directory.
        stops: Whether somebody asked for a stop.
        settings: Whether and how often ``last.ckpt`` is saved.
    """
    state, saver = ExactState(run_dir / "metrics.csv"), None
    callbacks = callbacks_of(trainer)
    if settings.requeue_checkpoint:
        steps = settings.requeue_checkpoint_every_n_steps
        saver = LastCheckpoint(run_dir / "checkpoints", steps)
        callbacks.append(saver)
    boundaries = Boundaries(state, stops, saver)
    callbacks += [state, EvaluationStops(boundaries)]
    install_exact_loops(trainer, state, boundaries)
    quieten_workers(trainer)
    trainer._signal_connector = OurSignals(trainer)


def quieten_workers(trainer: pl.Trainer) -> None:
    """Let the workers of each loader that the trainer takes up leave signals to this process."""
    strategy: Any = trainer.strategy
    process = strategy.process_dataloader

    def quiet(loader: Any) -> Any:
        _auto_add_worker_init_fn(loader, trainer.global_rank)  # ours comes after Lightning's
        quieten(loader)
        return process(loader)

    strategy.process_dataloader = quiet


def exclude_bias_norm(module: pl.LightningModule) -> None:
    """Give a module's ``optim`` the setting, unless its optimizer says something itself."""
    given = getattr(module, "optim", None)
    optim: Any = {"optimizer": given} if isinstance(given, (str, type)) else given
    if not isinstance(optim, Mapping) or "optimizer" not in optim:
        return
    optimizer = optim["optimizer"]
    if isinstance(optimizer, (str, type)):
        optimizer = {"type": optimizer}
    if isinstance(optimizer, Mapping):
        module.optim = {  # type: ignore[assignment]
            **optim,
            "optimizer": {"exclude_bias_norm": True, **optimizer},
        }
