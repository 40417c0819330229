"""``last.ckpt``: saved between batches and between epochs, where a run can go on exactly."""

from __future__ import annotations

from pathlib import Path

import lightning as pl
from lightning.pytorch.callbacks import Checkpoint

from spt_manager.checkpointing.files import LAST, free_name
from spt_manager.checkpointing.io import AtomicCheckpointIO
from spt_manager.checkpointing.sharded import mark_complete, switch_pointer
from spt_manager.resume.state import ExactState, Point


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
        self._saved_at: int | None = None

    @property
    def state_key(self) -> str:
        """One of a kind, whatever savers the user has."""
        return "spt_manager.LastCheckpoint"

    def is_due(self, trainer: pl.Trainer, point: Point) -> bool:
        """Whether to save at this point."""
        if getattr(trainer, "fast_dev_run", False):
            return False
        step = trainer.global_step
        regular = self.every_n_steps and step % self.every_n_steps == 0 and point == "batch"
        return point == "epoch" or bool(regular and step != self._saved_at)

    def save(self, trainer: pl.Trainer, state: ExactState, point: Point) -> None:
        """Save; all ranks call it.

        Args:
            trainer: Whose state is saved.
            state: Told the point, so that the run goes on exactly there.
            point: Where the training stands.
        """
        self._saved_at = trainer.global_step
        state.point = point
        try:
            path = self._write(trainer)
        finally:
            state.point = None
        self.last_model_path = str(path)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(self)  # type: ignore[arg-type]

    def _write(self, trainer: pl.Trainer) -> Path:
        pointer = self.folder / LAST
        if not saves_shards(trainer):
            trainer.save_checkpoint(pointer, weights_only=False)
            return pointer
        name = free_name(self.folder / f"{pointer.stem}-step={trainer.global_step}").name
        folder = self.folder / trainer.strategy.broadcast(
            name
        )  # one that is there is not written over
        trainer.save_checkpoint(folder, weights_only=False)
        if trainer.is_global_zero:
            mark_complete(folder)
            switch_pointer(pointer, folder)
        trainer.strategy.barrier("spt_manager.LastCheckpoint")
        return pointer

    def wait(self, trainer: pl.Trainer) -> None:
        """Wait until what was saved is on disk."""
        io = trainer.strategy.checkpoint_io
        if isinstance(io, AtomicCheckpointIO):
            io.wait()


def saves_shards(trainer: pl.Trainer) -> bool:
    """Whether the strategy writes a directory in which each rank has a file."""
    return bool(getattr(trainer.strategy, "_save_distributed_checkpoint", False)) or (
        getattr(trainer.strategy, "_state_dict_type", None) == "sharded"
    )
