"""What Lightning's checkpoints lack for an exact resume, saved with them and put back in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import lightning as pl
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from loguru import logger
from spt_registry import RegistryLogger
from torch import Tensor

from spt_manager.resume.counters import (
    pending_gradients,
    restore_pending_gradients,
    restore_running_counts,
    running_counts,
)
from spt_manager.resume.generators import generator_states
from spt_manager.resume.loaders import fetched_ahead
from spt_manager.resume.logged import (
    restore_results,
    restore_running_metrics,
    restore_shown_metrics,
    results_state,
    running_metrics,
    shown_metrics,
)
from spt_manager.resume.queues import queue_rows, restore_queue_rows
from spt_manager.resume.ranks import Ranks
from spt_manager.resume.rng import rng_state, set_rng_state
from spt_manager.resume.rows import count_rows, keep_rows

KEY = "spt_manager"
Point = Literal["batch", "validation", "epoch"]


class ExactState(pl.Callback):
    """Random state, logged values, metrics and queues of every rank, in each checkpoint.

    Everything is tensors and plain values, so that checkpoints load with ``weights_only=True``.

    Args:
        metrics_file: The run's ``metrics.csv``, which is cut back to the checkpoint on resume.

    Attributes:
        point: Where the training stands while a checkpoint is saved between batches; ``None`` for
            checkpoints that are saved in a hook.
        loaded: What the checkpoint held for this rank, until it has been put back.
        loaded_point: Its ``point``.
        epoch_rng: The random state from which the loaders of this epoch were started.
        epoch_generators: That of the generators which the loaders own.
        data_rng: The random state in which the loaders were made.
    """

    def __init__(self, metrics_file: Path | None = None) -> None:
        self.metrics_file = metrics_file
        self.point: Point | None = None
        self.loaded: dict[str, Any] | None = None
        self.loaded_point: Point | None = None
        self.epoch_rng: dict[str, Any] | None = None
        self.epoch_generators: list[Tensor] = []
        self.data_rng: dict[str, Any] | None = None
        self.frozen: dict[str, Any] | None = None
        self._ranks: Ranks | None = None

    @property
    def state_key(self) -> str:
        """One of a kind."""
        return "spt_manager.ExactState"

    @property
    def ranks(self) -> Ranks:
        """The ranks of this run."""
        if self._ranks is None:
            self._ranks = Ranks()
        return self._ranks

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Meet the other ranks."""
        self._ranks = Ranks()

    def loaders_start(self, combined: CombinedLoader | None) -> None:
        """Keep the random state from which the loaders of an epoch start."""
        self.epoch_rng, self.epoch_generators = rng_state(), generator_states(combined)

    def before_validation(self, trainer: pl.Trainer) -> None:
        """Keep what validation will change, for a stop in the middle of it."""
        self.frozen = self._changing(trainer)

    def after_validation(self) -> None:
        """Forget it."""
        self.frozen = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the state of all ranks."""
        stopped_inside = self.point == "validation" and self.frozen is not None
        own = self.frozen if stopped_inside else self._changing(trainer)
        assert own is not None
        loader = trainer.fit_loop._combined_loader
        own = {
            **own,
            "epoch_rng": self.epoch_rng,
            "epoch_generators": self.epoch_generators,
            "generators": generator_states(loader),
            "data_rng": self.data_rng,
            "queues": queue_rows(trainer),
            "ahead": fetched_ahead(trainer.fit_loop._data_fetcher, loader),
            "loaders": loader._state_dicts() if loader is not None and self.ranks.world > 1 else [],
        }
        checkpoint[KEY] = {"point": self.point, "ranks": self.ranks.gather(own)}

    def _changing(self, trainer: pl.Trainer) -> dict[str, Any]:
        return {
            "rng": rng_state(),
            "results": results_state(trainer.fit_loop.epoch_loop._results, trainer),
            "shown": shown_metrics(trainer),
            "metrics": running_metrics(trainer),
            "counts": running_counts(trainer),
            "gradients": pending_gradients(trainer.lightning_module),
            "rows": self._rows(trainer),
        }

    def _rows(self, trainer: pl.Trainer) -> int:
        if self.metrics_file is None or not trainer.is_global_zero:
            return 0
        for entry in trainer.loggers:
            if isinstance(entry, RegistryLogger):
                entry.experiment.save()
        return count_rows(self.metrics_file)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the state of this rank until the training is about to go on."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        trainer.num_sanity_val_steps = 0  # its batches would not have come in the run itself
        saved = checkpoint.get(KEY)
        if saved is None:
            logger.warning(
                "The checkpoint was not saved under a Manager: random state, logged means and "
                "queues are not in it, so the run will not go on exactly as it would have."
            )
            return
        if len(saved["ranks"]) != self.ranks.world:
            logger.warning(
                f"The checkpoint is of {len(saved['ranks'])} processes and there are "
                f"{self.ranks.world} now: the run goes on, but not exactly as it would have."
            )
        if self.ranks.rank < len(saved["ranks"]):
            self.loaded = saved["ranks"][self.ranks.rank]
        self.loaded_point = saved["point"]
        if self.metrics_file is not None and trainer.is_global_zero:
            keep_rows(self.metrics_file, saved["ranks"][0]["rows"])

    def put_back(self, trainer: pl.Trainer) -> None:
        """Put everything back, when no hook comes any more before the next batch."""
        if self.loaded is None:
            return
        loaded, self.loaded = self.loaded, None
        if self.loaded_point != "epoch":
            restore_results(trainer.fit_loop.epoch_loop._results, loaded["results"], trainer)
        restore_running_counts(trainer, loaded["counts"])
        restore_pending_gradients(trainer.lightning_module, loaded["gradients"])
        restore_running_metrics(trainer, loaded["metrics"])
        restore_shown_metrics(trainer, loaded["shown"])
        restore_queue_rows(trainer, loaded["queues"])
        self.epoch_rng = loaded["epoch_rng"]
        self.epoch_generators = loaded["epoch_generators"]
        set_rng_state(loaded["rng"])
