"""All trackers of a run: their identities on disk, and what they are told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as pl
from lightning.pytorch.loggers import Logger
from loguru import logger as log
from spt_registry import RegistryLogger
from spt_registry.run import atomic_write_json

from spt_manager.trackers.base import Identity, Tracker
from spt_manager.trackers.swanlab import SwanLabTracker
from spt_manager.trackers.tensorboard import TensorBoardTracker
from spt_manager.trackers.trackio import TrackioTracker
from spt_manager.trackers.wandb import WandbTracker

TRACKERS: tuple[Tracker, ...] = (
    WandbTracker(),
    TrackioTracker(),
    SwanLabTracker(),
    TensorBoardTracker(),
)


class Trackers(pl.Callback):
    """Gives each tracker's logger the identity it had in this run directory, or a new one.

    The identity is written before training; it is read from the run's directory alone.

    Args:
        config: The flat configuration, sent to the loggers once.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.found: list[tuple[Tracker, Logger]] = []

    @property
    def state_key(self) -> str:
        """One of a kind."""
        return "spt_manager.Trackers"

    def connect(self, trainer: pl.Trainer, run_dir: Path, run_id: str) -> None:
        """Find the loggers and anchor them; called on rank 0.

        Raises:
            RuntimeError: If a tracker that keeps one identity has several loggers.
        """
        for tracker in TRACKERS:
            loggers = [entry for entry in trainer.loggers if tracker.owns(entry)]
            if len(loggers) > 1:
                raise RuntimeError(
                    f"A run has one {tracker.logger_class}, got {len(loggers)}; keep one."
                )
            for entry in loggers:
                self._anchor(tracker, entry, run_dir, run_id)
                self.found.append((tracker, entry))

    def _anchor(self, tracker: Tracker, entry: Logger, run_dir: Path, run_id: str) -> None:
        path = run_dir / f"{tracker.name}_resume.json"
        new, known = tracker.identity(entry, run_id), read_identity(path)
        differing = [
            f"{name} {known[name]!r}, now {new[name]!r}"
            for name in tracker.same
            if known and name in known and name in new and known[name] != new[name]
        ]
        if differing:
            log.error(
                f"{path.name} is of another place ({'; '.join(differing)}): a new run begins."
            )
        resumed = known is not None and not differing
        identity = known if known is not None and resumed else new
        atomic_write_json(path, identity)
        tracker.anchor(entry, run_dir, identity, resumed)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say from which step on rows may come a second time."""
        for tracker, entry in self.found:
            tracker.replays_from(entry, int(checkpoint["global_step"]))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send the configuration."""
        if not trainer.is_global_zero or not self.config:
            return
        for entry in trainer.loggers:
            if not isinstance(entry, RegistryLogger):
                entry.log_hyperparams(dict(self.config))

    def end(self, failed: bool) -> None:
        """End the tracked runs."""
        for tracker, entry in self.found:
            tracker.end(entry, failed)


def upload_checkpoint(trainer: pl.Trainer, path: Path) -> None:
    """Send a checkpoint to W&B; offline, ``wandb sync`` sends it later.

    Raises:
        ValueError: If the trainer has no ``WandbLogger``.
    """
    tracker = WandbTracker()
    loggers = [entry for entry in trainer.loggers if tracker.owns(entry)]
    if not loggers:
        raise ValueError("`upload_wandb` needs a WandbLogger among the trainer's loggers.")
    if trainer.is_global_zero:
        tracker.upload(loggers[0], path)


def read_identity(path: Path) -> Identity | None:
    """An identity on disk; ``None``, with a warning, if it is not readable."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning(f"{path} cannot be read ({error}): a new tracked run begins.")
        return None
    return {str(key): str(value) for key, value in found.items()} if found else None
