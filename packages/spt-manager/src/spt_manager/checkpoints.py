"""Checkpoints that are whole or not there, and the choice of the one to go on from."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import lightning as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from loguru import logger
from spt_registry.run import atomic_file

LAST = "last.ckpt"
PREVIOUS = "last-previous.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Stream a checkpoint to a temporary file beside its target, fsync, rename.

    The ``last.ckpt`` that is replaced stays as ``last-previous.ckpt``.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Save.

        Args:
            checkpoint: What to save.
            path: A local path.
            storage_options: Must be ``None``.

        Raises:
            TypeError: If there are storage options.
        """
        if storage_options is not None:
            raise TypeError("`storage_options` is not supported for checkpoints, leave it out.")
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(target) as file:
            torch.save(checkpoint, file)
            if target.name == LAST and target.exists():
                keep_previous(target)


def keep_previous(last: Path) -> None:
    """Give ``last.ckpt`` a second name, which stays when the first is taken over."""
    link = last.with_name(f".{PREVIOUS}.{os.getpid()}")
    link.unlink(missing_ok=True)
    os.link(last, link)
    os.replace(link, last.with_name(PREVIOUS))


def is_whole(path: Path) -> bool:
    """Whether every byte of a checkpoint is as it was written, by the file's own checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
        return False


def newest_good(folder: Path) -> Path | None:
    """The checkpoint to go on from: ``last.ckpt``, else the newest one that is whole.

    A file that is not whole is set aside under another name, with a message; nothing is
    deleted.

    Args:
        folder: The run's checkpoints.
    """
    others = [path for path in folder.glob("*.ckpt") if path.name != LAST]
    others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    last = folder / LAST
    for path in ([last] if last.exists() else []) + others:
        if is_whole(path):
            return path
        aside = _free_name(path.with_name(path.name + ".corrupt"))
        os.replace(path, aside)
        logger.error(
            f"The checkpoint {path} is corrupt; it is set aside as {aside.name}, and the newest "
            "good one is used."
        )
    return None


def _free_name(path: Path) -> Path:
    for i in range(1000):
        candidate = path if i == 0 else path.with_name(f"{path.name}-{i}")
        if not candidate.exists():
            return candidate
    raise FileExistsError(f"There are too many files named {path}*; remove some.")


class LastCheckpoint(Checkpoint):
    """Keep ``last.ckpt`` at the end of each epoch, and every n steps if asked.

    Args:
        folder: Where it goes.
        every_n_steps: Optimizer steps between further saves; 0 for none.
    """

    def __init__(self, folder: Path, every_n_steps: int = 0) -> None:
        self.folder = folder
        self.every_n_steps = every_n_steps
        self.monitor = None
        self.best_model_path = ""
        self.last_model_path = ""
        self._saved_at = -1

    @property
    def state_key(self) -> str:
        """One of a kind, whatever savers the user has."""
        return "spt_manager.LastCheckpoint"

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """Save in mid-epoch."""
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if due and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of an epoch."""
        self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step == self._saved_at or getattr(trainer, "fast_dev_run", False):
            return
        self._saved_at = trainer.global_step
        path = self.folder / LAST
        trainer.save_checkpoint(path, weights_only=False)
        self.last_model_path = str(path)
        if trainer.is_global_zero:
            for logger_ in trainer.loggers:
                logger_.after_save_checkpoint(self)  # type: ignore[arg-type]
