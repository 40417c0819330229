"""The Manager: a run directory, checkpoints, resume and the registry around a Trainer."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spt_registry import RunWriter
from spt_registry.run import open_run_dir, resolve_identity

from spt_jax import checkpoint
from spt_jax.engine import State
from spt_jax.module import Module
from spt_jax.trainer import Trainer


class Manager:
    """Run a training that is recorded and can go on.

    Args:
        trainer: The training loop.
        module: What to train.
        train_loader: Training batches.
        val_loader: Validation batches.
        cache_dir: Root of the runs; the environment variable ``SPT_CACHE_DIR`` by default. Without
            one nothing is recorded.
        run_id: Id of the run; by default SLURM's, torchrun's, or a random one.
        save_every_n_epochs: Epochs between checkpoints.

    Attributes:
        run_dir: The run's directory, once it has started with a cache directory.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: Module,
        train_loader: Iterable[Any],
        val_loader: Iterable[Any] | None = None,
        *,
        cache_dir: str | Path | None = None,
        run_id: str | None = None,
        save_every_n_epochs: int = 1,
    ) -> None:
        if save_every_n_epochs < 1:
            raise ValueError(f"`save_every_n_epochs` must be >= 1, got {save_every_n_epochs}.")
        self.trainer = trainer
        self.module = module
        self.train_loader = train_loader
        self.val_loader = val_loader
        self.cache_dir = cache_dir or os.environ.get("SPT_CACHE_DIR")
        self.save_every_n_epochs = save_every_n_epochs
        self.identity = resolve_identity(run_id=run_id)
        self.run_dir: Path | None = None

    def __call__(self) -> Trainer:
        """Train, from the beginning or from the last checkpoint."""
        if self.cache_dir is None:
            self.trainer.fit(self.module, self.train_loader, self.val_loader)
            return self.trainer
        place = open_run_dir(self.cache_dir, self.identity)
        self.run_dir = place.path
        print(f"Run {place.run_id} {'goes on' if place.resumed else 'starts'} in {place.path}")
        writer = RunWriter(place.path, place.run_id, tags=["jax", *self.identity.tags])
        path = place.path / "checkpoints" / "last.msgpack"

        def restore(state: State) -> tuple[State, int, int]:
            found = checkpoint.load_newest(path, state)
            if found is None:
                return state, 0, 0
            return found[0], found[1]["epoch"], found[1]["batches"]

        def save(trainer: Trainer) -> None:
            if trainer.done or trainer.current_epoch % self.save_every_n_epochs == 0:
                meta = {"epoch": trainer.current_epoch, "batches": trainer.epoch_batches}
                checkpoint.save(path, trainer.state, **meta)
                writer.log_checkpoint(last=str(path))

        self.trainer.loggers.insert(0, writer)
        self.trainer.on_epoch_end.append(save)
        try:
            self.trainer.fit(self.module, self.train_loader, self.val_loader, restore)
        except Exception:
            writer.finalize("failed", error=traceback.format_exc())
            raise
        finally:
            self.trainer.loggers.remove(writer)
            self.trainer.on_epoch_end.remove(save)
        return self.trainer
